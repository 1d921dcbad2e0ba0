//! The clock port: time comes in through it, so that tests are reproducible.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Timestamp;

/// Tells what time it is.
pub trait Clock: Send + Sync {
    /// Wall-clock time. It may go back when the machine's clock is set.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        timestamp(SystemTime::now())
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => {
            Timestamp { seconds: whole_seconds(since.as_secs()), nanos: since.subsec_nanos() }
        }
        // A clock may be set to a time before 1970, and the error measures how far.
        Err(before) => {
            let until = before.duration();
            let seconds = -whole_seconds(until.as_secs());
            // Seconds are rounded down, so that the rest is never negative.
            match until.subsec_nanos() {
                0 => Timestamp { seconds, nanos: 0 },
                nanos => Timestamp { seconds: seconds - 1, nanos: 1_000_000_000 - nanos },
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "the operating system counts seconds in 64 bits with sign")]
fn whole_seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).expect("a time of the machine's clock")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_are_rounded_down_on_both_sides_of_the_epoch() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        let step = Duration::new(2, 300_000_000);
        assert_eq!(timestamp(UNIX_EPOCH), at(0, 0));
        assert_eq!(timestamp(UNIX_EPOCH + step), at(2, 300_000_000));
        assert_eq!(timestamp(UNIX_EPOCH - step), at(-3, 700_000_000));
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(2)), at(-2, 0));
    }
}
