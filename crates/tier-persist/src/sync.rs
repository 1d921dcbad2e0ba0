//! Locks and condition variables of the concurrency kernels.
//!
//! Normally they are `parking_lot`'s. With the feature `shuttle` they are those of the model
//! checker of that name, which runs a test under many schedules. A kernel takes its primitives from
//! here and from nowhere else, so that it is the code that ships which the model checker runs. The
//! interface is the part that both have in common: no poisoning, no timeouts.

#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Condvar, Mutex};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::Arc;

#[cfg(feature = "shuttle")]
pub(crate) use self::checked::{Condvar, Mutex};
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::Arc;

#[cfg(feature = "shuttle")]
mod checked {
    //! The model checker's primitives behind the interface of `parking_lot`.
    #![expect(clippy::expect_used, reason = "a panic under the lock ends the schedule anyway")]

    use std::ops::{Deref, DerefMut};

    /// A mutual exclusion lock.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().expect("no thread panicked under the lock")))
        }
    }

    /// Empty only while a condition variable has the guard.
    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("the guard is only given up while waiting")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("the guard is only given up while waiting")
        }
    }

    /// A condition variable.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(shuttle::sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            // The checker's wait takes the guard by value, where that of `parking_lot` borrows it.
            let held = guard.0.take().expect("the guard is only given up while waiting");
            let woken = self.0.wait(held).expect("no thread panicked under the lock");
            guard.0 = Some(woken);
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }
}
