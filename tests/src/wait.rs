//! Waiting for what must come, by looking again and again: time passes no test and fails none early.

use std::time::{Duration, Instant};

use crate::device::Device;

/// Longest wait for anything that must come; a failing test ends after it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until something holds; says how long that took.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
#[track_caller]
pub fn until(what: &str, holds: impl FnMut() -> bool) -> Duration {
    until_within(PATIENCE, what, holds)
}

/// The same with a limit of one's own.
///
/// # Panics
/// When it does not hold within the limit.
#[track_caller]
pub fn until_within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "after {limit:?} it does not hold that {what}");
        std::thread::sleep(LOOK_EVERY);
    }
    begun.elapsed()
}

/// Waits until each of these peers is connected to all the others.
#[track_caller]
pub fn connected(devices: &[&Device]) -> Duration {
    let wanted: Vec<String> = devices.iter().map(|device| device.id()).collect();
    let all = |device: &Device| {
        let linked = device.linked();
        let me = device.id();
        wanted.iter().all(|id| *id == me || linked.contains(id))
    };
    until("all are connected", || devices.iter().all(|device| all(device)))
}

/// Waits until these peers' replicas are the same.
#[track_caller]
pub fn equal(devices: &[&Device]) -> Duration {
    let same = || {
        let states: Vec<String> = devices.iter().map(|device| device.state()).collect();
        states.windows(2).all(|pair| pair[0] == pair[1])
    };
    let took = until("all replicas are the same", same);
    for device in devices {
        assert_eq!(device.status()["caught_up"], true);
    }
    took
}
