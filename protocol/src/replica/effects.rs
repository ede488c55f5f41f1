//! The only place that hands out outputs and counts: durability comes first because it is put in first.

use std::collections::VecDeque;

use crate::id::DeviceId;
use crate::io::{Counters, Later, LaterKind, Output, Verdict};
use crate::store::Write;

/// What is to be done outside, in order.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    out: VecDeque<Output>,
    pub(crate) counters: Counters,
    /// The last thing of a later version that was met.
    pub(crate) later: Option<Later>,
    /// Slots were handed to storage in this call: reads do not see them before the next.
    unread: bool,
}

impl Effects {
    /// A new call begins: storage has taken whatever earlier calls handed out, but not what opening the
    /// replica has put in before the first.
    pub(crate) fn begin(&mut self) {
        self.unread &= !self.out.is_empty();
    }

    /// Whether slots were written in this call, so that storage must not be read for slots again.
    pub(crate) fn unread(&self) -> bool {
        self.unread
    }

    /// Makes writes durable before anything that is put in later.
    pub(crate) fn persist(&mut self, writes: Vec<Write>) {
        self.unread |= writes.iter().any(|w| {
            matches!(w, Write::Slot { .. } | Write::RemoveSlot { .. } | Write::Header { .. })
        });
        if !writes.is_empty() {
            self.out.push_back(Output::Persist(writes));
        }
    }

    /// Keeps in mind that something of a later version was met, and from whom.
    pub(crate) fn note_later(&mut self, what: LaterKind, from: DeviceId) {
        self.later = Some(Later { what, from });
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.out.push_back(output);
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(crate) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Accept => {}
            Verdict::Reject => self.counters.rejected += 1,
            Verdict::Ignore => self.counters.ignored += 1,
        }
    }
}
