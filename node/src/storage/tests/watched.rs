//! Files in memory that count how many of them are open, and how often each is read from its beginning.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::files::{File, Files};
use super::super::frame::HEAD;
use super::super::memory::InMemory;
use super::super::segments::{PREFIX, named};

#[derive(Debug, Default)]
pub(super) struct Watched {
    files: InMemory,
    seen: Arc<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    open: AtomicUsize,
    most: AtomicUsize,
    scans: Mutex<BTreeMap<String, usize>>,
}

impl Seen {
    fn scans(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.scans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// The most files that were open at once.
    pub(super) fn most_open(&self) -> usize {
        self.seen.most.load(Ordering::SeqCst)
    }

    /// Files that are open now.
    pub(super) fn open_now(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// How often the head of each segment's first frame was read since this was last asked: once by a start
    /// that replays it, twice by whoever empties it or goes on with it.
    pub(super) fn scans(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.seen.scans())
    }

    /// How many segments there are.
    pub(super) fn segments(&self) -> usize {
        let names = self.files.list().expect("listed");
        names.iter().filter(|name| named(name).is_some()).count()
    }

    fn watch(&self, name: &str, file: Arc<dyn File>) -> Arc<dyn File> {
        let open = self.seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most.fetch_max(open, Ordering::SeqCst);
        Arc::new(WatchedFile { name: name.to_owned(), file, seen: Arc::clone(&self.seen) })
    }
}

impl Files for Watched {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.watch(name, self.files.open(name)?))
    }

    fn reopen(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.watch(name, self.files.reopen(name)?))
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
struct WatchedFile {
    name: String,
    file: Arc<dyn File>,
    seen: Arc<Seen>,
}

impl Drop for WatchedFile {
    fn drop(&mut self) {
        self.seen.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl File for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset == PREFIX && out.len() == HEAD {
            *self.seen.scans().entry(self.name.clone()).or_default() += 1;
        }
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
