//! How long a session keeps the logs that it is to bring to itself: for as long as they keep coming. Whoever
//! offers and does not send would otherwise keep everybody else from bringing them.

use crate::limits::{LOG_HOLD_MS, PLAN_HOLD_MS, SLOW_LINE_BYTES_PER_MS};

/// See above.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hold {
    planned_at: u64,
    until: u64,
}

impl Hold {
    /// The peer has said what it will send: it may begin.
    pub(super) fn planned(now: u64) -> Self {
        Self { planned_at: now, until: now + PLAN_HOLD_MS }
    }

    /// A log has begun: time for its first slots, once a session.
    pub(super) fn begun(&mut self) {
        self.until = self.until.max(self.planned_at + LOG_HOLD_MS);
    }

    /// Bytes of it have come: they buy the time that they take on a slow line, never more than at first.
    pub(super) fn bytes(&mut self, now: u64, bytes: u64) {
        let bought = self.until.max(now) + bytes / SLOW_LINE_BYTES_PER_MS;
        self.until = self.until.max(bought.min(now + LOG_HOLD_MS));
    }

    /// Until when.
    pub(super) fn until(&self) -> u64 {
        self.until
    }
}
