//! One log at this replica: its proven head, the sums of its live set, and what is staged above it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{self, Bytes, tuple_codec};
use crate::id::{BranchId, Hash, Hash8, Version};
use crate::limits::CHORE_SLOTS;
use crate::log::commit::VerifiedHeader;
use crate::log::live_root::Totals;
use crate::op::Slot;
use crate::plant::{self, Plant};
use crate::repair::digest::Entry;
use crate::replica::scrubber::Scrubbed;
use crate::roster::Extent;
use crate::store::{RawSlot, Store, StoreError, Write};
use crate::time::Hlc;

/// Tidying that a log still owes, done in small steps so that nothing waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Chore {
    /// Nothing.
    None,
    /// Slots up to `.1` were shown by moving the head; drop what those after `.0` superseded.
    Supersede((u64, u64)),
    /// What is staged proved false: drop every slot above the head, then what those after this number
    /// superseded (the head stands meanwhile).
    Purge(u64),
    /// The whole branch is given up: drop everything.
    Drop,
    /// Fetched afresh, but not as far as it went: what lies beyond is put on top and proven again.
    Mend,
    /// What lies after this number is written again in another log; then the branch is given up.
    Salvage(u64),
}

/// Whether a branch counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// Up to its head, if it has one.
    Shown,
    /// Fetched whole beside another history of the log and proven, not compared with that yet.
    Unjudged,
    /// What is stored is not what was signed any more: shown and offered to nobody, kept until it was
    /// fetched afresh.
    Aside,
}

/// What arrived by repair and is not proven yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Staged {
    /// Sums of the live set as it would be.
    pub(crate) totals: Totals,
    /// Last sequence number received.
    pub(crate) upto: u64,
}

/// Sequence numbers given up by the header that ends at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) at: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}
tuple_codec!(Gone { at, from, to });

/// One branch of a log.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(crate) id: BranchId,
    pub(crate) standing: Standing,
    /// How far the roster lets it count; worked out again whenever that changes.
    pub(crate) extent: Extent,
    /// How far scrubbing is; in memory only.
    pub(crate) scrubbed: Option<Scrubbed>,
    pub(crate) head: Option<VerifiedHeader>,
    pub(crate) totals: Totals,
    pub(crate) staged: Option<Staged>,
    pub(crate) chore: Chore,
    pub(crate) gone: Vec<Gone>,
    /// A header whose root its author got wrong: the log stands still, nobody else is blamed.
    pub(crate) frozen: Option<Hash>,
    /// Two signed heads were seen that cannot both follow from one history.
    pub(crate) forked: bool,
    /// An own log that writing does not go on in, for somewhere there may be more of it.
    pub(crate) left: bool,
    /// Set aside when the replica was whole: it is whole again once this is mended.
    pub(crate) was_whole: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Sums {
    accumulator: Bytes,
    count: u64,
    bytes: u64,
}
tuple_codec!(Sums { accumulator, count, bytes });

impl From<&Totals> for Sums {
    fn from(totals: &Totals) -> Self {
        Self { accumulator: Bytes(totals.to_bytes()), count: totals.count(), bytes: totals.bytes() }
    }
}

impl Sums {
    fn open(&self) -> Result<Totals, StoreError> {
        Totals::from_parts(&self.accumulator, self.count, self.bytes)
            .ok_or_else(|| StoreError::failed("a log's sums are damaged"))
    }
}

struct Record {
    head: Option<Bytes>,
    sums: Sums,
    staged: Option<(Sums, u64)>,
    chore: Chore,
    gone: Vec<Gone>,
    frozen: Option<Hash>,
    forked: bool,
    left: bool,
    standing: Standing,
    was_whole: bool,
}
tuple_codec!(Record { head, sums, staged, chore, gone, frozen, forked, left, standing, was_whole });

/// What applying slots to a log would change.
pub(crate) struct Change {
    pub(crate) totals: Totals,
    /// The names of slots that were counted in, in their order.
    pub(crate) names: Vec<Version>,
    pub(crate) writes: Vec<Write>,
    /// What scrubbing has summed up, without what is replaced.
    pub(crate) scrubbed: Option<Scrubbed>,
}

impl Branch {
    pub(crate) fn new(id: BranchId) -> Self {
        Self {
            id,
            standing: Standing::Shown,
            extent: Extent::Open,
            scrubbed: None,
            head: None,
            totals: Totals::default(),
            staged: None,
            chore: Chore::None,
            gone: Vec::new(),
            frozen: None,
            forked: false,
            left: false,
            was_whole: false,
        }
    }

