//! One log at this replica: its proven head, the sums of its live set, and what is staged above it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{self, Bytes, tuple_codec};
use crate::commit::VerifiedHeader;
use crate::digest::Entry;
use crate::id::{Hash, Hash8, LogId};
use crate::limits::CHORE_SLOTS;
use crate::op::Slot;
use crate::slots::Totals;
use crate::store::{RawSlot, Store, StoreError, Write};

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

/// One log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) id: LogId,
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
            .ok_or_else(|| StoreError("a log's sums are damaged".into()))
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
}
tuple_codec!(Record { head, sums, staged, chore, gone, frozen, forked, left });

/// What applying slots to a log would change.
pub(crate) struct Change {
    pub(crate) totals: Totals,
    pub(crate) writes: Vec<Write>,
}

impl Log {
    pub(crate) fn new(id: LogId) -> Self {
        Self {
            id,
            head: None,
            totals: Totals::default(),
            staged: None,
            chore: Chore::None,
            gone: Vec::new(),
            frozen: None,
            forked: false,
            left: false,
        }
    }

    pub(crate) fn from_record(id: LogId, bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |e: String| StoreError(format!("record of log {id:?} is damaged: {e}"));
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
        };
        Write::Log { log: self.id, record: Bytes(codec::encode(&record)) }
    }

    /// Last proven sequence number; 0: none.
    pub(crate) fn seq(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.header().last_seq)
    }

    pub(crate) fn head_hash(&self) -> Hash {
        self.head.as_ref().map(VerifiedHeader::hash).unwrap_or_default()
    }

    /// Whether slots may lie above the head: then commits wait.
    pub(crate) fn unsettled(&self) -> bool {
        self.staged.is_some() || self.purging()
    }

    /// Whether slots that proved false are still to be dropped.
    pub(crate) fn purging(&self) -> bool {
        matches!(self.chore, Chore::Purge(_))
    }

    /// Gives up what is staged; tidying drops it.
    pub(crate) fn drop_staged(&mut self) {
        self.staged = None;
        let from = match self.chore {
            Chore::None => self.seq(),
            Chore::Supersede((from, _)) | Chore::Purge(from) => from,
        };
        self.chore = Chore::Purge(from);
    }

    pub(crate) fn entry(&self) -> Entry {
        Entry {
            log: self.id,
            seq: self.seq(),
            head: if self.head.is_some() { self.head_hash().short8() } else { Hash8::default() },
            staged: self.staged.as_ref().map_or(0, |staged| staged.upto),
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
        let mut writes = Vec::new();
        let mut latest: BTreeMap<&[u8], &(Slot, Bytes)> = BTreeMap::new();
        for pair in slots {
            let slot = &pair.0;
            match latest.insert(&slot.op.key, pair) {
                Some((older, _)) => totals.remove(older),
                None => {
                    let below = self.own_slots(&slot.op.key, self.seq(), store)?;
                    if let Some(live) = below.last() {
                        totals.remove(&live.open()?);
                    }
                    writes.extend(below.into_iter().map(|old| remove(&slot.op.key, &old)));
                }
            }
            totals.add(slot);
        }
        for live in self.live_in(retired, self.seq(), store)? {
            if !latest.contains_key(&live.op.key[..]) {
                totals.remove(&live);
                writes.push(Write::RemoveSlot {
                    key: live.op.key.clone(),
                    log: live.log,
                    seq: live.seq,
                });
            }
        }
        writes.extend(latest.into_values().map(|(slot, bytes)| keep(slot, bytes.clone())));
        Ok(Change { totals, writes })
    }

    /// Works out what setting slots from repair aside changes. A slot replaces an older staged one at
    /// once; an older shown one stays until the head moves.
    pub(crate) fn stage(
        &self,
        slots: &[(Slot, Bytes)],
        store: &impl Store,
    ) -> Result<Change, StoreError> {
        let mut totals = self.staged.as_ref().map_or(&self.totals, |s| &s.totals).clone();
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
            totals.add(slot);
        }
        writes.extend(latest.into_values().map(|(slot, bytes)| keep(slot, bytes.clone())));
        Ok(Change { totals, writes })
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
        Ok(Change { totals, writes })
    }

    /// One step of the chore that is owed: what to drop, and the chore that is left.
    pub(crate) fn tidy(
        &self,
        max_slots: usize,
        store: &impl Store,
    ) -> Result<(Vec<Write>, Chore), StoreError> {
        let (from, to) = match self.chore {
            Chore::None => return Ok((Vec::new(), Chore::None)),
            Chore::Supersede(range) => range,
            Chore::Purge(_) => (self.seq(), u64::MAX),
        };
        let step = store.slots_after(&self.id, from, to, max_slots, usize::MAX)?;
        let mut writes = Vec::new();
        for raw in &step {
            let key = raw.open()?.op.key;
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

    fn own_slots(
        &self,
        key: &[u8],
        upto: u64,
        store: &impl Store,
    ) -> Result<Vec<RawSlot>, StoreError> {
        let mut slots = store.slots(key)?;
        slots.retain(|slot| slot.log == self.id && slot.seq <= upto);
        Ok(slots)
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

fn keep(slot: &Slot, bytes: Bytes) -> Write {
    Write::Slot {
        key: slot.op.key.clone(),
        slot: RawSlot { log: slot.log, seq: slot.seq, hlc: slot.hlc, op: bytes },
    }
}

fn remove(key: &[u8], raw: &RawSlot) -> Write {
    Write::RemoveSlot { key: key.into(), log: raw.log, seq: raw.seq }
}
