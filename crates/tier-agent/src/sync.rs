//! The primitives of the concurrency kernels: those of `parking_lot`, or a model checker's.
//!
//! A kernel is a module that shares state between threads and uses nothing but this module for it
//! (`single_flight`, `thread_control`). With the feature `shuttle` the same code runs under a
//! scheduler that tries thousands of interleavings, one thread at a time:
//! `cargo test -p tier-agent --features shuttle --lib shuttle`. In such a build the crate serves
//! for nothing else: the model's locks work only within a run of the model.
//!
//! The model knows no time. A wait with a deadline is there a choice: either the deadline passes
//! while other threads run, or the thread waits for a notification, and one that never comes is
//! reported as a deadlock. Every test therefore covers both the late answer and the lost one.

#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Condvar, Mutex};

#[cfg(feature = "shuttle")]
pub(crate) use model::{Condvar, Mutex};

/// `parking_lot`'s interface over the model's primitives.
#[cfg(feature = "shuttle")]
mod model {
    use std::fmt;
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Instant;

    use shuttle::rand::Rng;
    use shuttle::{rand, sync, thread};

    #[derive(Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            // `parking_lot` knows no poisoning, so that code runs on after a panic: the model must
            // as well.
            let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            MutexGuard { mutex: self, guard: Some(guard) }
        }
    }

    impl<T> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Mutex").finish_non_exhaustive()
        }
    }

    pub(crate) struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        /// None only while a condition variable has it.
        guard: Option<sync::MutexGuard<'a, T>>,
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        #[expect(clippy::expect_used, reason = "a guard that is waited with is borrowed")]
        fn deref(&self) -> &T {
            self.guard.as_ref().expect("the guard is not waited with")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        #[expect(clippy::expect_used, reason = "a guard that is waited with is borrowed")]
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_mut().expect("the guard is not waited with")
        }
    }

    #[derive(Default, Debug)]
    pub(crate) struct Condvar(sync::Condvar);

    pub(crate) struct WaitTimeoutResult(bool);

    impl WaitTimeoutResult {
        pub(crate) fn timed_out(&self) -> bool {
            self.0
        }
    }

    impl Condvar {
        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            // The model's wait takes the guard by value and `parking_lot`'s borrows it.
            let inner = guard.guard.take();
            guard.guard =
                inner.map(|inner| self.0.wait(inner).unwrap_or_else(PoisonError::into_inner));
        }

        pub(crate) fn wait_until<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            _: Instant,
        ) -> WaitTimeoutResult {
            let passes = rand::thread_rng().r#gen::<bool>();
            if passes {
                // As in a real wait: other threads get the lock while the deadline passes.
                guard.guard = None;
                thread::yield_now();
                // Only the inner guard moves over; the new wrapper, dropped empty, unlocks nothing.
                guard.guard = guard.mutex.lock().guard.take();
            } else {
                self.wait(guard);
            }
            WaitTimeoutResult(passes)
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
