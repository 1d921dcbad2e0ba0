//! Holds a stream of bytes to a rate.

use std::time::{Duration, Instant};

/// When the next bytes may come.
pub(super) struct Pace {
    /// None: as fast as they can.
    bytes_per_second_max: Option<u64>,
    due: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_second_max: Option<u64>, now: Instant) -> Self {
        Self { bytes_per_second_max, due: now }
    }

    /// Bytes were written. Time in which none were is not made up for.
    pub(super) fn note(&mut self, bytes: u64, now: Instant) {
        if let Some(rate) = self.bytes_per_second_max {
            let cost = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
            self.due = self.due.max(now) + cost;
        }
    }

    /// How long more bytes have to wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_idle_time_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(1000), start);
        pace.note(500, start);
        assert_eq!(pace.wait(start), Duration::from_millis(500));
        pace.note(500, start);
        assert_eq!(pace.wait(start), Duration::from_secs(1));
        let later = start + Duration::from_mins(1);
        pace.note(100, later);
        assert_eq!(pace.wait(later), Duration::from_millis(100));
        let mut free = Pace::new(None, start);
        free.note(u64::MAX, start);
        assert_eq!(free.wait(start), Duration::ZERO);
    }
}
