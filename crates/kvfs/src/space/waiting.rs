//! Waiting for room: operations that found none, while something may make some.
//!
//! Whether room may come is not for the filesystem to know: what evicts says so, and says the
//! contrary when nothing is left that it could free. Until then an operation that found no room is
//! done again, as a whole, when there may be some: it holds no lock meanwhile, and has changed
//! nothing. It waits no longer than the settings say; an operator wants an answer in the end, also
//! if a cloud stays away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// The operations that wait.
#[derive(Debug)]
pub(super) struct RoomWaiting {
    is_expected: AtomicBool,
    n_waiting: AtomicU64,
    /// No operation waits longer.
    pub(super) at_most: Duration,
    turn: Mutex<()>,
    changed: Condvar,
}

/// An operation that waits. Dropped, it does no more.
pub(crate) struct WaitingForRoom<'a>(&'a RoomWaiting);

impl Drop for WaitingForRoom<'_> {
    fn drop(&mut self) {
        self.0.n_waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RoomWaiting {
    pub(super) fn new(at_most: Duration) -> Self {
        Self {
            is_expected: AtomicBool::new(false),
            n_waiting: AtomicU64::new(0),
            at_most,
            turn: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    pub(super) fn expect(&self, is_expected: bool) {
        if self.is_expected.swap(is_expected, Ordering::Relaxed) != is_expected {
            tracing::debug!(is_expected, "room may come, or not");
            self.changed.notify_all();
        }
    }

    pub(super) fn is_expected(&self) -> bool {
        self.is_expected.load(Ordering::Relaxed)
    }

    /// Waits for the next attempt, so long at most.
    pub(super) fn pause(&self, at_most: Duration) {
        // A signal that comes just before is waited for no longer than this.
        let mut turn = self.turn.lock();
        let _ = self.changed.wait_for(&mut turn, at_most);
    }

    pub(super) fn begin(&self) -> WaitingForRoom<'_> {
        self.n_waiting.fetch_add(1, Ordering::Relaxed);
        WaitingForRoom(self)
    }

    pub(super) fn n_waiting(&self) -> u64 {
        self.n_waiting.load(Ordering::Relaxed)
    }

    /// There may be room.
    pub(super) fn notify(&self) {
        if self.n_waiting() > 0 {
            self.changed.notify_all();
        }
    }
}
