//! A database file that is read and never changed: what its library writes, as when it repairs a file that a
//! killed process left, is kept in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const BLOCK: usize = 4096;

#[derive(Debug)]
pub(super) struct Untouched {
    file: fs::File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How long the file seems to be.
    len: u64,
    /// How much of the file itself is still seen.
    seen: u64,
    /// Blocks that were written to.
    written: BTreeMap<u64, Vec<u8>>,
}

impl Untouched {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, state: Mutex::new(State { len, seen: len, written: BTreeMap::new() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of the file itself; zeros beyond its end.
    fn block(&self, seen: u64, number: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; BLOCK];
        let from = number * BLOCK as u64;
        let len = usize::try_from(seen.saturating_sub(from)).map_or(BLOCK, |len| len.min(BLOCK));
        self.file.read_exact_at(&mut block[..len], from)?;
        Ok(block)
    }
}

/// The blocks that `len` bytes from `offset` on lie in: each one's number, and the piece of it.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK as u64).unwrap_or(0);
        let piece = (BLOCK - within).min(len - done);
        done += piece;
        (piece > 0).then_some((at / BLOCK as u64, within, piece))
    })
}

impl redb::StorageBackend for Untouched {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let mut rest = out;
        for (number, within, piece) in pieces(offset, rest.len()) {
            let (into, after) = rest.split_at_mut(piece);
            match state.written.get(&number) {
                Some(block) => into.copy_from_slice(&block[within..within + piece]),
                None => {
                    into.copy_from_slice(&self.block(state.seen, number)?[within..within + piece])
                }
            }
            rest = after;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.seen = state.seen.min(len);
        state.len = len;
        let _ = state.written.split_off(&len.div_ceil(BLOCK as u64));
        let within = usize::try_from(len % BLOCK as u64).unwrap_or(0);
        if let Some(block) = state.written.get_mut(&(len / BLOCK as u64)) {
            block[within..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let seen = state.seen;
        let mut rest = data;
        for (number, within, piece) in pieces(offset, data.len()) {
            if let Entry::Vacant(place) = state.written.entry(number) {
                place.insert(self.block(seen, number)?);
            }
            let (from, after) = rest.split_at(piece);
            if let Some(block) = state.written.get_mut(&number) {
                block[within..within + piece].copy_from_slice(from);
            }
            rest = after;
        }
        Ok(())
    }
}
