//! Whether somebody uses the filesystem right now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whoever asked for something so recently will ask for more.
const RECENT: Duration = Duration::from_millis(20);

/// Room is taken to be short for so long after it was.
const CROWDED_MILLIS: u64 = 10_000;

/// When the filesystem was last used.
#[derive(Debug)]
pub(crate) struct Demand {
    /// Until when there is taken to be hardly any room left, in the same way as the last use: who
    /// fills it must not hold up those who make more.
    crowded_until: AtomicU64,
    opened: Instant,
    /// Milliseconds after it was opened, and one, so that 0 means never.
    last_use: AtomicU64,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            crowded_until: AtomicU64::new(0),
            opened: Instant::now(),
            last_use: AtomicU64::new(0),
        }
    }
}

impl Demand {
    pub(crate) fn note(&self) {
        self.last_use.store(self.now() + 1, Ordering::Relaxed);
    }

    pub(crate) fn is_there(&self) -> bool {
        let last_use = Duration::from_millis(self.last_use.load(Ordering::Relaxed));
        let recent = !last_use.is_zero() && self.opened.elapsed() < last_use + RECENT;
        recent && self.crowded_until.load(Ordering::Relaxed) <= self.now()
    }

    /// Room is short, as somebody saw just now.
    pub(crate) fn note_crowded(&self) {
        self.crowded_until.store(self.now() + CROWDED_MILLIS, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_is_there_for_a_while_and_never_where_room_is_short() {
        let demand = Demand::default();
        assert!(!demand.is_there());
        demand.last_use.store(u64::MAX / 2, Ordering::Relaxed);
        assert!(demand.is_there());
        demand.note_crowded();
        assert!(!demand.is_there());
    }
}