    pub(crate) fn from_record(id: BranchId, bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged =
            |e: String| StoreError::Failed(format!("record of log {id:?} is damaged: {e}"));
        let record: Record = codec::decode(bytes).map_err(|e| damaged(e.to_string()))?;
        let head = match &record.head {
            Some(b) => Some(VerifiedHeader::from_store(b).map_err(|e| damaged(e.to_string()))?),
            None => None,
        };
        let staged = match &record.staged {
            Some((sums, upto)) => Some(Staged { totals: sums.open()?, upto: *upto }),
            None => None,
        };
        Ok(Self {
            head,
            totals: record.sums.open()?,
            staged,
            chore: record.chore,
            gone: record.gone,
            frozen: record.frozen,
            forked: record.forked,
            left: record.left,
            was_whole: record.was_whole,
            standing: record.standing,
            extent: Extent::Open,
            scrubbed: None,
            id,
        })
    }

    /// The write that keeps this log's record.
    pub(crate) fn write(&self) -> Write {
        let record = Record {
            head: self.head.as_ref().map(|head| head.bytes().clone()),
            sums: Sums::from(&self.totals),
            staged: self.staged.as_ref().map(|s| (Sums::from(&s.totals), s.upto)),
            chore: self.chore,
            gone: self.gone.clone(),
            frozen: self.frozen,
            forked: self.forked,
            left: self.left,
            was_whole: self.was_whole,
            standing: self.standing,
        };
        Write::Log { branch: self.id, record: Bytes(codec::encode(&record)) }
    }

