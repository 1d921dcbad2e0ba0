//! The stop flag of a command: set by Ctrl-C, looked at by the work at its safe points.
//!
//! A safe point lies between two steps of which each leaves the store as it is to be: between two
//! files, two tarballs, two batches. While a [`StopGuard`] is held, the signals that end a program
//! only set its flag. A command holds it as long as there are safe points to come; before and
//! after, Ctrl-C ends the process at once, which the store survives as it survives any crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use tier_types::{ErrorKind, PortError};

use super::signals::heeded;

/// A stop flag, and what sets it as long as this is held. Signals do what they did before when it
/// is dropped.
pub(crate) struct StopGuard {
    flag: Arc<AtomicBool>,
    signals: Vec<SigId>,
}

impl StopGuard {
    /// Set by the signals that end a program.
    pub(super) fn on_signals() -> Result<Self> {
        // The guard is there before the first signal, so that an error takes back what was done.
        let mut guard = Self::on_flag(Arc::default());
        for signal in heeded([SIGINT, SIGTERM]) {
            let registered = signal_hook::flag::register(signal, Arc::clone(&guard.flag));
            // Each is kept as it is made, so that a failure of the second takes the first back.
            guard.signals.push(registered.context("cannot listen to signals")?);
        }
        Ok(guard)
    }

    /// Set by another process, through a flag that its connection keeps.
    pub(super) fn on_flag(flag: Arc<AtomicBool>) -> Self {
        Self { flag, signals: Vec::new() }
    }

    /// True when a stop was asked for. Shared, for work on other threads.
    pub(crate) fn flag(&self) -> &Arc<AtomicBool> {
        &self.flag
    }

    /// An error if a stop was asked for.
    pub(crate) fn check(&self) -> Result<()> {
        // The flag alone is passed on, and no data with it, so that its order does not matter.
        if self.flag.load(Ordering::Relaxed) {
            return Err(PortError::new(ErrorKind::Cancelled, "stopped").into());
        }
        Ok(())
    }
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        for signal in self.signals.drain(..) {
            signal_hook::low_level::unregister(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console;

    #[test]
    fn a_stop_is_an_error_that_says_so_from_when_it_was_asked_for() {
        let flag = Arc::new(AtomicBool::new(false));
        let guard = StopGuard::on_flag(Arc::clone(&flag));
        guard.check().unwrap();
        flag.store(true, Ordering::Relaxed);
        let error = guard.check().unwrap_err();
        assert_eq!(console::message(&error), "stopped");
        assert_eq!(console::code(&error), console::FAILED);
    }

    #[test]
    fn a_signal_sets_the_flag_while_the_guard_is_held() {
        let guard = StopGuard::on_signals().unwrap();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        guard.check().unwrap_err();
    }
}
