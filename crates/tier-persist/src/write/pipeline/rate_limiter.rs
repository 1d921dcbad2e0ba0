//! The rate limiter: holds a stream of bytes to a rate.
//!
//! Bytes are accounted for after they were compressed, when their number is known, and make the
//! next ones wait: so the rate holds on average, and a burst is at most what is under way. Time in
//! which nothing was written is not made up for: after a pause the rate is what it was before. It
//! knows no clock; the caller says what time it is, and does the waiting.

use std::time::{Duration, Instant};

/// When the next bytes may come.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// None: as fast as they can.
    bytes_per_second_max: Option<u64>,
    next_at: Instant,
}

impl RateLimiter {
    pub(super) fn new(bytes_per_second_max: Option<u64>, now: Instant) -> Self {
        assert!(bytes_per_second_max != Some(0), "a rate of nothing would wait for ever");
        Self { bytes_per_second_max, next_at: now }
    }

    /// Accounts for bytes that were written.
    pub(super) fn account(&mut self, bytes: u64, now: Instant) {
        if let Some(rate) = self.bytes_per_second_max {
            // In microseconds: at most rates a job costs milliseconds, and seconds would be none.
            let cost = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
            // From now on at the earliest: a pause earns nothing.
            self.next_at = self.next_at.max(now) + cost;
        }
    }

    /// How long more bytes have to wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.next_at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_is_kept_and_idle_time_is_not_made_up_for() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Some(1000), start);
        limiter.account(500, start);
        assert_eq!(limiter.wait(start), Duration::from_millis(500));
        limiter.account(500, start);
        assert_eq!(limiter.wait(start), Duration::from_secs(1));
        let later = start + Duration::from_mins(1);
        limiter.account(100, later);
        assert_eq!(limiter.wait(later), Duration::from_millis(100));
        let mut free = RateLimiter::new(None, start);
        free.account(u64::MAX, start);
        assert_eq!(free.wait(start), Duration::ZERO);
    }

    proptest! {
        /// Whenever bytes come as soon as they may, all but the last took as long as the rate says.
        #[test]
        fn no_burst_is_faster_than_the_rate(
            rate in 1_u64..1_000_000,
            pieces in prop::collection::vec((0_u64..100_000, 0_u64..50), 1..50),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut limiter = RateLimiter::new(Some(rate), start);
            let mut before = 0;
            for (bytes, pause) in pieces {
                now += limiter.wait(now) + Duration::from_millis(pause);
                let at_least = u128::from(before) * 1_000_000 / u128::from(rate);
                // A microsecond of rounding for each piece.
                prop_assert!((now - start).as_micros() + 50 >= at_least);
                limiter.account(bytes, now);
                before += bytes;
            }
        }
    }
}
