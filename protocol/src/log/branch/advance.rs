//! A contiguous commit worked into a branch: what it changes in the sums, what it writes and what it drops.
//! Costs what the commit changes, whatever the log holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Branch, BranchState, Staged};
use crate::codec::Bytes;
use crate::id::Version;
use crate::log::live_root::{Scrubbed, Totals};
use crate::log::verify::VerifiedHeader;
use crate::model::op::{Body, Slot};
use crate::plant::{self, Plant};
use crate::store::{Store, StoreError, Write};

/// What applying slots to a branch would change.
pub(crate) struct Advance {
    pub(super) totals: Totals,
    pub(super) staged: Option<Staged>,
    pub(super) scrubbed: Option<Scrubbed>,
    pub(super) superseded: Vec<(u64, Bytes)>,
    pub(super) ops: u64,
    /// The names of the operations, in their order.
    pub(crate) names: Vec<Version>,
    pub(crate) writes: Vec<Write>,
}

impl Advance {
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }
}

/// What became of an attempt to go on.
pub(crate) enum Advanced {
    /// This is what changes.
    By(Box<Advance>),
    /// What repair has staged belongs to another history: it has to go first.
    StagedApart,
}

impl Branch {
    /// Works out what a contiguous commit changes: each slot replaces this log's older slot on its cell.
    /// Costs what the commit changes, whatever the log holds. Touches nothing.
    pub(crate) fn advance(
        &self,
        slots: &[(Slot, Bytes)],
        store: &impl Store,
    ) -> Result<Advanced, StoreError> {
        if self.staged_apart(slots, store)? {
            return Ok(Advanced::StagedApart);
        }
        let mut work = Working::new(self, slots);
        for n in 0..slots.len() {
            work.put(n, store)?;
        }
        Ok(Advanced::By(Box::new(work.finish())))
    }

    /// Moves the head over a commit that [`Branch::advance`] has worked out.
    pub(crate) fn go_on(&mut self, header: VerifiedHeader, change: Advance) -> Vec<Write> {
        let first = self.head.is_none();
        if first {
            self.state = BranchState::Live;
        }
        self.totals = change.totals;
        self.staged = change.staged;
        self.scrubbed = change.scrubbed;
        self.frozen = None;
        Arc::make_mut(&mut self.superseded).extend(change.superseded);
        self.unrecorded += change.ops;
        let mut writes = change.writes;
        writes.push(Write::Header {
            branch: self.id,
            seq: header.header().last_seq,
            bytes: header.bytes().clone(),
        });
        self.staged = self.staged.take().filter(|s| s.upto > header.header().last_seq);
        self.head = Some(header);
        if first || self.record_is_due() {
            writes.extend(self.record());
        }
        writes
    }

    /// Whether what is staged cannot be of the history that this commit goes on in.
    fn staged_apart(
        &self,
        slots: &[(Slot, Bytes)],
        store: &impl Store,
    ) -> Result<bool, StoreError> {
        let (Some(staged), Some((first, _))) = (&self.staged, slots.first()) else {
            return Ok(false);
        };
        if staged.upto < first.seq {
            return Ok(false);
        }
        let upto = self.seq() + slots.len() as u64;
        let there = store.slots_after(&self.id, self.seq(), upto, usize::MAX, usize::MAX)?;
        for raw in &there {
            let same = usize::try_from(raw.seq - first.seq).ok().and_then(|at| slots.get(at));
            if same.is_none_or(|(_, bytes)| *bytes != raw.op) {
                return Ok(true);
            }
        }
        for (slot, _) in slots.iter().filter(|(slot, _)| slot.seq <= staged.upto) {
            let on_cell = self.own_slots(&slot.op.cell.index_key(), u64::MAX, store)?;
            if on_cell.last().is_none_or(|last| last.seq < slot.seq) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A commit being worked into the sums, operation by operation.
struct Working<'a> {
    branch: &'a Branch,
    slots: &'a [(Slot, Bytes)],
    change: Advance,
    staged_upto: u64,
    /// Cells that this commit has touched, and the operation that is live on each.
    cells: BTreeMap<Bytes, usize>,
}

impl<'a> Working<'a> {
    fn new(branch: &'a Branch, slots: &'a [(Slot, Bytes)]) -> Self {
        let change = Advance {
            totals: branch.totals.clone(),
            staged: branch.staged.clone(),
            scrubbed: branch.scrubbed.clone(),
            superseded: Vec::new(),
            ops: slots.len() as u64,
            names: Vec::new(),
            writes: Vec::new(),
        };
        let staged_upto = branch.staged.as_ref().map_or(u64::MAX, |staged| staged.upto);
        Self { branch, slots, change, staged_upto, cells: BTreeMap::new() }
    }

    /// Takes an older slot out of the sums. `staged`: out of those of what is staged as well.
    fn take_out(&mut self, older: &Slot, staged: bool) {
        self.change.totals.remove(older);
        if let Some(sums) = self.change.scrubbed.as_mut().filter(|sums| older.seq <= sums.upto) {
            sums.totals.remove(older);
        }
        if let Some(set) = self.change.staged.as_mut().filter(|_| staged) {
            set.totals.remove(older);
        }
    }

    /// A shown row is not live any more: dropped, or kept until the next record.
    fn let_go(&mut self, cell: &Bytes, seq: u64) {
        if seq > self.branch.recorded {
            self.change.writes.push(self.branch.remove(cell, seq));
        } else {
            self.change.superseded.push((seq, cell.clone()));
        }
    }

    fn put(&mut self, n: usize, store: &impl Store) -> Result<(), StoreError> {
        let slots = self.slots;
        let slot = &slots[n].0;
        let cell = slot.op.cell.index_key();
        // What was staged up to here holds this operation already, or what replaced it.
        let staged = slot.seq > self.staged_upto;
        match self.cells.insert(cell.clone(), n) {
            Some(older) => self.take_out(&slots[older].0, staged),
            None => {
                let below = self.branch.own_slots(&cell, self.branch.seq(), store)?;
                if let Some(live) = below.last() {
                    self.take_out(&live.open()?, staged);
                }
                for old in below {
                    self.let_go(&cell, old.seq);
                }
            }
        }
        if let Some(set) = self.change.staged.as_mut().filter(|_| staged) {
            set.totals.add(slot);
        }
        Ok(())
    }

    fn finish(mut self) -> Advance {
        let slots = self.slots;
        // Every operation is counted in; those replaced within the commit were taken out when they were.
        self.change.names = self.change.totals.add_all(slots);
        let dropped =
            |slot: &Slot| plant::is(Plant::DropTombstones) && slot.op.body == Body::Delete;
        for n in self.cells.values() {
            let (slot, bytes) = &slots[*n];
            if !dropped(slot) {
                self.change.writes.push(self.branch.keep(slot, bytes.clone()));
            }
        }
        self.change
    }
}
