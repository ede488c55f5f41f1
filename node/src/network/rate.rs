//! A token bucket, and chance for jitter.

use std::time::Duration;

use tokio::time::Instant;

/// Lets `per_second` things pass, and up to `burst` at once.
#[derive(Debug)]
pub(super) struct Bucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self { burst, per_second, tokens: burst, at: now }
    }

    /// Whether one more may pass now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.take_many(1.0, now)
    }

    /// Whether so many more may pass now, all of them.
    pub(super) fn take_many(&mut self, count: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        if self.tokens < count {
            return false;
        }
        self.tokens -= count;
        true
    }
}

/// A duration between half and one and a half of `middle`, by chance.
pub(super) fn jitter(middle: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without entropy the middle is still a good pause; keys do not come from here.
    if getrandom::fill(&mut bytes).is_err() {
        return middle;
    }
    let part = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
    middle.mul_f64(0.5 + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_passes_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(4.0, 2.0, start);
        assert!(bucket.take(start) && bucket.take(start) && !bucket.take(start));
        assert!(!bucket.take(start + Duration::from_millis(200)));
        assert!(bucket.take(start + Duration::from_millis(260)));
        assert!(!bucket.take(start + Duration::from_millis(260)));
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        for _ in 0..100 {
            let pause = jitter(Duration::from_millis(400));
            assert!((200..=600).contains(&pause.as_millis()));
        }
    }
}
