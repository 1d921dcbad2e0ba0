//! The primitives of the concurrency kernels: `parking_lot`'s, or a model checker's.
//!
//! With the feature `shuttle` the kernels (`tx::committer::group`, `fuse::queue` and
//! `fuse::deferred`) run on primitives whose every step is scheduled by the model checker, which
//! replays thousands of interleavings of a test:
//! `cargo test -p kvfs --features shuttle --lib shuttle`. Only those tests can run then.

#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(feature = "shuttle")]
pub(crate) use model::{Condvar, Mutex, MutexGuard};

/// The model checker's primitives with the interface of `parking_lot`'s.
#[cfg(feature = "shuttle")]
mod model {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Duration;

    use shuttle::rand::Rng;
    use shuttle::sync;

    /// A lock that does not remember panics.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    pub(crate) struct MutexGuard<'a, T> {
        mutex: &'a sync::Mutex<T>,
        /// Missing only while a condition is waited for.
        inner: Option<sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard { mutex: &self.0, inner: Some(locked(&self.0)) }
        }
    }

    #[expect(clippy::expect_used, reason = "missing only within a wait")]
    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.inner.as_ref().expect("a guard outside of a wait")
        }
    }

    #[expect(clippy::expect_used, reason = "missing only within a wait")]
    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.inner.as_mut().expect("a guard outside of a wait")
        }
    }

    fn locked<T>(mutex: &sync::Mutex<T>) -> sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A condition.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(sync::Condvar);

    /// How a wait ended.
    pub(crate) struct Waited {
        timed_out: bool,
    }

    impl Waited {
        pub(crate) fn timed_out(&self) -> bool {
            self.timed_out
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let waited = guard.inner.take().map(|inner| self.0.wait(inner));
            guard.inner = waited.map(|inner| inner.unwrap_or_else(PoisonError::into_inner));
        }

        /// The model checker has no clock: whether time is up before anything else happens is
        /// drawn.
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> Waited {
            let timed_out = shuttle::rand::thread_rng().r#gen::<bool>();
            if timed_out {
                // The lock is free for a moment, as in a real wait: what it guards may change
                // before the return.
                guard.inner = None;
                guard.inner = Some(locked(guard.mutex));
            } else {
                self.wait(guard);
            }
            Waited { timed_out }
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
