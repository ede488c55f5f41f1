//! What happens when the device is full: whoever writes waits until there is room again.
//!
//! Nothing is lost by waiting, for nothing is acknowledged before it is written; and the index file
//! must never see a write fail, because its library will not touch it again afterwards.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::files::{File, Files};

/// How often a full device is tried again.
const AGAIN: Duration = Duration::from_millis(200);

thread_local! {
    static IMPATIENT: Cell<bool> = const { Cell::new(false) };
}

/// Does something that must not wait for room: it fails if there is none.
pub(super) fn without_waiting<T>(work: impl FnOnce() -> T) -> T {
    IMPATIENT.set(true);
    let result = work();
    IMPATIENT.set(false);
    result
}

/// Whether there is room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    waiting: AtomicUsize,
    hurry: AtomicBool,
}

impl Room {
    /// Whether somebody waits for room.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether nobody is to wait any more.
    pub(super) fn hurries(&self) -> bool {
        self.hurry.load(Ordering::Relaxed)
    }

    /// Nobody waits any more: writes fail at once when the device is full.
    pub(crate) fn stop_waiting(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    fn wait_for<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut result = attempt();
        let full = |result: &io::Result<T>| matches!(result, Err(e) if no_room(e));
        if full(&result) && !IMPATIENT.get() {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            while full(&result) && !self.hurry.load(Ordering::Relaxed) {
                thread::sleep(AGAIN);
                result = attempt();
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        result
    }
}

/// Whether something failed because the device is full.
pub(super) fn no_room(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Files whose writes wait for room. A failed sync is never tried again: what it was about may be gone
/// from the system's cache without having reached the device.
#[derive(Debug)]
pub(crate) struct Patient {
    files: Arc<dyn Files>,
    room: Arc<Room>,
}

impl Patient {
    pub(crate) fn new(files: Arc<dyn Files>, room: Arc<Room>) -> Self {
        Self { files, room }
    }
}

impl Files for Patient {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.room.wait_for(|| self.files.open(name))?;
        Ok(Arc::new(PatientFile { file, room: Arc::clone(&self.room) }))
    }

    fn reopen(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.files.reopen(name)?;
        Ok(Arc::new(PatientFile { file, room: Arc::clone(&self.room) }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.files.sync()
    }

    fn allocated(&self) -> u64 {
        self.files.allocated()
    }
}

#[derive(Debug)]
struct PatientFile {
    file: Arc<dyn File>,
    room: Arc<Room>,
}

impl File for PatientFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.room.wait_for(|| self.file.write_at(offset, bytes))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room.wait_for(|| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
