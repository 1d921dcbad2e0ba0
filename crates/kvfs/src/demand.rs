//! Whether somebody uses the filesystem right now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whoever asked for something so recently will ask for more.
const RECENT: Duration = Duration::from_millis(20);

/// When the filesystem was last used.
#[derive(Debug)]
pub(crate) struct Demand {
    opened: Instant,
    /// Milliseconds after it was opened, and one, so that 0 means never.
    last_use: AtomicU64,
}

impl Default for Demand {
    fn default() -> Self {
        Self { opened: Instant::now(), last_use: AtomicU64::new(0) }
    }
}

impl Demand {
    pub(crate) fn note(&self) {
        self.last_use.store(self.now() + 1, Ordering::Relaxed);
    }

    pub(crate) fn is_there(&self) -> bool {
        let last_use = Duration::from_millis(self.last_use.load(Ordering::Relaxed));
        !last_use.is_zero() && self.opened.elapsed() < last_use + RECENT
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}
