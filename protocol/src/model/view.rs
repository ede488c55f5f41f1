//! The merged view of one cell: which slots are dominated, which are siblings, which one is shown.
//!
//! A slot x of log L is *dominated* by a slot y of another log iff y's context has an entry for L that
//! (i) names x exactly, or (ii) lies beyond x, while this replica's head of L is below the entry (the newer
//! operation is not here yet) and x has not itself seen y. The undominated slots are the *siblings*. Naming
//! by hash makes cycles infeasible (dotted causality as in Almeida et al., "Scalable and Accurate Causality
//! Tracking", 2014); without (ii) an overwritten value would return for a moment, and without its last
//! condition one false entry would hold a cell hostage.
//!
//! Values win over deletes that did not see them: tombstones and expired slots hide nothing but what they
//! name. Nothing local decides, not even a tie.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::codec::Bytes;
use crate::id::{BranchId, Hash, Hash8, LogId, Version};
use crate::limits::{MAX_CTX, MAX_NAMED_LOGS};
use crate::model::counter::Parts;
use crate::model::op::{Body, Op, Slot};
use crate::model::slot::{DamagedSlot, RawSlot};
use crate::plant::{self, Plant};
use crate::time::Hlc;

/// One slot of a cell with its exact name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The slot.
    pub slot: Slot,
    /// Its name.
    pub version: Version,
    /// Whether another slot of this cell overwrites it.
    pub dominated: bool,
    /// The hash of which the name has a part: decides ties.
    hash: Hash,
    /// This replica's head of the log, the furthest of its histories that hold the slot.
    head: u64,
}

/// Decides between concurrent values: the greatest is shown.
type Rank = (Hlc, LogId, u64, Hash);

impl Seen {
    fn rank(&self) -> Rank {
        (self.slot.hlc, self.slot.log, self.slot.seq, self.hash)
    }

    /// Whether it is a value, or its log's part of a counter, and not past its time.
    #[must_use]
    pub fn is_live(&self, wall: u64) -> bool {
        let value = matches!(self.slot.op.body, Body::Put(_) | Body::Counter(_) | Body::Element);
        value && !self.slot.expired(wall)
    }

    fn is_counter(&self) -> bool {
        matches!(self.slot.op.body, Body::Counter(_))
    }
}

/// What a cell holds for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A value.
    Value(Bytes),
    /// A counter's sum over all parts.
    Counter(i128),
    /// Deleted, expired or never written.
    Absent,
}

/// Everything visible on one cell: siblings first, of them values first, the greatest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    seen: Vec<Seen>,
}

/// A write that would have to name more than an operation may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyLogs;

impl View {
    /// Merges a cell's stored slots. `head` gives the last proven sequence number of a branch (0: none):
    /// of each branch the latest slot up to there counts. What two branches of a log share counts once.
    ///
    /// # Errors
    /// When a stored slot is damaged.
    pub fn merge(raw: &[RawSlot], head: impl Fn(&BranchId) -> u64) -> Result<Self, DamagedSlot> {
        let mut seen: Vec<Seen> = Vec::new();
        for raw in latest(raw, &head) {
            let slot = raw.open()?;
            let hash = slot.hash();
            let version = Version { log: slot.log, seq: slot.seq, hash: hash.short8() };
            let head = head(&raw.branch);
            match seen.iter_mut().find(|other| other.hash == hash) {
                Some(same) => same.head = same.head.max(head),
                None => seen.push(Seen { slot, version, dominated: false, hash, head }),
            }
        }
        mark_dominated(&mut seen);
        seen.sort_by_key(|s| (s.dominated, s.slot.op.body == Body::Delete, Reverse(s.rank())));
        if plant::is(Plant::KeepOnlyWinner) {
            seen.truncate(1);
        }
        Ok(Self { seen })
    }

    /// What [`View::shown`] says of the view that [`View::merge`] makes. On a cell that one log alone has
    /// written to no slot need be named, which saves the hashing.
    ///
    /// # Errors
    /// When a stored slot is damaged.
    pub fn shown_of(
        raw: &[RawSlot],
        head: impl Fn(&BranchId) -> u64,
        wall: u64,
    ) -> Result<Shown, DamagedSlot> {
        let alone = {
            let mut found = latest(raw, &head);
            found.next().filter(|_| found.next().is_none())
        };
        let Some(only) = alone else {
            return Ok(Self::merge(raw, head)?.shown(wall));
        };
        match only.open()? {
            slot if slot.expired(wall) => Ok(Shown::Absent),
            Slot { op: Op { body: Body::Put(value), .. }, .. } => Ok(Shown::Value(value)),
            Slot { op: Op { body: Body::Delete, .. }, .. } => Ok(Shown::Absent),
            _ => Ok(Self::merge(raw, head)?.shown(wall)),
        }
    }

