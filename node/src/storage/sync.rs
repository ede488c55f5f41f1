//! The thread that makes writes durable, so that the driver's loop never waits for a disk.

use std::sync::mpsc as blocking;
use std::thread::{self, JoinHandle};

use swarmkv_protocol::store::StoreError;
use tokio::sync::mpsc;

use super::disk::Disk;
use super::view::Snapshot;

/// What a sync came to: what is durable now, or why the store must not be written any more.
pub(crate) type SyncDone = Result<Snapshot, StoreError>;

/// A running sync thread. At most one request is under way at a time.
pub(crate) struct SyncThread {
    requests: Option<blocking::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SyncThread {
    pub(crate) fn start(disk: Disk) -> (Self, mpsc::Receiver<SyncDone>) {
        let (requests, todo) = blocking::channel::<()>();
        let (done, finished) = mpsc::channel(1);
        let work = move || {
            while todo.recv().is_ok() {
                let result = disk.commit();
                let failed = result.is_err();
                if done.blocking_send(result).is_err() || failed {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("swarmkv-sync".into())
            .spawn(work)
            .expect("the system can start a thread");
        (Self { requests: Some(requests), thread: Some(thread) }, finished)
    }

    /// Asks for a commit of what was sealed.
    pub(crate) fn request(&self) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(());
        }
    }

    /// Ends the thread once it is idle.
    pub(crate) fn finish(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
