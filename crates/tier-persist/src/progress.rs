//! Progress and cancellation of long work: verifying, rebuilding, scanning.
//!
//! Work that takes one object after another polls the stop flag between two of them, and calls the
//! progress closure with the bytes of each. Both happen on the thread that called, so that neither
//! needs a lock, and the closure may borrow what its caller has on the stack.

use std::sync::atomic::{AtomicBool, Ordering};
use tier_types::Call;

use crate::error::PersistError;

/// A stop flag and a progress closure for long work. The default has neither.
#[derive(Default)]
pub struct Watch<'a>(Option<Watcher<'a>>);

struct Watcher<'a> {
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(u64),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watch").field(&self.0.is_some()).finish()
    }
}

impl<'a> Watch<'a> {
    /// The work ends with [`PersistError::Cancelled`] soon after `stop` becomes true; `progress` is
    /// called with the length of each object in bytes.
    pub fn new(stop: &'a AtomicBool, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self(Some(Watcher { stop, progress }))
    }

    /// A call to a store that the stop flag cancels.
    pub(crate) fn call(&self) -> Call<'_> {
        let call = Call::bulk();
        self.0.as_ref().map_or(call, |watcher| call.cancelled_by(watcher.stop))
    }

    /// The stop flag, for threads that do a part of the work.
    pub(crate) fn stop(&self) -> Option<&'a AtomicBool> {
        self.0.as_ref().map(|watcher| watcher.stop)
    }

    /// An error if a stop was asked for.
    pub fn check_stop(&self) -> Result<(), PersistError> {
        // Relaxed: the flag guards no data, and a stop that is seen a little later does no harm.
        let stopped = self.0.as_ref().is_some_and(|watcher| watcher.stop.load(Ordering::Relaxed));
        if stopped { Err(PersistError::Cancelled) } else { Ok(()) }
    }

    pub(crate) fn report(&mut self, bytes: u64) {
        if let Some(watcher) = &mut self.0 {
            (watcher.progress)(bytes);
        }
    }
}
