//! When to compare with whom: every few seconds while something moves, ever less often when nothing does.
//!
//! A replica on which something moved goes on comparing at the full pace until it has found every connected
//! member equal; from then on each round is twice as far away as the one before. Whoever missed something is
//! found by those who have it, so nothing is lost by its own calm.

use crate::engine::Engine;
use crate::limits::{MAX_CALM, REPAIR_EVERY_MS};
use crate::store::Store;
use crate::time::Now;
use crate::timer::Timer;

/// How calm it is.
#[derive(Debug, Default)]
pub(super) struct Calm {
    /// Rounds in a row after which all were equal, up to [`MAX_CALM`].
    rounds: u32,
    /// What had moved when it was last looked at, and when that was noticed.
    moved: u64,
    moved_at: u64,
}

impl<S: Store> Engine<S> {
    /// Sets the next round, as calm as it is.
    pub(super) fn set_round(&mut self, now: Now) {
        let pause = self.replica.random.jitter(REPAIR_EVERY_MS << self.calm.rounds);
        self.timers.set(Timer::Repair, now.mono + pause);
    }

    /// A round: compares with a member that is not known to be equal, or with any.
    pub(super) fn round(&mut self, now: Now) {
        let since = self.calm.moved_at;
        let equal = |at: Option<u64>| at.is_some_and(|at| at >= since);
        let unequal = self.peers.iter().filter(|(_, peer)| !equal(peer.equal_at));
        let unequal: Vec<_> = unequal.map(|(device, _)| *device).collect();
        let any = || self.peers.keys().copied().collect();
        let from = if unequal.is_empty() { any() } else { unequal.clone() };
        let pick = self.replica.random.below(from.len() as u64);
        self.wanted.extend(from.get(usize::try_from(pick).unwrap_or(0)));
        self.calm.rounds = if unequal.is_empty() { MAX_CALM.min(self.calm.rounds + 1) } else { 0 };
        self.set_round(now);
    }

    /// Ends the calm when something has moved, or somebody came.
    pub(super) fn look_for_moves(&mut self, now: Now) {
        let moved = self.replica.moves();
        if moved != self.calm.moved {
            self.calm.moved = moved;
            self.calm.moved_at = now.mono;
            if self.calm.rounds > 0 && !self.peers.is_empty() {
                self.calm.rounds = 0;
                self.set_round(now);
            }
        }
    }

    /// A member has come.
    pub(super) fn excite(&mut self, now: Now) {
        self.calm.rounds = 0;
        self.set_round(now);
    }
}
