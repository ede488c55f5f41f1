//! Scrubbing: what is stored is read again, summed up and compared with what was signed, branch by
//! branch, slowly and for ever. A branch that does not add up any more is set aside and fetched afresh.
//!
//! The sums keep up with a log that moves on: its new slots lie after the place reached, and what they
//! replace before that place is taken out of the sums as it is taken out of the log.

use super::Replica;
use crate::id::BranchId;
use crate::limits::{
    SCRUB_BYTES, SCRUB_EVERY_MS, SCRUB_FAST_MS, SCRUB_FAST_SLOTS, SCRUB_REST_MS, SCRUB_SLOTS,
};
use crate::log::branch::{Chore, proves};
use crate::plant::{self, Plant};
use crate::store::{RawSlot, Store, StoreError};

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next step, after this many milliseconds.
    Step(u64),
    /// Everything was read once.
    Rest,
}

impl Next {
    /// The pause before the next step, in milliseconds.
    pub(crate) fn pause(self) -> u64 {
        match self {
            Self::Step(pause) => pause,
            Self::Rest => SCRUB_REST_MS,
        }
    }
}

impl<S: Store> Replica<S> {
    /// Asks for everything to be read now, at a higher rate.
    pub(crate) fn scrub_all(&mut self) {
        self.suspects = self.logs.iter().filter(|log| log.shown()).map(|log| log.id).collect();
    }

    /// Branches that wait to be read at the higher rate.
    pub(crate) fn to_scrub(&self) -> usize {
        self.suspects.len()
    }

    /// Reads a few slots more.
    ///
    /// # Errors
    /// When one is damaged, or storage fails.
    pub(crate) fn scrub(&mut self) -> Result<Next, StoreError> {
        let fast = !self.suspects.is_empty();
        let pause = if fast { SCRUB_FAST_MS } else { SCRUB_EVERY_MS };
        if self.fx.unread() {
            return Ok(Next::Step(pause));
        }
        let Some(id) = self.scrub_which().filter(|_| !plant::is(Plant::ScrubOff)) else {
            self.suspects.clear();
            self.scrubbed_upto = None;
            return Ok(Next::Rest);
        };
        let count = if fast { SCRUB_FAST_SLOTS } else { SCRUB_SLOTS };
        let Some(log) = self.logs.get(&id).filter(|log| log.shown()) else {
            self.scrub_passed(id);
            return Ok(Next::Step(pause));
        };
        if log.chore != Chore::None {
            // More than its live set is stored. What was asked for waits for the tidying, which is soon done.
            if !fast {
                self.scrub_passed(id);
            }
            return Ok(Next::Step(pause));
        }
        let mut sums = log.scrubbed.clone().unwrap_or_default();
        let step = self.store.slots_after(&id, sums.upto, log.seq(), count, SCRUB_BYTES)?;
        for raw in &step {
            let slot = self.read_again(raw)?;
            if !log.is_superseded(raw.seq) {
                sums.totals.add(&slot);
            }
            sums.upto = raw.seq;
        }
        self.fx.counters.scrubbed += step.len() as u64;
        if step.is_empty() || sums.upto >= log.seq() {
            let sound = log.head.as_ref().is_none_or(|head| proves(head, &sums.totals));
            self.scrub_passed(id);
            if !sound {
                self.set_aside(id);
            }
        } else {
            self.logs.edit(id, |log| log.scrubbed = Some(sums));
        }
        Ok(Next::Step(pause))
    }

    /// A slot as it is read by its place, if it is also found by its key.
    fn read_again(&self, raw: &RawSlot) -> Result<crate::model::op::Slot, StoreError> {
        let slot = raw.open()?;
        let found = self.store.slots(&slot.op.cell.index_key())?.contains(raw);
        let damaged = StoreError::Damaged { branch: raw.branch, seq: raw.seq };
        if found { Ok(slot) } else { Err(damaged) }
    }

    fn scrub_which(&self) -> Option<BranchId> {
        if let Some(suspect) = self.suspects.first() {
            return Some(*suspect);
        }
        match self.scrubbed_upto {
            None => self.logs.iter().find(|log| log.shown()).map(|log| log.id),
            Some(last) => self.logs.after(last).find(|log| log.shown()).map(|log| log.id),
        }
    }

    fn scrub_passed(&mut self, id: BranchId) {
        if !self.suspects.remove(&id) {
            self.scrubbed_upto = Some(id);
        }
        self.logs.edit(id, |log| log.scrubbed = None);
    }
}
