//! The files that slots lie in. Few of them are open at a time, however many there are; one that is not
//! needed any more is removed when the last snapshot that may read it is gone.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tracing::warn;

use super::files::{File, Files};

/// Segments that a store keeps open for reading. A process may have few descriptors (256 by default on
/// macOS) and needs most of them for connections. Fewer, and reads all over a large store open a file
/// each, which costs several times what the read does.
pub(super) const OPEN_SEGMENTS: usize = 64;

/// Bytes before the first frame: a word that says what this is, and the segment's number.
pub(super) const PREFIX: u64 = 16;
const MAGIC: &[u8; 12] = b"swarmkv seg3";

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Part of the journal.
    Log,
    /// Slots that were moved together when their segments were given up.
    Slots,
}

pub(super) fn name(kind: Kind, segment: u32) -> String {
    match kind {
        Kind::Log => format!("{segment:08x}.log"),
        Kind::Slots => format!("{segment:08x}.slots"),
    }
}

/// The segment that a file's name speaks of.
pub(super) fn named(file: &str) -> Option<(Kind, u32)> {
    let (number, kind) = file.split_once('.')?;
    let kind = match kind {
        "log" => Kind::Log,
        "slots" => Kind::Slots,
        _ => return None,
    };
    Some((kind, u32::from_str_radix(number, 16).ok()?))
}

/// Segments by number. A snapshot of it keeps the files that it may read.
pub(super) type Segments = BTreeMap<u32, Arc<Segment>>;

/// One segment.
pub(super) struct Segment {
    pub(super) kind: Kind,
    number: u32,
    handles: Arc<Handles>,
    /// Nothing durable points here any more.
    unneeded: AtomicBool,
}

impl Segment {
    /// Its file, opened if it is not open. Whoever keeps this keeps a descriptor.
    pub(super) fn file(&self) -> io::Result<Arc<dyn File>> {
        self.handles.file(self.kind, self.number)
    }

    /// Has the file removed as soon as nobody may read it any more.
    pub(super) fn give_up(&self) {
        self.unneeded.store(true, Ordering::Relaxed);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.handles.forget(self.number);
        if *self.unneeded.get_mut() {
            self.handles.remove(self.kind, self.number);
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self.kind, self.number))
    }
}

/// The open files of a store's segments, a bounded number of them.
#[derive(Debug)]
pub(super) struct Handles {
    files: Arc<dyn Files>,
    most: usize,
    cache: Mutex<Cache>,
    /// The store was let go of. Its directory may belong to another by now, with other files under the
    /// same names: none is opened or removed any more.
    closed: RwLock<bool>,
}

#[derive(Debug, Default)]
struct Cache {
    /// By segment: when it was last read, and its file.
    open: BTreeMap<u32, (u64, Arc<dyn File>)>,
    reads: u64,
}

impl Handles {
    /// At most `most` files are kept open.
    pub(super) fn new(files: Arc<dyn Files>, most: usize) -> Arc<Self> {
        Arc::new(Self { files, most, cache: Mutex::default(), closed: RwLock::new(false) })
    }

    /// A segment whose file is there.
    pub(super) fn segment(self: &Arc<Self>, kind: Kind, number: u32) -> Arc<Segment> {
        let handles = Arc::clone(self);
        Arc::new(Segment { kind, number, handles, unneeded: AtomicBool::new(false) })
    }

    /// Makes a segment; its file is for whoever writes it.
    pub(super) fn create(
        self: &Arc<Self>,
        kind: Kind,
        number: u32,
    ) -> io::Result<(Arc<Segment>, Arc<dyn File>)> {
        let name = name(kind, number);
        let file = self.begin(&name, number).inspect_err(|_| {
            let _ = self.files.remove(&name);
        })?;
        self.keep(number, &file);
        Ok((self.segment(kind, number), file))
    }

    fn begin(&self, name: &str, number: u32) -> io::Result<Arc<dyn File>> {
        let file = self.files.open(name)?;
        file.set_len(0)?;
        let mut prefix = MAGIC.to_vec();
        prefix.extend_from_slice(&number.to_be_bytes());
        file.write_at(0, &prefix)?;
        self.files.sync()?;
        Ok(file)
    }

    /// Lets go of all files, for good.
    pub(super) fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        self.cache().open.clear();
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, kind: Kind, number: u32) -> io::Result<Arc<dyn File>> {
        let mut cache = self.cache();
        cache.reads += 1;
        let now = cache.reads;
        if let Some((read, file)) = cache.open.get_mut(&number) {
            *read = now;
            return Ok(Arc::clone(file));
        }
        drop(cache);
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(io::Error::other("the store was closed"));
        }
        let name = name(kind, number);
        let file = self.files.reopen(&name).or_else(|_| {
            // If that was for want of descriptors: here are some.
            self.cache().open.clear();
            self.files.reopen(&name)
        })?;
        self.keep(number, &file);
        Ok(file)
    }

    /// Keeps a file open; of too many, the one that was not read for the longest time is let go of.
    fn keep(&self, number: u32, file: &Arc<dyn File>) {
        let mut cache = self.cache();
        cache.reads += 1;
        let now = cache.reads;
        cache.open.insert(number, (now, Arc::clone(file)));
        if cache.open.len() > self.most {
            let oldest = cache.open.iter().min_by_key(|(_, (read, _))| *read);
            if let Some(oldest) = oldest.map(|(number, _)| *number) {
                cache.open.remove(&oldest);
            }
        }
    }

    fn forget(&self, number: u32) {
        self.cache().open.remove(&number);
    }

    /// Should this fail, the next start does it.
    fn remove(&self, kind: Kind, number: u32) {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if !*closed && let Err(e) = self.files.remove(&name(kind, number)) {
            warn!("a file of the store that nobody needs stays for now: {e}");
        }
    }
}
