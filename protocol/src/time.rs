//! Wall and monotonic time as inputs, and the hybrid logical clock that orders concurrent writes.
//!
//! Kulkarni et al., "Logical Physical Clocks" (OPODIS 2014): 48 bits of milliseconds, 16 of counter.

use serde::{Deserialize, Serialize};

use crate::limits::{CLOCK_LEAD_MS, EPOCH_LEAD_MS};

/// The time, handed in with every input. `mono` never runs backwards; `wall` may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch, as this machine believes.
    pub wall: u64,
    /// Milliseconds since some fixed moment.
    pub mono: u64,
}

/// A stamp: milliseconds since the Unix epoch and a counter within the millisecond.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    const COUNTER_BITS: u32 = 16;

    /// The first stamp of a millisecond.
    #[must_use]
    pub const fn at(millis: u64) -> Self {
        Self((millis & ((1 << 48) - 1)) << Self::COUNTER_BITS)
    }

    /// The millisecond part.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Issues stamps that follow everything seen, within bounds, and the wall clock where it leads.
#[derive(Clone, Copy, Debug, Default)]
pub struct HybridClock {
    last: Hlc,
}

impl HybridClock {
    /// A stamp greater than `after`, than every stamp issued, and not behind the wall clock.
    pub fn tick(&mut self, now: Now, after: Hlc) -> Hlc {
        self.last = self.last.max(after).next().max(Hlc::at(now.wall));
        self.last
    }

    /// Follows a stamp from elsewhere, but never further than five seconds ahead of the wall clock:
    /// otherwise one wrong clock would drag every other along.
    pub fn observe(&mut self, stamp: Hlc, now: Now) {
        let bound = Hlc::at(now.wall.saturating_add(CLOCK_LEAD_MS));
        self.last = self.last.max(stamp.min(bound));
    }

    /// Whether a log whose last stamp is `last` is so far ahead of the clock that its author should
    /// open a new epoch, lest a corrected clock keep winning ties.
    #[must_use]
    pub fn runs_away(last: Hlc, now: Now) -> bool {
        last.millis() > now.wall.saturating_add(EPOCH_LEAD_MS)
    }

    /// Forgets stamps that lead the wall clock by more than an hour: used when an epoch is opened.
    pub fn reset_lead(&mut self, now: Now) {
        if Self::runs_away(self.last, now) {
            self.last = Hlc::at(now.wall);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: u64) -> Now {
        Now { wall, mono: 0 }
    }

    #[test]
    fn stamps_rise_even_when_the_clock_stands_or_steps_back() {
        let mut clock = HybridClock::default();
        let mut last = Hlc::default();
        for wall in [1_000, 1_000, 400, 1_001, 7] {
            let stamp = clock.tick(at(wall), Hlc::default());
            assert!(stamp > last);
            last = stamp;
        }
    }

    #[test]
    fn seventy_thousand_stamps_in_a_millisecond_stay_distinct() {
        let mut clock = HybridClock::default();
        let mut last = Hlc::default();
        for _ in 0..70_000 {
            let stamp = clock.tick(at(5), Hlc::default());
            assert!(stamp > last);
            last = stamp;
        }
        assert!(last.millis() <= 7);
    }

    #[test]
    fn a_far_future_stamp_moves_the_clock_by_five_seconds_at_most() {
        let mut clock = HybridClock::default();
        clock.observe(Hlc(u64::MAX), at(1_000));
        assert!(clock.tick(at(1_000), Hlc::default()).millis() <= 1_000 + CLOCK_LEAD_MS);
    }
}
