//! A consistent view of what is durable.

use std::sync::Arc;

use swarmkv_protocol::id::BranchId;
use swarmkv_protocol::log::heads::Heads;
use swarmkv_protocol::op;
use swarmkv_protocol::store::{RawSlot, StoreError};

use super::branches::Branches;
use super::index::{OnKey, Tables};
use super::memtable::Memtable;
use super::schema::{self, Place, Pointer, Spot};
use super::segments::Segments;

/// A moment of the store; cheap to clone, lives as long as anyone reads from it. `None` once the peer
/// has stopped and let go of its store.
#[derive(Clone)]
pub(crate) struct Snapshot(Option<Arc<View>>);

/// What a moment is made of.
pub(super) struct View {
    pub(super) tables: Arc<Tables>,
    /// The memtable that is being put into the index, and the one after it.
    pub(super) frozen: Option<Arc<Memtable>>,
    pub(super) memtable: Arc<Memtable>,
    /// The last frame that this moment knows of.
    pub(super) upto: u64,
    pub(super) segments: Arc<Segments>,
    pub(super) branches: Arc<Branches>,
}

impl View {
    fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        self.frozen.iter().chain([&self.memtable])
    }

    /// The slots on a key and where they lie.
    pub(super) fn spots(&self, key: &[u8]) -> Result<Vec<Spot>, StoreError> {
        Ok(self.patched(key, self.tables.spots(key)?))
    }

    fn patched(&self, key: &[u8], mut spots: Vec<Spot>) -> Vec<Spot> {
        for memtable in self.memtables() {
            memtable.patch(key, self.upto, &mut spots);
        }
        spots
    }

    /// Of each branch the last of `spots` at or below its head, ascending. What a log has replaced is kept for
    /// a while: readers need not read it.
    fn latest(
        &self,
        mut spots: Vec<Spot>,
        head: impl Fn(&BranchId) -> u64,
    ) -> Result<Vec<Spot>, StoreError> {
        spots.sort_unstable_by_key(|spot| spot.place);
        let mut latest = Vec::with_capacity(spots.len());
        for of_one in spots.chunk_by(|a, b| a.place.0 == b.place.0) {
            let upto = head(&self.branches.branch(of_one[0].place.0)?);
            latest.extend(of_one.iter().rev().find(|spot| spot.place.1 <= upto));
        }
        Ok(latest)
    }

    /// Reads slots, ascending by branch and sequence number.
    fn read(&self, key: &[u8], spots: Vec<Spot>) -> Result<Vec<RawSlot>, StoreError> {
        let mut slots = Vec::with_capacity(spots.len());
        for Spot { place: (branch, seq), pointer } in spots {
            let place = (self.branches.branch(branch)?, seq);
            slots.push(slot(&self.segments, key, place, pointer));
        }
        slots.sort_by_key(|slot| (slot.branch, slot.seq));
        Ok(slots)
    }
}

/// Reads one slot on a key. One that cannot be read, or that a damaged index names for this key, is as good
/// as a damaged one: only who needs it will mind.
pub(super) fn slot(segments: &Segments, key: &[u8], place: Place, pointer: Pointer) -> RawSlot {
    let mut bytes = vec![0; pointer.len as usize];
    let read = segments
        .get(&pointer.segment)
        .map(|segment| segment.file()?.read_at(pointer.offset.into(), &mut bytes));
    if !matches!(read, Some(Ok(()))) {
        bytes.clear();
    }
    let slot = schema::slot(place, &bytes);
    if op::index_key_of(&slot.op).as_deref() == Some(key) { slot } else { schema::slot(place, &[]) }
}

impl Snapshot {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self(Some(view))
    }

    /// The snapshot of a store that was let go of.
    pub(crate) fn closed() -> Self {
        Self(None)
    }

    fn view(&self) -> Result<&Arc<View>, StoreError> {
        self.0.as_ref().ok_or_else(|| StoreError::failed("the peer has stopped"))
    }

    /// Every slot on `key`, ascending by branch and sequence number.
    pub(crate) fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        let view = self.view()?;
        view.read(key, view.spots(key)?)
    }

    /// Of each branch the latest slot on `key` at or below its head, ascending by branch: all that readers
    /// are shown comes from these.
    pub(crate) fn latest(
        &self,
        key: &[u8],
        head: impl Fn(&BranchId) -> u64,
    ) -> Result<Vec<RawSlot>, StoreError> {
        let view = self.view()?;
        view.read(key, view.latest(view.spots(key)?, head)?)
    }

    /// Keys from `from` on that begin with `prefix`, ascending, each with its slots.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn scan(&self, prefix: &[u8], from: &[u8]) -> Result<Scan, StoreError> {
        let view = Arc::clone(self.view()?);
        let indexed = Box::new(view.tables.keys(from)?) as Box<dyn Iterator<Item = _> + Send>;
        let ahead = view.memtables().map(|m| (Arc::clone(m), m.next_key(from, true))).collect();
        Ok(Scan { indexed: indexed.peekable(), ahead, prefix: prefix.to_vec(), view, heads: None })
    }
}

/// A key with the slots on it.
type Group = Result<(Vec<u8>, Vec<RawSlot>), StoreError>;
type Indexed = Box<dyn Iterator<Item = Result<OnKey, StoreError>> + Send>;

/// Keys in order, merged from the index and the memtables.
pub(crate) struct Scan {
    indexed: std::iter::Peekable<Indexed>,
    /// The memtables, each with its next key.
    ahead: Vec<(Arc<Memtable>, Option<Vec<u8>>)>,
    prefix: Vec<u8>,
    view: Arc<View>,
    heads: Option<Heads>,
}

impl Scan {
    /// Reads of each branch the latest slot at or below its head only, as [`Snapshot::latest`] does.
    pub(crate) fn latest(self, heads: Heads) -> Self {
        Self { heads: Some(heads), ..self }
    }

    /// The next key that anybody speaks of, and what the index has on it.
    fn next_spots(&mut self) -> Option<Result<OnKey, StoreError>> {
        let indexed = match self.indexed.peek() {
            Some(Ok((key, _))) => Some(key.clone()),
            Some(Err(_)) => return self.indexed.next(),
            None => None,
        };
        let keys = self.ahead.iter().filter_map(|(_, key)| key.clone());
        let key = keys.chain(indexed.clone()).min()?;
        for (memtable, next) in &mut self.ahead {
            if next.as_ref() == Some(&key) {
                *next = memtable.next_key(&key, false);
            }
        }
        if indexed.as_ref() == Some(&key) {
            self.indexed.next()
        } else {
            Some(Ok((key, Vec::new())))
        }
    }
}

impl Iterator for Scan {
    type Item = Group;

    fn next(&mut self) -> Option<Group> {
        loop {
            let (key, spots) = match self.next_spots()? {
                Ok(found) => found,
                Err(e) => return Some(Err(e)),
            };
            if !key.starts_with(&self.prefix) {
                return None;
            }
            let spots = self.view.patched(&key, spots);
            if !spots.is_empty() {
                let spots = match &self.heads {
                    Some(heads) => self.view.latest(spots, |branch| heads.of(branch)),
                    None => Ok(spots),
                };
                let slots = spots.and_then(|spots| self.view.read(&key, spots));
                return Some(slots.map(|slots| (key, slots)));
            }
        }
    }
}
