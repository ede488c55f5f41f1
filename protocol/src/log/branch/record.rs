//! A branch's record: what a start needs that cannot be read off the slots. It is not written with every
//! commit; a start sums up what came after it.

use std::sync::Arc;

use super::{Branch, BranchState, Chore, Staged, proves};
use crate::codec::{self, Bytes, tuple_codec};
use crate::id::{BranchId, Hash};
use crate::limits::{CHORE_BYTES, CHORE_SLOTS};
use crate::log::live_root::Totals;
use crate::log::verify::VerifiedHeader;
use crate::store::{RawSlot, Store, StoreError, Write};

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
    staged: Option<(Sums, u64, bool)>,
    chore: Chore,
    frozen: Option<Hash>,
    forked: bool,
    state: BranchState,
    was_complete: bool,
    lost: bool,
    parked: bool,
}
tuple_codec!(Record {
    head,
    sums,
    staged,
    chore,
    frozen,
    forked,
    state,
    was_complete,
    lost,
    parked,
});

impl Branch {
    /// Reads a record back and sums up what came after it: `newest` is the newest stored header.
    pub(crate) fn open(
        id: BranchId,
        bytes: &[u8],
        newest: Option<&Bytes>,
        store: &impl Store,
    ) -> Result<Self, StoreError> {
        let damaged =
            |e: String| StoreError::Failed(format!("record of log {id:?} is damaged: {e}"));
        let record: Record = codec::decode(bytes).map_err(|e| damaged(e.to_string()))?;
        let header = |b: &Bytes| VerifiedHeader::from_store(b).map_err(|e| damaged(e.to_string()));
        let head = record.head.as_ref().map(header).transpose()?;
        let staged = match &record.staged {
            Some((sums, upto, compared)) => {
                Some(Staged { totals: sums.open()?, upto: *upto, compared: *compared })
            }
            None => None,
        };
        let mut branch = Self {
            totals: record.sums.open()?,
            staged,
            chore: record.chore,
            frozen: record.frozen,
            forked: record.forked,
            was_complete: record.was_complete,
            lost: record.lost,
            parked: record.parked,
            state: record.state,
            recorded: head.as_ref().map_or(0, |head| head.header().last_seq),
            head,
            ..Self::new(id)
        };
        let newest = newest.map(header).transpose()?;
        if let Some(newest) = newest.filter(|newest| newest.header().last_seq > branch.seq()) {
            branch.sum_forward(newest, store)?;
        }
        Ok(branch)
    }

    /// Brings the sums from the recorded head to the newest one.
    fn sum_forward(
        &mut self,
        newest: VerifiedHeader,
        store: &impl Store,
    ) -> Result<(), StoreError> {
        let mut after = self.seq();
        let upto = newest.header().last_seq;
        let staged_upto = self.staged.as_ref().map_or(u64::MAX, |staged| staged.upto);
        let mut sound = true;
        loop {
            let step = store.slots_after(&self.id, after, upto, CHORE_SLOTS, CHORE_BYTES)?;
            let Some(last) = step.last() else { break };
            after = last.seq;
            for raw in &step {
                let Ok(slot) = raw.open() else {
                    sound = false;
                    continue;
                };
                let cell = slot.op.cell.index_key();
                let below = self.own_slots(&cell, raw.seq - 1, store)?;
                let replaced = below.last().map(RawSlot::open).transpose();
                sound &= replaced.is_ok();
                let both = [Some(&mut self.totals), self.staged.as_mut().map(|s| &mut s.totals)];
                for (n, totals) in both.into_iter().enumerate() {
                    let Some(totals) = totals.filter(|_| n == 0 || raw.seq > staged_upto) else {
                        continue;
                    };
                    totals.add(&slot);
                    if let Ok(Some(replaced)) = &replaced {
                        totals.remove(replaced);
                    }
                }
                let below = below.iter().map(|old| (old.seq, cell.clone()));
                Arc::make_mut(&mut self.superseded).extend(below);
            }
        }
        self.unrecorded = upto - self.recorded;
        sound &= proves(&newest, &self.totals);
        self.staged = self.staged.take().filter(|s| s.upto > upto);
        self.head = Some(newest);
        if !sound && self.is_shown_state() {
            // What is stored is not what was signed: fetched afresh like any other damage.
            self.state = BranchState::Quarantined;
            self.was_complete = true;
        }
        Ok(())
    }

    /// The write that keeps this branch's record, and those that drop what was kept for the last one.
    pub(crate) fn record(&mut self) -> Vec<Write> {
        let record = Record {
            head: self.head.as_ref().map(|head| head.bytes().clone()),
            sums: Sums::from(&self.totals),
            staged: self.staged.as_ref().map(|s| (Sums::from(&s.totals), s.upto, s.compared)),
            chore: self.chore,
            frozen: self.frozen,
            forked: self.forked,
            state: self.state,
            was_complete: self.was_complete,
            lost: self.lost,
            parked: self.parked,
        };
        self.recorded = self.seq();
        self.unrecorded = 0;
        let branch = self.id;
        let old = Arc::unwrap_or_clone(std::mem::take(&mut self.superseded)).into_iter();
        let mut writes: Vec<Write> =
            old.map(|(seq, key)| Write::RemoveSlot { key, branch, seq }).collect();
        writes.push(Write::Log { branch, record: Bytes(codec::encode(&record)) });
        writes
    }
}
