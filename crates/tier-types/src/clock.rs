//! Time comes in through a port, so that tests are reproducible.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Timestamp;

/// Tells what time it is.
pub trait Clock: Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let now = SystemTime::now();
        match now.duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp {
                seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanos: since.subsec_nanos(),
            },
            Err(before) => {
                let until = before.duration();
                let whole = i64::try_from(until.as_secs()).unwrap_or(i64::MAX);
                match until.subsec_nanos() {
                    0 => Timestamp { seconds: -whole, nanos: 0 },
                    nanos => Timestamp { seconds: -whole - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }
}
