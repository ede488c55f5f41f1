//! When to compare with whom: every few seconds while something moves, ever less often when nothing does.
//!
//! A replica on which something moved goes on comparing at the full pace until it has found every connected
//! member equal; from then on each round is twice as far away as the one before. Whoever missed something is
//! found by those who have it, so nothing is lost by its own backoff.

use crate::limits::{MAX_BACKOFF, REPAIR_EVERY_MS};
use crate::time::Now;

/// How far apart rounds are.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Rounds in a row after which all were equal, up to [`MAX_BACKOFF`].
    rounds: u32,
    /// What had moved when it was last looked at, and when that was noticed.
    moved: u64,
    moved_at: u64,
}

impl Backoff {
    /// How far away the next round is, before jitter.
    pub(super) fn pause(&self) -> u64 {
        REPAIR_EVERY_MS << self.rounds
    }

    /// Whether somebody who was seen equal then has missed nothing since.
    pub(super) fn is_equal(&self, seen_at: Option<u64>) -> bool {
        seen_at.is_some_and(|at| at >= self.moved_at)
    }

    /// A round begins, with every member known to be equal or not.
    pub(super) fn round(&mut self, all_equal: bool) {
        self.rounds = if all_equal { MAX_BACKOFF.min(self.rounds + 1) } else { 0 };
    }

    /// Notes what has moved, as a number that is another one then; says whether that is news.
    pub(super) fn note(&mut self, moved: u64, now: Now) -> bool {
        let news = moved != self.moved;
        if news {
            (self.moved, self.moved_at) = (moved, now.mono);
        }
        news
    }

    /// Whether rounds are further apart than they need be while something moves.
    pub(super) fn is_slow(&self) -> bool {
        self.rounds > 0
    }

    /// Back to the full pace.
    pub(super) fn reset(&mut self) {
        self.rounds = 0;
    }
}