    /// Every slot that counts, siblings first.
    pub fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter()
    }

    /// The undominated slots, values before tombstones, the greatest first.
    pub fn siblings(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().take_while(|s| !s.dominated)
    }

    /// The siblings that hold a value at Unix millisecond `wall`, the shown one first.
    pub fn values(&self, wall: u64) -> impl Iterator<Item = &Seen> {
        self.siblings().filter(move |s| s.is_live(wall))
    }

    /// The slot of `own`, if it has one on this cell.
    #[must_use]
    pub fn own(&self, own: &LogId) -> Option<&Slot> {
        self.seen.iter().map(|s| &s.slot).find(|slot| slot.log == *own)
    }

    /// What a new write of `own` must name, ascending: every slot held here of other logs (a write that
    /// adds to a counter names none that are counters themselves: it would take their amounts away), and,
    /// of logs of which nothing as new is held, what the own slot that it replaces named.
    ///
    /// # Errors
    /// When that is more than an operation may name: nothing is cut short, for what is not named returns.
    pub fn context(
        &self,
        own: &LogId,
        replaced: Option<&Slot>,
        adds: bool,
    ) -> Result<Vec<Version>, TooManyLogs> {
        let others = || self.seen.iter().filter(|s| s.slot.log != *own);
        // A counter that an add does not name ends no entry either.
        let counts = |s: &&Seen| !(adds && s.is_counter());
        let newer = |e: &Version| {
            others().filter(counts).any(|s| s.slot.log == e.log && s.slot.seq >= e.seq)
        };
        let named = others().filter(counts).map(|s| s.version);
        let mut ctx: Vec<Version> = named.collect();
        let carried = replaced.map_or(&[][..], |slot| &slot.op.ctx);
        if !plant::is(Plant::DropReplacedContext) {
            ctx.extend(carried_on(carried, &ctx).filter(|e| e.log != *own && !newer(e)));
        }
        ctx.sort_unstable();
        ctx.dedup();
        if ctx.len() > MAX_CTX { Err(TooManyLogs) } else { Ok(ctx) }
    }

    /// What a reader is shown at Unix millisecond `wall`: the greatest value, or the counter, whichever
    /// was written last.
    #[must_use]
    pub fn shown(&self, wall: u64) -> Shown {
        let value = self.values(wall).find(|s| !s.is_counter());
        let counter = self.counted(wall).less(&self.taken());
        let last = self.counters(wall).map(Seen::rank).max();
        match (value, counter) {
            (Some(seen), Some(sum)) if last > Some(seen.rank()) => Shown::Counter(sum),
            (Some(seen), _) => match &seen.slot.op.body {
                Body::Put(value) => Shown::Value(value.clone()),
                _ => Shown::Value(Bytes::default()),
            },
            (None, Some(sum)) => Shown::Counter(sum),
            (None, None) => Shown::Absent,
        }
    }

    /// The counter slots that count at `wall`: those past their time and those that a write names exactly
    /// do not.
    fn counters(&self, wall: u64) -> impl Iterator<Item = &Seen> {
        let named = |version: &Version| {
            self.seen.iter().any(|s| s.slot.op.ctx.binary_search(version).is_ok())
        };
        self.seen.iter().filter(move |s| s.is_counter() && s.is_live(wall) && !named(&s.version))
    }

    /// All parts that count at `wall`.
    #[must_use]
    pub fn counted(&self, wall: u64) -> Parts {
        let mut parts = Parts::default();
        for seen in self.counters(wall) {
            if let Body::Counter(theirs) = &seen.slot.op.body {
                parts.join(theirs);
            }
        }
        parts
    }

    /// All parts that writes on this cell took away.
    #[must_use]
    pub fn taken(&self) -> Parts {
        let mut taken = Parts::default();
        self.seen.iter().for_each(|s| taken.join(&s.slot.op.took));
        taken
    }
}

/// What a write goes on naming of what an earlier one named, beside what it names anew: of one author's logs
/// those of the greatest epochs. The others have given way to greater ones wherever those are known, and there
/// would be one more with each new start of a device that keeps nothing.
pub(crate) fn carried_on<'a>(
    carried: &'a [Version],
    named: &[Version],
) -> impl Iterator<Item = Version> + use<'a> {
    let logs: BTreeSet<LogId> = carried.iter().chain(named).map(|version| version.log).collect();
    let greater = move |log: &LogId| {
        let after = logs.range(*log..).skip(1).take_while(|other| other.author == log.author);
        after.take(MAX_NAMED_LOGS).count()
    };
    carried.iter().filter(move |version| greater(&version.log) < MAX_NAMED_LOGS).copied()
}

/// Of each branch the latest slot up to its head.
fn latest<'a>(
    raw: &'a [RawSlot],
    head: &impl Fn(&BranchId) -> u64,
) -> impl Iterator<Item = &'a RawSlot> {
    raw.chunk_by(|a, b| a.branch == b.branch).filter_map(|slots| {
        let upto = head(&slots[0].branch);
        slots.iter().rev().find(|slot| slot.seq <= upto)
    })
}

/// Marks what conditions (i) and (ii) say. (ii) has no effect where another history of the log has written as
/// late as the entry says: then it is that history which was seen.
fn mark_dominated(seen: &mut [Seen]) {
    if seen.len() < 2 {
        return;
    }
    let mut latest: BTreeMap<LogId, u64> = BTreeMap::new();
    for one in seen.iter() {
        let known = latest.entry(one.slot.log).or_default();
        *known = one.slot.seq.max(*known);
    }
    let mut entries: BTreeMap<LogId, Vec<(u64, Hash8, Rank)>> = BTreeMap::new();
    for y in seen.iter() {
        for e in &y.slot.op.ctx {
            entries.entry(e.log).or_default().push((e.seq, e.hash, y.rank()));
        }
    }
    for x in seen.iter_mut() {
        let (own, ctx) = (x.version, &x.slot.op.ctx);
        let has_seen = |y: &Rank| ctx.iter().any(|e| e.log == y.1 && e.seq >= y.2);
        x.dominated = entries.get(&own.log).into_iter().flatten().any(|(seq, hash, y)| {
            if plant::is(Plant::DominateUpTo) {
                return *seq >= own.seq;
            }
            let exact = *seq == own.seq && *hash == own.hash;
            let elsewhere = latest.get(&own.log).is_some_and(|latest| latest >= seq);
            let waits = *seq > own.seq && x.head < *seq && !elsewhere;
            let waits = waits && !plant::is(Plant::OnlyExactEntries);
            exact || waits && !has_seen(y)
        });
    }
}
