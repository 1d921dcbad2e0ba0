//! Thread control: the stop flag of a lane, shared by the agent's handle and the lane's thread, and
//! the pending count of all lanes.
//!
//! [`StopFlag`] asks the thread to end, and stops the request under way. Both lie under one lock,
//! so that a request cannot begin between the two: it either began before, and its stop token is
//! set, or it finds that the thread is to end.
//!
//! [`PendingCount`] lets a caller wait until every request so far is done. A request counts until
//! it is dropped, whatever became of it, so that no wait needs a timeout.

use std::sync::Arc;
// A stop token crosses the interfaces of this crate and of others. It is a flag that is only ever
// set, and what depends on its order with anything else lies under the lock.
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sync::{Condvar, Mutex};

/// Asks the thread to end.
#[derive(Debug, Default)]
pub(crate) struct StopFlag {
    state: Mutex<StopState>,
}

#[derive(Debug, Default)]
struct StopState {
    to_end: bool,
    /// The stop token of the request that began last.
    current: Option<Arc<AtomicBool>>,
}

impl StopFlag {
    /// Stops the request under way, and lets none begin any more.
    pub(crate) fn raise(&self) {
        let mut state = self.state.lock();
        state.to_end = true;
        if let Some(stop) = &state.current {
            stop.store(true, Ordering::Relaxed);
        }
    }

    /// Makes a request the current one; false if the thread is to end.
    pub(crate) fn begin(&self, stop: &Arc<AtomicBool>) -> bool {
        let mut state = self.state.lock();
        if !state.to_end {
            state.current = Some(Arc::clone(stop));
        }
        !state.to_end
    }

    /// Whether a request has begun, and none after it. It stays the current one when it is done,
    /// so that a caller that looks late still waits for its answer.
    pub(crate) fn is_current(&self, stop: &Arc<AtomicBool>) -> bool {
        let state = self.state.lock();
        state.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, stop))
    }
}

/// How many requests are not done.
#[derive(Debug, Default)]
pub(crate) struct PendingCount {
    n_requests: Mutex<u64>,
    changed: Condvar,
}

/// A request that is not done. Dropped, it is.
#[derive(Debug)]
pub(crate) struct Pending(Arc<PendingCount>);

impl PendingCount {
    pub(crate) fn add(self: &Arc<Self>) -> Pending {
        *self.n_requests.lock() += 1;
        Pending(Arc::clone(self))
    }

    /// Waits until every request is done.
    pub(crate) fn wait(&self) {
        let mut n_requests = self.n_requests.lock();
        while *n_requests > 0 {
            self.changed.wait(&mut n_requests);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        *self.0.n_requests.lock() -= 1;
        // All of them, because several callers may wait for the count to reach zero.
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;

    #[test]
    fn a_raised_flag_stops_the_current_request_and_every_later_one() {
        let (flag, first, second) = (StopFlag::default(), Arc::default(), Arc::default());
        assert!(!flag.is_current(&first));
        assert!(flag.begin(&first));
        assert!(flag.is_current(&first));
        flag.raise();
        assert!(first.load(Ordering::Relaxed));
        assert!(!flag.begin(&second));
        assert!(!second.load(Ordering::Relaxed), "it never began");
        assert!(flag.is_current(&first) && !flag.is_current(&second));
    }

    #[test]
    fn a_flag_stops_only_the_request_that_began_last() {
        let (flag, first, second) = (StopFlag::default(), Arc::default(), Arc::default());
        assert!(flag.begin(&first) && flag.begin(&second));
        flag.raise();
        assert!(!first.load(Ordering::Relaxed) && second.load(Ordering::Relaxed));
    }

    #[test]
    fn waiting_ends_when_all_is_done() {
        let pending = Arc::new(PendingCount::default());
        pending.wait();
        let (first, second) = (pending.add(), pending.add());
        drop(first);
        assert_eq!(*pending.n_requests.lock(), 1);
        drop(second);
        pending.wait();
    }
}

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod shuttle_tests {
    use shuttle::{check_pct, check_random, thread};

    use super::*;

    fn check(model: fn()) {
        check_random(model, 2000);
        check_pct(model, 2000, 3);
    }

    #[test]
    fn no_request_begins_unseen_by_a_raised_flag() {
        check(|| {
            let (flag, stop) = (Arc::new(StopFlag::default()), Arc::new(AtomicBool::new(false)));
            let raising = Arc::clone(&flag);
            let raiser = thread::spawn(move || raising.raise());
            let began = flag.begin(&stop);
            raiser.join().unwrap();
            assert_eq!(began, stop.load(Ordering::Relaxed), "what began is stopped");
            assert!(!flag.begin(&stop));
        });
    }

    #[test]
    fn every_waiter_wakes_when_the_last_request_is_done() {
        check(|| {
            let pending = Arc::new(PendingCount::default());
            let requests = [pending.add(), pending.add()];
            let waiters = [(), ()].map(|()| {
                let pending = Arc::clone(&pending);
                thread::spawn(move || pending.wait())
            });
            requests.into_iter().for_each(drop);
            for waiter in waiters {
                waiter.join().unwrap();
            }
        });
    }
}
