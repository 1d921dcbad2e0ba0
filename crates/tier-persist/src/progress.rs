//! Whoever waits for long work.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::PersistError;

/// Somebody who hears how long work goes on, and may stop it. The default is nobody.
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
    /// called with the bytes of each object when it is its turn.
    pub fn new(stop: &'a AtomicBool, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self(Some(Watcher { stop, progress }))
    }

    /// An error if a stop was asked for.
    pub fn check_stop(&self) -> Result<(), PersistError> {
        let stopped = self.0.as_ref().is_some_and(|watcher| watcher.stop.load(Ordering::Relaxed));
        if stopped { Err(PersistError::Cancelled) } else { Ok(()) }
    }

    pub(crate) fn tell(&mut self, bytes: u64) {
        if let Some(watcher) = &mut self.0 {
            (watcher.progress)(bytes);
        }
    }
}
