//! When a session has brought too little for too long.

use crate::limits::{PROGRESS_BYTES, PULL_STALLED_MS};
use crate::plant::{self, Plant};

/// What of the announced a session has brought lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    deadline: u64,
    /// Since the deadline was last put off, and in all.
    bytes: u64,
    total: u64,
}

/// What finishing one announced log counts for at least: the last of many small logs is progress too.
pub(super) const LOG_BYTES: u64 = PROGRESS_BYTES / 16;

impl Progress {
    pub(super) fn new(now: u64) -> Self {
        Self { deadline: now + PULL_STALLED_MS, bytes: 0, total: 0 }
    }

    /// When the session is to be given up.
    pub(super) fn deadline(&self) -> u64 {
        self.deadline
    }

    /// A step of the protocol that comes once a session.
    pub(super) fn step(&mut self, now: u64) {
        *self = Self { total: self.total, ..Self::new(now) };
    }

    /// Bytes of what was announced, in all.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of what was announced.
    pub(super) fn bytes(&mut self, now: u64, bytes: u64) {
        self.bytes += bytes;
        self.total += bytes;
        if self.bytes >= PROGRESS_BYTES {
            self.step(now);
        }
    }

    /// Anything else.
    pub(super) fn other(&mut self, now: u64) {
        if plant::is(Plant::AnyFrameIsProgress) {
            self.step(now);
        }
    }
}