    /// Last proven sequence number; 0: none.
    pub(crate) fn seq(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.header().last_seq)
    }

    /// Stamp of the head.
    pub(crate) fn stamp(&self) -> Hlc {
        self.head.as_ref().map(|head| head.header().hlc).unwrap_or_default()
    }

    pub(crate) fn head_hash(&self) -> Hash {
        self.head.as_ref().map(VerifiedHeader::hash).unwrap_or_default()
    }

    /// Whether what it holds up to its head is shown and offered.
    pub(crate) fn shown(&self) -> bool {
        self.counts() && !self.beyond()
    }

    fn counts(&self) -> bool {
        let counts = self.standing == Standing::Shown
            || self.standing == Standing::Aside && plant::is(Plant::ShowAside);
        self.head.is_some() && counts && self.chore != Chore::Drop
    }

    /// Whether its head lies beyond the place where a revocation ends the log, or in another history.
    fn beyond(&self) -> bool {
        match self.extent {
            Extent::Open => false,
            _ if plant::is(Plant::IgnoreCut) => false,
            Extent::Nothing => true,
            Extent::Upto(cut) => self.seq() >= cut.seq && self.head_hash() != cut.hash,
        }
    }

    /// Whether it ends exactly where a revocation ends the log: nothing is to be added.
    pub(crate) fn at_cut(&self) -> bool {
        matches!(self.extent, Extent::Upto(cut) if self.shown() && self.head_hash() == cut.hash)
    }

    /// How far readers see a branch that goes beyond its log's end: what it holds at or below the cut is
    /// shown until the state at the cut is here.
    pub(crate) fn remains(&self) -> Option<u64> {
        match self.extent {
            Extent::Upto(cut) if self.counts() && self.beyond() => Some(cut.seq.min(self.seq())),
            _ => None,
        }
    }

    /// Whether it is being fetched whole.
    pub(crate) fn fetching(&self) -> bool {
        self.head.is_none() && self.chore != Chore::Drop
    }

    /// Gives the branch up: nothing of it is shown from now on, tidying drops it.
    pub(crate) fn give_up(&mut self) {
        self.chore = Chore::Drop;
        self.staged = None;
    }

    /// Whether slots may lie above the head: then commits wait.
    pub(crate) fn unsettled(&self) -> bool {
        self.staged.is_some() || self.purging()
    }

    /// Whether slots that proved false are still to be dropped.
    pub(crate) fn purging(&self) -> bool {
        matches!(self.chore, Chore::Purge(_) | Chore::Drop)
    }

    /// Whether nothing can be taken in just now: what was under way for it is void.
    pub(crate) fn closed(&self) -> bool {
        self.purging() || self.standing != Standing::Shown
    }

    /// Gives up what is staged; tidying drops it.
    pub(crate) fn drop_staged(&mut self) {
        self.staged = None;
        let from = match self.chore {
            Chore::None => self.seq(),
            Chore::Supersede((from, _)) | Chore::Purge(from) => from,
            Chore::Drop | Chore::Mend | Chore::Salvage(_) => return,
        };
        self.chore = Chore::Purge(from);
    }

    /// What this branch says in a digest; nothing if it does not count.
    pub(crate) fn entry(&self) -> Option<Entry> {
        (self.shown() || self.fetching()).then(|| self.head_entry())
    }

    /// How far this branch goes, whether it counts or not.
    pub(crate) fn head_entry(&self) -> Entry {
        Entry {
            log: self.id.log,
            seq: self.seq(),
            head: match &self.head {
                Some(head) if !plant::is(Plant::DigestWithoutHeads) => head.hash().short8(),
                _ => Hash8::default(),
            },
            staged: self.staged.as_ref().map_or(0, |staged| staged.upto),
            refused: self.frozen.map(|hash| hash.short8()),
        }
    }

    /// Ranges given up after the header at `base`.
    pub(crate) fn gone_since(&self, base: u64) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> =
            self.gone.iter().filter(|g| g.at > base).map(|g| (g.from, g.to)).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1 + 1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        merged
    }

    /// Works out what a contiguous commit changes: each slot replaces this log's older slot on its
    /// key, and `retired` sequence numbers are given up. Touches nothing.
    pub(crate) fn advance(
        &self,
        slots: &[(Slot, Bytes)],
        retired: &[(u64, u64)],
        store: &impl Store,
    ) -> Result<Change, StoreError> {
        let mut totals = self.totals.clone();
        let mut scrubbed = self.scrubbed.clone();
        let mut replace = |older: &Slot| {
            totals.remove(older);
            if let Some(sums) = scrubbed.as_mut().filter(|sums| older.seq <= sums.upto) {
                sums.totals.remove(older);
            }
        };
        let mut writes = Vec::new();
        let mut again = Vec::new();
        let mut latest: BTreeMap<&[u8], &(Slot, Bytes)> = BTreeMap::new();
        for pair in slots {
            let slot = &pair.0;
            match latest.insert(&slot.op.key, pair) {
                Some((older, _)) => again.push(older),
                None => {
                    let below = self.own_slots(&slot.op.key, self.seq(), store)?;
                    if let Some(live) = below.last() {
                        replace(&live.open()?);
                    }
                    writes.extend(below.into_iter().map(|old| remove(&slot.op.key, &old)));
                }
            }
        }
        for live in self.live_in(retired, self.seq(), store)? {
            if !latest.contains_key(&live.op.key[..]) {
                replace(&live);
                writes.push(Write::RemoveSlot {
                    key: live.op.key.clone(),
                    branch: self.id,
                    seq: live.seq,
                });
            }
        }
        let names = totals.add_all(slots);
        again.into_iter().for_each(|older| totals.remove(older));
        if plant::is(Plant::DropTombstones) {
            latest.retain(|_, (slot, _)| slot.op.body != crate::op::Body::Delete);
        }
        writes.extend(latest.into_values().map(|(slot, bytes)| self.keep(slot, bytes.clone())));
        Ok(Change { totals, names, writes, scrubbed })
    }

    /// Works out what setting slots from repair aside changes. A slot replaces an older staged one at
    /// once; an older shown one stays until the head moves.
    pub(crate) fn stage(
        &self,
        slots: &[(Slot, Bytes)],
        store: &impl Store,
    ) -> Result<Change, StoreError> {
        let mut totals = self.staged.as_ref().map_or(&self.totals, |s| &s.totals).clone();
        totals.add_all(slots);
        let mut writes = Vec::new();
        let mut latest: BTreeMap<&[u8], &(Slot, Bytes)> = BTreeMap::new();
        for pair in slots {
            let slot = &pair.0;
            match latest.insert(&slot.op.key, pair) {
                Some((older, _)) => totals.remove(older),
                None => {
                    let below = self.own_slots(&slot.op.key, u64::MAX, store)?;
                    if let Some(live) = below.last() {
                        totals.remove(&live.open()?);
                    }
                    let staged = below.into_iter().filter(|old| old.seq > self.seq());
                    writes.extend(staged.map(|old| remove(&slot.op.key, &old)));
                }
            }
        }
        writes.extend(latest.into_values().map(|(slot, bytes)| self.keep(slot, bytes.clone())));
        Ok(Change { totals, names: Vec::new(), writes, scrubbed: None })
    }

    /// Works out what giving up `ranges` changes in the staged set. Stops as soon as fewer than
    /// `least` slots are left: then the claim is false, and a peer must not make us read a whole log
    /// for it.
    pub(crate) fn forget(
        &self,
        ranges: &[(u64, u64)],
        least: u64,
        store: &impl Store,
    ) -> Result<Change, StoreError> {
        let mut totals = self.staged.as_ref().map_or(&self.totals, |s| &s.totals).clone();
        let mut writes = Vec::new();
        for (from, to) in ranges {
            let mut after = from - 1;
            while totals.count() >= least {
                let step = store.slots_after(&self.id, after, *to, CHORE_SLOTS, usize::MAX)?;
                let Some(last) = step.last() else { break };
                after = last.seq;
                for raw in step {
                    if self.is_latest(&raw, u64::MAX, store)? {
                        let live = raw.open()?;
                        totals.remove(&live);
                        writes.push(remove(&live.op.key, &raw));
                    }
                }
            }
        }
        Ok(Change { totals, names: Vec::new(), writes, scrubbed: None })
    }

    /// One step of the chore that is owed: what to drop, and the chore that is left.
    pub(crate) fn tidy(
        &self,
        max_slots: usize,
        store: &impl Store,
    ) -> Result<(Vec<Write>, Chore), StoreError> {
        let (from, to) = match self.chore {
            Chore::None | Chore::Mend | Chore::Salvage(_) => return Ok((Vec::new(), self.chore)),
            Chore::Supersede(range) => range,
            Chore::Purge(_) => (self.seq(), u64::MAX),
            Chore::Drop => (0, u64::MAX),
        };
        let step = store.slots_after(&self.id, from, to, max_slots, usize::MAX)?;
        let mut writes = Vec::new();
        for raw in &step {
            // A branch set aside may hold what cannot be read any more; that has to go as well.
            let key = match raw.open() {
                Ok(slot) => slot.op.key,
                Err(_) if self.chore == Chore::Drop => Bytes::default(),
                Err(e) => return Err(e),
            };
            if self.purging() {
                writes.push(remove(&key, raw));
                continue;
            }
            let below = self.own_slots(&key, raw.seq - 1, store)?;
            writes.extend(below.into_iter().map(|old| remove(&key, &old)));
        }
        let left = match (step.last(), self.chore) {
            (Some(last), Chore::Supersede(_)) => Chore::Supersede((last.seq, to)),
            (Some(_), chore) => chore,
            (None, Chore::Purge(from)) if from < self.seq() => Chore::Supersede((from, self.seq())),
            (None, Chore::Drop) => {
                writes.push(Write::RemoveLog { branch: self.id });
                Chore::Drop
            }
            (None, _) => Chore::None,
        };
        Ok((writes, left))
    }

    /// Whether `raw` is this log's latest slot on its key up to `upto`. Only while a chore is owed can
    /// it not be.
    pub(crate) fn is_latest(
        &self,
        raw: &RawSlot,
        upto: u64,
        store: &impl Store,
    ) -> Result<bool, StoreError> {
        if self.chore == Chore::None && self.staged.is_none() {
            return Ok(true);
        }
        let key = raw.open()?.op.key;
        let own = self.own_slots(&key, upto, store)?;
        Ok(own.last().is_some_and(|last| last.seq == raw.seq))
    }

    /// This branch's slot on a key, if it has one.
    pub(crate) fn live(&self, key: &[u8], store: &impl Store) -> Result<Option<Slot>, StoreError> {
        self.own_slots(key, self.seq(), store)?.last().map(RawSlot::open).transpose()
    }

    fn own_slots(
        &self,
        key: &[u8],
        upto: u64,
        store: &impl Store,
    ) -> Result<Vec<RawSlot>, StoreError> {
        let mut slots = store.slots(key)?;
        slots.retain(|slot| slot.branch == self.id && slot.seq <= upto);
        Ok(slots)
    }

    fn keep(&self, slot: &Slot, bytes: Bytes) -> Write {
        let raw = RawSlot { branch: self.id, seq: slot.seq, hlc: slot.hlc, op: bytes };
        Write::Slot { key: slot.op.key.clone(), slot: raw }
    }

    fn live_in(
        &self,
        ranges: &[(u64, u64)],
        upto: u64,
        store: &impl Store,
    ) -> Result<Vec<Slot>, StoreError> {
        let mut live = Vec::new();
        for (from, to) in ranges {
            let to = (*to).min(upto);
            for raw in store.slots_after(&self.id, from - 1, to, usize::MAX, usize::MAX)? {
                if self.is_latest(&raw, upto, store)? {
                    live.push(raw.open()?);
                }
            }
        }
        Ok(live)
    }
}

fn remove(key: &[u8], raw: &RawSlot) -> Write {
    Write::RemoveSlot { key: key.into(), branch: raw.branch, seq: raw.seq }
}
