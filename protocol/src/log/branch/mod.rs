//! One history of a log as this replica keeps it: its proven head, the sums of its live set, and what is
//! staged above it.

pub(crate) mod advance;
mod record;
mod stage;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::Bytes;
use crate::id::{BranchId, Hash};
use crate::limits::{CHORE_BYTES, CHORE_SLOTS, RECORD_OPS, RECORD_REPLACED};
use crate::log::live_root::{Scrubbed, Totals};
use crate::log::verify::VerifiedHeader;
use crate::model::op::Slot;
use crate::model::slot::RawSlot;
use crate::plant::{self, Plant};
use crate::roster::Extent;
use crate::store::{Store, StoreError, Write};
use crate::time::Hlc;

/// What a branch is to this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BranchState {
    /// Being fetched whole: nothing of it is proven yet.
    Fetching,
    /// Fetched whole beside another history of the log and proven, not compared with that yet.
    Unjudged,
    /// Shown and offered up to its head.
    Live,
    /// As live, but an own log that is not written to any more: somewhere there may be more of it.
    Closed,
    /// What is stored is not what was signed any more: shown and offered to nobody, kept until it was
    /// fetched afresh.
    Quarantined,
    /// Given up: everything of it is being dropped.
    Dropping,
}

/// Tidying that a branch still owes, done in small steps so that nothing waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Chore {
    /// Nothing.
    None,
    /// Slots up to `.1` were shown by moving the head; drop what those after `.0` superseded.
    Supersede((u64, u64)),
    /// What is staged proved false: drop every slot above the head, then what those after this number
    /// superseded (the head stands meanwhile).
    Purge(u64),
    /// Fetched afresh, but not as far as it went: what lies after this number is put on top and proven
    /// again.
    Mend(u64),
    /// What lies after this number is written again in another log; then the branch is given up.
    Salvage(u64),
}

/// What arrived by repair and is not proven yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Staged {
    /// Sums of the live set as it would be.
    pub(crate) totals: Totals,
    /// Last sequence number received.
    pub(crate) upto: u64,
    /// It came by comparing live sets: there may be gaps below.
    pub(crate) compared: bool,
}

/// One history of a log.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(crate) id: BranchId,
    pub(crate) state: BranchState,
    /// How far the roster lets it count; worked out again whenever that changes.
    pub(crate) extent: Extent,
    /// How far scrubbing is; in memory only.
    pub(crate) scrubbed: Option<Scrubbed>,
    pub(crate) head: Option<VerifiedHeader>,
    pub(crate) totals: Totals,
    pub(crate) staged: Option<Staged>,
    /// When something was last staged, in monotonic milliseconds; in memory only.
    pub(crate) staged_at: u64,
    pub(crate) chore: Chore,
    /// A header whose root its author got wrong: the log stands still, nobody else is blamed.
    pub(crate) frozen: Option<Hash>,
    /// Two signed heads were seen that cannot both follow from one history.
    pub(crate) forked: bool,
    /// Some of it could not be read when it was written again elsewhere.
    pub(crate) lost: bool,
    /// Written again elsewhere as far as that went; kept for the rest.
    parked: bool,
    /// It has moved beside other histories of its log, which may be part of it now; in memory only.
    pub(crate) outdated: bool,
    /// Set aside when the replica was complete: it is complete again once this is mended.
    pub(crate) was_complete: bool,
    /// The head that the stored record was written for.
    recorded: u64,
    /// Operations since then.
    pub(crate) unrecorded: u64,
    /// Slots that were live then and were replaced since, with their cells: kept until the next record, so
    /// that a start can take them out of the recorded sums. Copies share them: a copy is made at every write.
    superseded: Arc<BTreeMap<u64, Bytes>>,
}

impl Branch {
    pub(crate) fn new(id: BranchId) -> Self {
        Self {
            id,
            state: BranchState::Fetching,
            extent: Extent::Open,
            scrubbed: None,
            head: None,
            totals: Totals::default(),
            staged: None,
            staged_at: 0,
            chore: Chore::None,
            frozen: None,
            forked: false,
            lost: false,
            parked: false,
            outdated: false,
            was_complete: false,
            recorded: 0,
            unrecorded: 0,
            superseded: Arc::default(),
        }
    }

