//! The engine's timers: one table, one deadline out, the reason with it.

use std::collections::BTreeMap;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// When to compare digests with a random connected peer.
    Repair,
    /// When to give a running pull up unless enough arrives.
    PullStalled,
    /// When a member that was given up may be asked again, or a further comparison may begin.
    Retry,
    /// When a member that has used up what it is served at once gets the next piece.
    Serve,
    /// When to drop what was held or set aside too long.
    Expire,
    /// When to go on tidying logs that moved on.
    Tidy,
    /// When to go on applying commits that were held.
    Held,
    /// When to close a gap with a member that one was closed with just before.
    Gap,
    /// When to check the next stored slots against what was signed.
    Scrub,
}

/// Deadlines in monotonic milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers(BTreeMap<Timer, u64>);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: u64) {
        self.0.insert(timer, at);
    }

    /// When a timer is due; far away if it is not set.
    pub(crate) fn at(&self, timer: Timer) -> u64 {
        self.0.get(&timer).copied().unwrap_or(u64::MAX)
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.0.remove(&timer);
    }

    /// The earliest deadline and its reason.
    pub(crate) fn next(&self) -> Option<(u64, Timer)> {
        self.0.iter().map(|(timer, at)| (*at, *timer)).min()
    }

    /// Takes one timer that is due.
    pub(crate) fn due(&mut self, now: u64) -> Option<Timer> {
        let (at, timer) = self.next()?;
        if at > now {
            return None;
        }
        self.0.remove(&timer);
        Some(timer)
    }
}
