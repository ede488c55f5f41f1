//! Whether one history of a log is part of another, worked out a few slots at a time. Changes nothing.

use std::collections::BTreeSet;

use crate::id::{BranchId, Hash};
use crate::limits::{CHORE_BYTES, CHORE_SLOTS};
use crate::log::branch::Branch;
use crate::log::live_root::Totals;
use crate::plant::{self, Plant};
use crate::store::{Store, StoreError};

/// Where a genuine header stands to what is shown of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stands {
    /// It differs from what every history here has in its place: the log is forked.
    Apart,
    /// As old as something known, but nobody can say whether it is part of that.
    Old,
    /// It may go on from what is here.
    Beyond,
    /// Known.
    Here,
}

/// A newly fetched history being compared with those shown, a few slots at a time.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Histories that it was compared with.
    pub(super) done: BTreeSet<BranchId>,
    /// Those of them that are part of it.
    pub(super) parts: Vec<BranchId>,
    pub(super) running: Option<PartCheck>,
}

/// Whether one history is part of another, as far as that is worked out.
#[derive(Debug)]
pub(super) struct PartCheck {
    part: (BranchId, Hash),
    whole: (BranchId, Hash),
    after: u64,
    kept: Totals,
    base: Totals,
}

/// What a step of it came to.
pub(super) enum Step {
    More,
    Is(bool),
    /// One of the two has moved.
    Stale,
}

impl PartCheck {
    pub(super) fn new(part: &Branch, whole: &Branch) -> Self {
        Self {
            part: (part.id, part.head_hash()),
            whole: (whole.id, whole.head_hash()),
            after: part.seq(),
            kept: whole.totals.clone(),
            base: part.totals.clone(),
        }
    }

    pub(super) fn step(
        &mut self,
        part: &Branch,
        whole: &Branch,
        store: &impl Store,
    ) -> Result<Step, StoreError> {
        let now = ((part.id, part.head_hash()), (whole.id, whole.head_hash()));
        if (self.part, self.whole) != now {
            return Ok(Step::Stale);
        }
        if part.head_hash() == whole.head_hash() {
            return Ok(Step::Is(true));
        }
        if plant::is(Plant::LongerReplaces) {
            return Ok(Step::Is(part.seq() < whole.seq()));
        }
        if part.seq() >= whole.seq() {
            return Ok(Step::Is(false));
        }
        let upto = whole.seq();
        let step = store.slots_after(&whole.id, self.after, upto, CHORE_SLOTS, CHORE_BYTES)?;
        let Some(last) = step.last() else {
            return Ok(Step::Is(self.kept == self.base));
        };
        self.after = last.seq;
        for raw in &step {
            if !whole.is_latest(raw, upto, store)? {
                continue;
            }
            let slot = raw.open()?;
            if slot.hlc < part.stamp() {
                // Stamps never fall within a history: this was not written after `part`'s head.
                return Ok(Step::Is(false));
            }
            self.kept.remove(&slot);
            if let Some(older) = part.live(&slot.op.cell.index_key(), store)? {
                self.base.remove(&older);
            }
        }
        Ok(Step::More)
    }
}
