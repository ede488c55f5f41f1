//! When to compare with whom: every few seconds while something moves, ever less often when nothing does.
//!
//! A replica on which something moved goes on comparing at the full pace until it has found every connected
//! member equal; from then on each round is twice as far away as the one before. Whoever missed something is
//! found by those who have it, so nothing is lost by its own backoff.

use crate::engine::Engine;
use crate::engine::timers::Timer;
use crate::limits::{MAX_BACKOFF, REPAIR_EVERY_MS};
use crate::store::Store;
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

impl<S: Store> Engine<S> {
    /// Sets the next round, as far away as it is due.
    pub(super) fn set_round(&mut self, now: Now) {
        let pause = self.replica.random.jitter(REPAIR_EVERY_MS << self.backoff.rounds);
        self.timers.set(Timer::Repair, now.mono + pause);
    }

    /// A round: compares with a member that is not known to be equal, or with any.
    pub(super) fn round(&mut self, now: Now) {
        let since = self.backoff.moved_at;
        let equal = |at: Option<u64>| at.is_some_and(|at| at >= since);
        let unequal = self.peers.iter().filter(|(_, peer)| !equal(peer.equal_at));
        let unequal: Vec<_> = unequal.map(|(device, _)| *device).collect();
        let any = || self.peers.keys().copied().collect();
        let from = if unequal.is_empty() { any() } else { unequal.clone() };
        let pick = self.replica.random.below(from.len() as u64);
        self.wanted.extend(from.get(usize::try_from(pick).unwrap_or(0)));
        self.backoff.rounds =
            if unequal.is_empty() { MAX_BACKOFF.min(self.backoff.rounds + 1) } else { 0 };
        self.set_round(now);
    }

    /// Ends the backoff when something has moved, or somebody came.
    pub(super) fn note_progress(&mut self, now: Now) {
        let moved = self.replica.moves();
        if moved != self.backoff.moved {
            self.backoff.moved = moved;
            self.backoff.moved_at = now.mono;
            if self.backoff.rounds > 0 && !self.peers.is_empty() {
                self.backoff.rounds = 0;
                self.set_round(now);
            }
        }
    }

    /// A member has come.
    pub(super) fn reset_backoff(&mut self, now: Now) {
        self.backoff.rounds = 0;
        self.set_round(now);
    }
}
