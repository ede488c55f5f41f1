//! Rounds: with whom to compare when the time has come, see `backoff.rs`.

use super::Engine;
use super::timers::Timer;
use crate::store::Store;
use crate::time::Now;

impl<S: Store> Engine<S> {
    /// Sets the next round, as far away as it is due.
    pub(super) fn set_round(&mut self, now: Now) {
        let pause = self.replica.random.jitter(self.backoff.pause());
        self.timers.set(Timer::Repair, now.mono + pause);
    }

    /// A round: compares with a member that is not known to be equal, or with any.
    pub(super) fn round(&mut self, now: Now) {
        self.replica.compare_moved();
        let unequal = self.peers.iter().filter(|(_, peer)| !self.backoff.is_equal(peer.equal_at));
        let unequal: Vec<_> = unequal.map(|(device, _)| *device).collect();
        let any = || self.peers.keys().copied().collect();
        let all_equal = unequal.is_empty();
        let from = if all_equal { any() } else { unequal };
        let pick = self.replica.random.below(from.len() as u64);
        self.wanted.extend(from.get(usize::try_from(pick).unwrap_or(0)));
        self.backoff.round(all_equal);
        self.set_round(now);
    }

    /// Ends the backoff when something has moved, or somebody came.
    pub(super) fn note_progress(&mut self, now: Now) {
        let news = self.backoff.note(self.replica.moves(), now);
        if news && self.backoff.is_slow() && !self.peers.is_empty() {
            self.reset_backoff(now);
        }
    }

    /// A member has come.
    pub(super) fn reset_backoff(&mut self, now: Now) {
        self.backoff.reset();
        self.set_round(now);
    }
}
