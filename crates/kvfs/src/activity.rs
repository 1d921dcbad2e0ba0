//! Foreground activity: whether the filesystem is in use right now, when each inode was last used,
//! and whether space is low.
//!
//! Background work, which reads snapshots for hours, yields while requests come in, and does not
//! where space is low: whatever fills the disk must not hold up what frees it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tier_types::{Ino, Timestamp};

/// A request is taken to be followed by others for so long.
const RECENT: Duration = Duration::from_millis(20);

/// Space is taken to be low for so long after it was.
const LOW_SPACE_MILLIS: u64 = 10_000;

/// Inodes whose last use is remembered.
const N_USES_MAX: usize = 100_000;

/// When the filesystem was last used, and when space was last low.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    /// Milliseconds after it was opened, and one, so that 0 means never.
    last_use: AtomicU64,
    /// Until when space is taken to be low, in milliseconds after it was opened.
    low_space_until: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            last_use: AtomicU64::new(0),
            low_space_until: AtomicU64::new(0),
        }
    }
}

impl Activity {
    /// The filesystem is used.
    pub(crate) fn note_use(&self) {
        // Relaxed, because no other memory is read by what these numbers say: a use that is seen
        // late delays a yielding and breaks nothing.
        self.last_use.store(self.now() + 1, Ordering::Relaxed);
    }

    /// Space was found to be low.
    pub(crate) fn note_low_space(&self) {
        self.low_space_until.store(self.now() + LOW_SPACE_MILLIS, Ordering::Relaxed);
    }

    /// Whether background work should yield.
    pub(crate) fn is_foreground(&self) -> bool {
        let last_use = Duration::from_millis(self.last_use.load(Ordering::Relaxed));
        let recent = !last_use.is_zero() && self.opened.elapsed() < last_use + RECENT;
        // Low space ends the yielding, not the noting: when there is room again, it goes on.
        recent && self.low_space_until.load(Ordering::Relaxed) <= self.now()
    }

    #[expect(clippy::expect_used, reason = "a u64 counts milliseconds for 500 million years")]
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).expect("time since the start")
    }
}

/// When inodes were last read or written; forgotten when the filesystem is closed.
#[derive(Debug, Default)]
pub(crate) struct LastUses(Mutex<HashMap<Ino, Timestamp>>);

impl LastUses {
    pub(crate) fn note(&self, ino: Ino, now: Timestamp) {
        let mut uses = self.0.lock();
        if uses.len() >= N_USES_MAX {
            // Forgetting a use makes a file look older than it is: it may be evicted sooner.
            uses.clear();
        }
        uses.insert(ino, now);
    }

    pub(crate) fn last(&self, ino: Ino) -> Option<Timestamp> {
        self.0.lock().get(&ino).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activity_is_there_for_a_while_and_never_where_space_is_low() {
        let activity = Activity::default();
        assert!(!activity.is_foreground());
        activity.last_use.store(u64::MAX / 2, Ordering::Relaxed);
        assert!(activity.is_foreground());
        activity.note_low_space();
        assert!(!activity.is_foreground());
    }

    #[test]
    fn the_last_use_counts() {
        let uses = LastUses::default();
        let (ino, time) = (Ino::new(7), |seconds| Timestamp { seconds, nanos: 0 });
        assert_eq!(uses.last(ino), None);
        uses.note(ino, time(1));
        uses.note(ino, time(2));
        assert_eq!(uses.last(ino), Some(time(2)));
    }
}
