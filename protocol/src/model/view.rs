//! The merged view of one key: which slots are dominated, which are siblings, which one is shown.
//!
//! A slot is dominated iff another slot of its key names it exactly in its context (dotted causality
//! as in Almeida et al., "Scalable and Accurate Causality Tracking", 2014, with hashes in the dots).
//! Naming by hash makes cycles and claims about the future infeasible.

use crate::codec::Bytes;
use crate::id::{BranchId, LogId, Version};
use crate::limits::MAX_CTX;
use crate::op::{Body, Op, Slot};
use crate::plant::{self, Plant};
use crate::store::{RawSlot, StoreError};

/// One slot of a key with its exact name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The slot.
    pub slot: Slot,
    /// Its name.
    pub version: Version,
    /// Whether another slot of this key names it.
    pub dominated: bool,
}

/// What a key holds for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A value.
    Value(Bytes),
    /// A counter's sum over all concurrent parts.
    Counter(i128),
    /// Deleted, expired or never written.
    Absent,
}

/// Everything visible on one key, the shown slot first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    seen: Vec<Seen>,
}

impl View {
    /// Merges a key's stored slots. `head` gives the last proven sequence number of a branch (0: none):
    /// of each branch the latest slot up to there counts. What two branches of a log share counts once.
    ///
    /// # Errors
    /// When a stored slot is damaged.
    pub fn merge(raw: &[RawSlot], head: impl Fn(&BranchId) -> u64) -> Result<Self, StoreError> {
        let mut latest: Vec<&RawSlot> = Vec::new();
        for slot in raw.iter().filter(|slot| slot.seq <= head(&slot.branch)) {
            match latest.last_mut() {
                Some(last) if last.branch == slot.branch => {
                    if last.seq < slot.seq {
                        *last = slot;
                    }
                }
                _ => latest.push(slot),
            }
        }
        let mut seen: Vec<Seen> = Vec::with_capacity(latest.len());
        for raw in latest {
            let slot = raw.open()?;
            let version = slot.version();
            if seen.iter().all(|other| other.version != version) {
                seen.push(Seen { version, slot, dominated: false });
            }
        }
        let named: Vec<Version> = seen.iter().flat_map(|s| s.slot.op.ctx.clone()).collect();
        for one in &mut seen {
            let upto = |n: &Version| n.log == one.version.log && n.seq >= one.version.seq;
            one.dominated = named.contains(&one.version)
                || plant::is(Plant::DominateUpTo) && named.iter().any(upto);
        }
        seen.sort_by_key(|s| {
            let slot = &s.slot;
            (s.dominated, std::cmp::Reverse((slot.hlc, slot.log, slot.seq)))
        });
        if plant::is(Plant::KeepOnlyWinner) {
            seen.truncate(1);
        }
        Ok(Self { seen })
    }

    /// What [`View::shown`] says of the view that [`View::merge`] makes. On a key that one log alone has
    /// written to no slot need be named, which saves the hashing.
    ///
    /// # Errors
    /// When a stored slot is damaged.
    pub fn shown_of(
        raw: &[RawSlot],
        head: impl Fn(&BranchId) -> u64,
        wall: u64,
    ) -> Result<Shown, StoreError> {
        match raw {
            [] => Ok(Shown::Absent),
            [only] if only.seq > head(&only.branch) => Ok(Shown::Absent),
            [only] => Ok(match only.open()? {
                slot if slot.expired(wall) => Shown::Absent,
                Slot { op: Op { body: Body::Put(value), .. }, .. } => Shown::Value(value),
                Slot { op: Op { body: Body::Delete, .. }, .. } => Shown::Absent,
                Slot { op: Op { body: Body::Counter(part), .. }, .. } => {
                    Shown::Counter(i128::from(part.up) - i128::from(part.down))
                }
            }),
            _ => Ok(Self::merge(raw, head)?.shown(wall)),
        }
    }

    /// Every slot that counts, the shown one first, the dominated ones last.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter()
    }

    /// The undominated slots, the shown one first.
    pub fn siblings(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().take_while(|s| !s.dominated)
    }

    /// What a new write of `own` must name: every visible slot of other logs, dominated ones too.
    #[must_use]
    pub fn context(&self, own: &LogId) -> Vec<Version> {
        let others = self.seen.iter().filter(|s| s.slot.log != *own);
        let mut ctx: Vec<Version> = others.map(|s| s.version).take(MAX_CTX).collect();
        ctx.sort_unstable();
        ctx
    }

    /// What a reader is shown at Unix millisecond `wall`. An expired slot hides its key like a tombstone.
    #[must_use]
    pub fn shown(&self, wall: u64) -> Shown {
        let Some(first) = self.siblings().next() else {
            return Shown::Absent;
        };
        if first.slot.expired(wall) {
            return Shown::Absent;
        }
        match &first.slot.op.body {
            Body::Put(value) => Shown::Value(value.clone()),
            Body::Delete => Shown::Absent,
            Body::Counter(_) => Shown::Counter(self.sum()),
        }
    }

    fn sum(&self) -> i128 {
        self.siblings()
            .filter_map(|s| match &s.slot.op.body {
                Body::Counter(part) => Some(i128::from(part.up) - i128::from(part.down)),
                Body::Put(_) | Body::Delete => None,
            })
            .sum()
    }
}