    /// Whether it is time to write the record again.
    fn record_is_due(&self) -> bool {
        self.unrecorded >= RECORD_OPS || self.superseded.len() >= RECORD_REPLACED
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

    fn is_shown_state(&self) -> bool {
        matches!(self.state, BranchState::Live | BranchState::Closed)
    }

    /// Whether what it holds up to its head is shown and offered.
    pub(crate) fn shown(&self) -> bool {
        self.counts() && !self.beyond()
    }

    fn counts(&self) -> bool {
        let aside = self.state == BranchState::Quarantined && plant::is(Plant::ShowAside);
        self.head.is_some() && (self.is_shown_state() || aside)
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
        self.state == BranchState::Fetching
    }

    pub(crate) fn dropping(&self) -> bool {
        self.state == BranchState::Dropping
    }

    /// Whether it waits to be fetched afresh or written again.
    pub(crate) fn quarantined(&self) -> bool {
        self.state == BranchState::Quarantined && !self.parked
    }

    /// Whether it was set aside as damaged, however far mending it has come.
    pub(crate) fn is_aside(&self) -> bool {
        self.state == BranchState::Quarantined
    }

    /// Whether it is kept only for what could not be written again elsewhere.
    pub(crate) fn was_salvaged(&self) -> bool {
        self.parked
    }

    /// Keeps it for what could not be written again elsewhere: unreadable here, or over quota.
    pub(crate) fn park(&mut self) {
        self.parked = true;
        self.chore = Chore::None;
    }

    /// Gives the branch up: nothing of it is shown from now on, tidying drops it.
    pub(crate) fn give_up(&mut self) {
        self.state = BranchState::Dropping;
        self.chore = Chore::None;
        self.staged = None;
    }

    /// Whether it has something to be done in small steps.
    pub(crate) fn owes(&self) -> bool {
        self.chore != Chore::None || self.dropping() || self.to_compare()
    }

    /// Whether it is to be compared with the other histories of its log.
    pub(crate) fn to_compare(&self) -> bool {
        self.state == BranchState::Unjudged || self.outdated && self.shown()
    }

    /// Whether slots that proved false are still to be dropped: then nothing is taken in.
    pub(crate) fn purging(&self) -> bool {
        matches!(self.chore, Chore::Purge(_)) || self.dropping()
    }

    /// Whether nothing can be taken in just now: what was under way for it is void.
    pub(crate) fn closed_to_repair(&self) -> bool {
        self.purging() || !(self.is_shown_state() || self.fetching())
    }

    /// Gives up what is staged; tidying drops it.
    pub(crate) fn drop_staged(&mut self) {
        self.staged = None;
        let from = match self.chore {
            _ if self.dropping() => return,
            Chore::None => self.seq(),
            Chore::Supersede((from, _)) | Chore::Purge(from) => from,
            Chore::Mend(_) | Chore::Salvage(_) => return,
        };
        self.chore = Chore::Purge(from);
    }

    /// Moves the head to a header that proves what is staged; the caller keeps the record.
    pub(crate) fn flip(&mut self, header: VerifiedHeader, totals: Totals) -> Write {
        let (base, seq) = (self.seq(), header.header().last_seq);
        self.chore = match self.chore {
            Chore::Supersede((from, _)) => Chore::Supersede((from, seq)),
            _ if base > 0 => Chore::Supersede((base, seq)),
            other => other,
        };
        self.totals = totals;
        self.staged = None;
        self.scrubbed = None;
        self.frozen = None;
        let write = Write::Header { branch: self.id, seq, bytes: header.bytes().clone() };
        self.head = Some(header);
        write
    }

    /// One step of dropping what is not needed any more: what to drop, and the chore that is left.
    /// `None` for the chore: the branch is gone.
    pub(crate) fn tidy(
        &self,
        store: &impl Store,
    ) -> Result<(Vec<Write>, Option<Chore>), StoreError> {
        let (from, to) = match self.chore {
            _ if self.dropping() => (0, u64::MAX),
            Chore::None | Chore::Mend(_) | Chore::Salvage(_) => {
                return Ok((Vec::new(), Some(self.chore)));
            }
            Chore::Supersede(range) => range,
            Chore::Purge(_) => (self.seq(), u64::MAX),
        };
        let step = store.slots_after(&self.id, from, to, CHORE_SLOTS, CHORE_BYTES)?;
        let mut writes = Vec::new();
        for raw in &step {
            // What cannot be read any more has to go as well.
            let cell = match raw.open() {
                Ok(slot) => slot.op.cell.index_key(),
                Err(_) if self.purging() => Bytes::default(),
                Err(damaged) => return Err(damaged.into()),
            };
            if self.purging() {
                writes.push(self.remove(&cell, raw.seq));
                continue;
            }
            let below = self.own_slots(&cell, raw.seq - 1, store)?;
            writes.extend(below.into_iter().map(|old| self.remove(&cell, old.seq)));
        }
        let left = match (step.last(), self.chore) {
            (None, _) if self.dropping() => {
                writes.push(Write::RemoveLog { branch: self.id });
                return Ok((writes, None));
            }
            (Some(last), Chore::Supersede(_)) => Chore::Supersede((last.seq, to)),
            (Some(_), chore) => chore,
            (None, Chore::Purge(from)) if from < self.seq() => Chore::Supersede((from, self.seq())),
            (None, _) => Chore::None,
        };
        Ok((writes, Some(left)))
    }

    /// Whether `raw` is this branch's latest slot on its cell up to `upto`.
    pub(crate) fn is_latest(
        &self,
        raw: &RawSlot,
        upto: u64,
        store: &impl Store,
    ) -> Result<bool, StoreError> {
        if self.superseded.contains_key(&raw.seq) {
            return Ok(false);
        }
        if self.chore == Chore::None && self.staged.is_none() && !self.dropping() {
            return Ok(true);
        }
        let cell = raw.open()?.op.cell.index_key();
        let own = self.own_slots(&cell, upto, store)?;
        Ok(own.last().is_some_and(|last| last.seq == raw.seq))
    }

    /// Whether a slot is kept only because the record is older than what replaced it.
    pub(crate) fn is_superseded(&self, seq: u64) -> bool {
        self.superseded.contains_key(&seq)
    }

    /// This branch's live slot on a cell, if it has one.
    pub(crate) fn live(&self, cell: &[u8], store: &impl Store) -> Result<Option<Slot>, StoreError> {
        Ok(self.own_slots(cell, self.seq(), store)?.last().map(RawSlot::open).transpose()?)
    }

    /// This branch's slots on a cell up to `upto`, ascending.
    fn own_slots(
        &self,
        cell: &[u8],
        upto: u64,
        store: &impl Store,
    ) -> Result<Vec<RawSlot>, StoreError> {
        let mut slots = store.slots(cell)?;
        slots.retain(|slot| slot.branch == self.id && slot.seq <= upto);
        Ok(slots)
    }

    fn keep(&self, slot: &Slot, bytes: Bytes) -> Write {
        let raw = RawSlot { branch: self.id, seq: slot.seq, hlc: slot.hlc, op: bytes };
        Write::Slot { key: slot.op.cell.index_key(), slot: raw }
    }

    fn remove(&self, cell: &Bytes, seq: u64) -> Write {
        Write::RemoveSlot { key: cell.clone(), branch: self.id, seq }
    }
}

/// Whether a header's signed sums are these.
pub(crate) fn proves(header: &VerifiedHeader, totals: &Totals) -> bool {
    let header = header.header();
    if plant::is(Plant::SkipRoot) {
        return true;
    }
    header.live_count == totals.count()
        && header.live_bytes == totals.bytes()
        && header.live_root == totals.root()
}
