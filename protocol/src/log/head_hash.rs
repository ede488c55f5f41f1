//! The hash of all proven heads: equal replicas, equal hashes. A hash tree over the logs (Merkle), so that a
//! log that moved costs the path from its leaf to the root, however many logs there are.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::{self, Domain};
use crate::id::{Hash, LogId};
use crate::meter::{self, Work};

/// Bits of a place that one level of the tree decides, and levels: 4,096 leaves.
const BITS: u16 = 4;
const LEVELS: usize = 3;

/// The proven heads of all logs, and the hashes over them.
#[derive(Debug)]
pub(crate) struct HeadHash {
    /// By place in the tree.
    heads: BTreeSet<(u16, LogId, u64, Hash)>,
    /// The hashes of each level's nodes, the root's children first, the leaves last. An empty node has none.
    levels: [BTreeMap<u16, Hash>; LEVELS],
    /// Leaves that changed since the root was worked out.
    stale: BTreeSet<u16>,
    root: Hash,
}

impl Default for HeadHash {
    fn default() -> Self {
        let (heads, stale) = (BTreeSet::new(), BTreeSet::new());
        let root = crypto::hash(Domain::Digest, &[]);
        Self { heads, levels: Default::default(), stale, root }
    }
}

/// The leaf that a log belongs to: by a hash, so that its author does not simply choose it.
fn place(log: &LogId) -> u16 {
    let hash = crypto::hash(Domain::Digest, &[&log.to_bytes()]);
    u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]) >> (16 - BITS * LEVELS as u16)
}

impl HeadHash {
    /// Replaces a log's heads, which ascend.
    pub(crate) fn set(&mut self, log: LogId, heads: &[(u64, Hash)]) {
        let place = place(&log);
        let lowest = (place, log, 0, Hash::new([0; 32]));
        let highest = (place, log, u64::MAX, Hash::new([0xff; 32]));
        let before: Vec<_> = self.heads.range(lowest..=highest).copied().collect();
        if before.iter().map(|(.., seq, hash)| (*seq, *hash)).eq(heads.iter().copied()) {
            return;
        }
        for head in &before {
            self.heads.remove(head);
        }
        self.heads.extend(heads.iter().map(|(seq, hash)| (place, log, *seq, *hash)));
        self.stale.insert(place);
    }

    /// The hash of them all, as of the last [`HeadHash::refresh`].
    pub(crate) fn root(&self) -> Hash {
        self.root
    }

    /// Works out again what lies on the way from the leaves that changed to the root.
    pub(crate) fn refresh(&mut self) {
        let mut stale = std::mem::take(&mut self.stale);
        if stale.is_empty() {
            return;
        }
        for place in &stale {
            let hash = self.leaf(*place);
            keep(&mut self.levels[LEVELS - 1], *place, hash);
        }
        for level in (1..LEVELS).rev() {
            stale = stale.into_iter().map(|place| place >> BITS).collect();
            for place in &stale {
                let hash = node(&self.levels[level], *place);
                keep(&mut self.levels[level - 1], *place, hash);
            }
        }
        self.root = node(&self.levels[0], 0).unwrap_or_else(|| crypto::hash(Domain::Digest, &[]));
    }

    fn leaf(&self, place: u16) -> Option<Hash> {
        let after = (place, LogId::from_bytes(&[0; LogId::LEN]), 0, Hash::new([0; 32]));
        let mut bytes = Vec::new();
        for (_, log, seq, head) in self.heads.range(after..).take_while(|head| head.0 == place) {
            meter::count(Work::Logs, 1);
            bytes.extend_from_slice(&log.to_bytes());
            bytes.extend_from_slice(&seq.to_be_bytes());
            bytes.extend_from_slice(head.as_bytes());
        }
        (!bytes.is_empty()).then(|| crypto::hash(Domain::Digest, &[&bytes]))
    }
}

fn keep(level: &mut BTreeMap<u16, Hash>, place: u16, hash: Option<Hash>) {
    match hash {
        Some(hash) => drop(level.insert(place, hash)),
        None => drop(level.remove(&place)),
    }
}

/// The hash of a node over its children on `level`; nothing if it has none.
fn node(level: &BTreeMap<u16, Hash>, place: u16) -> Option<Hash> {
    let first = place << BITS;
    let last = first | ((1 << BITS) - 1);
    let mut bytes = Vec::new();
    for (place, hash) in level.range(first..=last) {
        bytes.extend_from_slice(&place.to_be_bytes());
        bytes.extend_from_slice(hash.as_bytes());
    }
    (!bytes.is_empty()).then(|| crypto::hash(Domain::Digest, &[&bytes]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DeviceId;

    fn log(n: u64) -> LogId {
        let mut author = [0; 32];
        author[..8].copy_from_slice(&n.to_be_bytes());
        LogId { author: DeviceId::new(author), epoch: 1, shard: 0 }
    }

    fn root_of<'a>(heads: impl IntoIterator<Item = &'a (LogId, Vec<(u64, Hash)>)>) -> Hash {
        let mut tree = HeadHash::default();
        for (log, heads) in heads {
            tree.set(*log, heads);
        }
        tree.refresh();
        tree.root()
    }

    #[test]
    fn the_hash_says_what_is_there_and_not_how_it_came_there() {
        let heads = |seq: u64| vec![(seq, Hash::new([1; 32])), (seq, Hash::new([2; 32]))];
        let mut tree = HeadHash::default();
        for round in [3, 1, 2] {
            for n in 0..300 {
                tree.set(log(n), &heads(round));
                if n % 7 == 0 {
                    tree.refresh();
                }
            }
        }
        // Some go again.
        (100..300).for_each(|n| tree.set(log(n), &[]));
        tree.refresh();
        let there: Vec<_> = (0..100).map(|n| (log(n), heads(2))).collect();
        assert_eq!(tree.root(), root_of(&there));
        assert_eq!(tree.root(), root_of(there.iter().rev()));
        (0..100).for_each(|n| tree.set(log(n), &[]));
        tree.refresh();
        assert_eq!(tree.root(), HeadHash::default().root());
    }

    #[test]
    fn every_head_counts() {
        let all: Vec<_> = (0..50).map(|n| (log(n), vec![(n + 1, Hash::new([9; 32]))])).collect();
        let whole = root_of(&all);
        for n in 0..all.len() {
            let mut other = all.clone();
            other[n].1[0].0 += 1;
            assert_ne!(root_of(&other), whole);
            other[n].1.clear();
            assert_ne!(root_of(&other), whole);
            other[n].1.push((n as u64 + 1, Hash::new([8; 32])));
            assert_ne!(root_of(&other), whole);
        }
    }
}
