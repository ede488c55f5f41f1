//! Counts what an input costs, for tests that hold its growth down: work is the same on a busy machine. With
//! the feature `plant` only, as planted faults are; without it nothing is counted and nothing costs.

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Hashes begun.
    Hashes,
    /// Bytes that went into hashes.
    HashedBytes,
    /// Logs, or their heads, that were looked at or copied one after the other.
    Logs,
}

#[cfg(feature = "plant")]
mod counted {
    use std::cell::Cell;

    use super::Work;

    thread_local! {
        static COUNTED: Cell<[u64; 3]> = const { Cell::new([0; 3]) };
    }

    /// What this thread has done since this was last asked: of each kind of work, in the order of their
    /// declaration.
    #[must_use]
    pub fn take() -> [u64; 3] {
        COUNTED.take()
    }

    pub(crate) fn count(work: Work, times: usize) {
        let mut counted = COUNTED.get();
        counted[work as usize] += times as u64;
        COUNTED.set(counted);
    }
}

#[cfg(feature = "plant")]
pub(crate) use counted::count;
#[cfg(feature = "plant")]
pub use counted::take;

#[cfg(not(feature = "plant"))]
pub(crate) const fn count(_: Work, _: usize) {}
