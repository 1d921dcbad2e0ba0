//! Time that passes only when it is looked at.

use std::sync::atomic::{AtomicI64, Ordering};

use tier_types::{Clock, Timestamp};

/// A clock that starts at a given second and goes on by one millisecond with each look.
#[derive(Debug)]
pub struct VirtualClock(AtomicI64);

impl VirtualClock {
    /// Starts at this second.
    pub fn at(seconds: i64) -> Self {
        Self(AtomicI64::new(seconds * 1000))
    }
}

impl VirtualClock {
    /// Lets so many seconds pass.
    pub fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let millis = self.0.fetch_add(1, Ordering::Relaxed);
        let nanos = u32::try_from(millis.rem_euclid(1000)).unwrap() * 1_000_000;
        Timestamp { seconds: millis.div_euclid(1000), nanos }
    }
}
