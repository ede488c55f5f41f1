//! What is durable in the journal and not yet in the index.
//!
//! Readers see a memtable as it was after a certain frame: each change to a key carries the number of the
//! frame that made it. (Multi-version concurrency control in its smallest form.)

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use swarmkv_protocol::codec::Bytes;

use super::schema::{self, Numbered, Pointer, Rows, Spot};

/// Changes to one key beyond which those that nobody can tell apart any more are folded.
const FOLD: usize = 16;

/// A change to the slots of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    frame: u64,
    place: Numbered,
    /// `None`: removed.
    pointer: Option<Pointer>,
}

/// What a memtable holds.
#[derive(Debug, Default)]
pub(super) struct Maps {
    pub(super) slots: BTreeMap<Numbered, Option<Pointer>>,
    pub(super) keys: BTreeMap<Bytes, Vec<Change>>,
    pub(super) rows: BTreeMap<(Rows, Vec<u8>), Option<Bytes>>,
    /// Bytes of memory that this takes, about.
    pub(super) bytes: usize,
}

/// A memtable.
#[derive(Debug, Default)]
pub(super) struct Memtable(RwLock<Maps>);

impl From<Maps> for Memtable {
    fn from(maps: Maps) -> Self {
        Self(RwLock::new(maps))
    }
}

impl Memtable {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Maps> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Maps> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what was said of `key` up to frame `upto` over `spots`.
    pub(super) fn patch(&self, key: &[u8], upto: u64, spots: &mut Vec<Spot>) {
        if let Some(changes) = self.read().keys.get(key) {
            patch(changes, upto, spots);
        }
    }

    /// What is said of the first key after `from` (or at it, if `at`), up to frame `upto`.
    pub(super) fn next_key(&self, from: &[u8], at: bool) -> Option<Vec<u8>> {
        let from = if at { Bound::Included(from) } else { Bound::Excluded(from) };
        let maps = self.read();
        let mut range = maps.keys.range::<[u8], _>((from, Bound::Unbounded));
        range.next().map(|(key, _)| key.0.clone())
    }

    pub(super) fn row(&self, rows: Rows, key: &[u8]) -> Option<Option<Bytes>> {
        self.read().rows.get(&(rows, key.to_vec())).cloned()
    }

    /// What is said of the last row within these bounds.
    pub(super) fn last_row(
        &self,
        rows: Rows,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Option<(Vec<u8>, Option<Bytes>)> {
        let of_kind = |key: &[u8]| (rows, key.to_vec());
        let maps = self.read();
        let mut range = maps.rows.range((from.map(of_kind), to.map(of_kind)));
        range.next_back().map(|((_, key), value)| (key.clone(), value.clone()))
    }
}

/// Puts the changes up to frame `upto` over `spots`.
pub(super) fn patch(changes: &[Change], upto: u64, spots: &mut Vec<Spot>) {
    for change in changes.iter().filter(|change| change.frame <= upto) {
        schema::patch(spots, change.place, change.pointer);
    }
}

impl Maps {
    /// Where slots were removed.
    pub(super) fn removed(&self) -> Vec<Numbered> {
        let removed = self.slots.iter().filter(|(_, pointer)| pointer.is_none());
        removed.map(|(place, _)| *place).collect()
    }

    /// Takes a slot in, or its removal. Nobody reads as of a frame before `oldest` any more.
    pub(super) fn slot(
        &mut self,
        frame: u64,
        oldest: u64,
        key: &Bytes,
        place: Numbered,
        pointer: Option<Pointer>,
    ) {
        // Two maps of fixed entries, each with the weight of its tree, and the key once.
        self.bytes += 120;
        self.slots.insert(place, pointer);
        let change = Change { frame, place, pointer };
        match self.keys.get_mut(key) {
            Some(changes) => {
                changes.push(change);
                if changes.len() >= FOLD && changes.len().is_power_of_two() {
                    fold(changes, oldest);
                }
            }
            None => {
                self.bytes += 40 + key.len();
                self.keys.insert(key.clone(), vec![change]);
            }
        }
    }

    /// Takes a row in, or its removal.
    pub(super) fn row(&mut self, rows: Rows, key: &[u8], value: Option<Bytes>) {
        self.bytes += 80 + key.len() + value.as_ref().map_or(0, |value| value.len());
        self.rows.insert((rows, key.to_vec()), value);
    }
}

/// Drops slots that came and went before `oldest`: to all who still read they were never there.
fn fold(changes: &mut Vec<Change>, oldest: u64) {
    let seen = |change: &&Change| change.frame <= oldest;
    let came_and_went = |place: Numbered| {
        let mut of_place = changes.iter().filter(seen).filter(|change| change.place == place);
        // One that was there before this memtable must stay removed.
        let came = of_place.next().is_some_and(|first| first.pointer.is_some());
        came && of_place.next_back().is_some_and(|last| last.pointer.is_none())
    };
    let places = changes.iter().map(|change| change.place);
    let gone: BTreeSet<Numbered> = places.filter(|place| came_and_went(*place)).collect();
    changes.retain(|change| change.frame > oldest || !gone.contains(&change.place));
}
