//! The only clock and the only source of entropy.

use std::time::{Duration, Instant, SystemTime};

use swarmkv_protocol::time::Now;

/// Wall and monotonic time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall: wall_millis(), mono: self.uptime_ms() }
    }

    /// Milliseconds since the start.
    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of a monotonic millisecond.
    pub(crate) fn instant(&self, mono: u64) -> Instant {
        self.started + Duration::from_millis(mono)
    }
}

/// Milliseconds since the Unix epoch, as this machine believes.
pub(crate) fn wall_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Fresh random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has a random source");
    bytes
}
