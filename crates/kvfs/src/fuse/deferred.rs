//! The kernel of deferred replies: an answer that is owed, and which thread gives it.
//!
//! Two threads may want to answer the same request: the one that does the work, and the one that
//! found the caller killed. The reply is a value that is used up by answering, and it lies behind a
//! lock; whichever thread takes it answers. Before the work changes anything it *claims* the reply:
//! from then on it cannot be interrupted, so that a caller that was told "interrupted" can rely on
//! nothing having changed.

use std::sync::Arc;

use tier_types::Cancel;

use crate::ops::WaitingCaller;
use crate::sync::Mutex;

/// A way to answer the kernel with an error.
pub(super) trait Reply: Send + 'static {
    /// Answers that the request was interrupted.
    fn interrupted(self);
}

impl<R: Reply> Cancel for Deferred<R> {
    fn is_cancelled(&self) -> bool {
        self.is_answered()
    }
}

impl<R: Reply> WaitingCaller for Deferred<R> {
    fn claim(&self) -> bool {
        self.claim()
    }

    fn is_claimed(&self) -> bool {
        matches!(*self.0.lock(), State::Claimed(_))
    }
}

/// An answer that is owed.
pub(super) struct Deferred<R>(Mutex<State<R>>);

enum State<R> {
    /// The caller can be interrupted.
    Waiting(R),
    /// What the caller wants is about to happen: it must hear of it.
    Claimed(R),
    /// It is answered.
    Answered,
}

/// The duty of the thread that works. Dropped without an answer, because the work panicked, it
/// drops the reply, and with it the kernel is answered: a caller must not wait for a thread that is
/// gone, and the watch, which holds the answer as well, would keep the reply for ever.
pub(super) struct Owed<R: Reply>(pub(super) Arc<Deferred<R>>);

impl<R: Reply> Drop for Owed<R> {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl<R: Reply> Deferred<R> {
    pub(super) fn new(reply: R) -> Self {
        Self(Mutex::new(State::Waiting(reply)))
    }

    /// Whether there is nothing left that an interruption could do.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(*self.0.lock(), State::Waiting(_))
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(*self.0.lock(), State::Answered)
    }

    /// Whether the answer is still wanted; from now on the caller cannot be interrupted.
    pub(super) fn claim(&self) -> bool {
        // Look and claim under one lock: an interruption between the two would tell the caller that
        // nothing has changed, and the change would follow.
        let mut state = self.0.lock();
        let reply = take(&mut state);
        let is_wanted = reply.is_some();
        if let Some(reply) = reply {
            *state = State::Claimed(reply);
        }
        is_wanted
    }

    /// The reply, for the thread that did the work; `None` if the caller was interrupted.
    pub(super) fn take(&self) -> Option<R> {
        take(&mut self.0.lock())
    }

    /// Answers that the request was interrupted, if it still can be.
    pub(super) fn interrupt(&self) {
        let mut state = self.0.lock();
        if let State::Waiting(_) = *state
            && let Some(reply) = take(&mut state)
        {
            reply.interrupted();
        }
    }
}

fn take<R>(state: &mut State<R>) -> Option<R> {
    match std::mem::replace(state, State::Answered) {
        State::Waiting(reply) | State::Claimed(reply) => Some(reply),
        State::Answered => None,
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::Reply;

    /// A reply that remembers what it said.
    #[derive(Default)]
    pub(in crate::fuse) struct Said(pub(in crate::fuse) Arc<Mutex<Vec<&'static str>>>);

    impl Reply for Said {
        fn interrupted(self) {
            self.0.lock().push("interrupted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Said;
    use super::*;

    #[test]
    fn an_interrupted_request_does_nothing_more() {
        let said = Arc::default();
        let deferred = Deferred::new(Said(Arc::clone(&said)));
        assert!(!deferred.is_settled());
        deferred.interrupt();
        assert_eq!(*said.lock(), ["interrupted"]);
        assert!(!deferred.claim(), "nothing may change any more");
        assert!(deferred.take().is_none());
        assert!(deferred.is_answered());
    }

    /// A reply whose drop is seen, as the kernel's answers with an error.
    struct Dropped(Arc<Mutex<bool>>);

    impl Reply for Dropped {
        fn interrupted(self) {}
    }

    impl Drop for Dropped {
        fn drop(&mut self) {
            *self.0.lock() = true;
        }
    }

    #[test]
    fn work_that_panics_drops_the_reply_which_others_hold_as_well() {
        let dropped: Arc<Mutex<bool>> = Arc::default();
        let deferred = Arc::new(Deferred::new(Dropped(Arc::clone(&dropped))));
        let owed = Owed(Arc::clone(&deferred));
        let work = std::panic::AssertUnwindSafe(move || {
            assert!(owed.0.is_answered(), "the work goes wrong");
        });
        std::panic::catch_unwind(work).unwrap_err();
        assert!(*dropped.lock(), "the kernel was answered");
        assert!(deferred.is_answered(), "and the watch lets go");
    }

    #[test]
    fn a_claimed_request_is_not_interrupted() {
        let said = Arc::default();
        let deferred = Deferred::new(Said(Arc::clone(&said)));
        assert!(deferred.claim());
        assert!(deferred.claim(), "asked twice, and still wanted");
        assert!(deferred.is_settled() && !deferred.is_answered());
        deferred.interrupt();
        assert!(said.lock().is_empty(), "too late");
        assert!(deferred.take().is_some());
    }

    #[cfg(feature = "shuttle")]
    mod shuttle_tests {
        use std::sync::Arc;

        use super::*;

        fn a_caller_gets_one_answer_and_it_is_true() {
            let said = Arc::new(parking_lot::Mutex::new(Vec::new()));
            let changed = Arc::new(parking_lot::Mutex::new(false));
            let deferred = Arc::new(Deferred::new(Said(Arc::clone(&said))));
            let works = {
                let (deferred, changed) = (Arc::clone(&deferred), Arc::clone(&changed));
                shuttle::thread::spawn(move || {
                    if deferred.is_answered() {
                        return;
                    }
                    let is_wanted = deferred.claim();
                    *changed.lock() = is_wanted;
                    if let Some(Said(said)) = deferred.take() {
                        said.lock().push("done");
                    }
                })
            };
            let looks = {
                let deferred = Arc::clone(&deferred);
                shuttle::thread::spawn(move || {
                    while !deferred.is_settled() {
                        deferred.interrupt();
                    }
                })
            };
            works.join().unwrap();
            looks.join().unwrap();
            let expected = if *changed.lock() { "done" } else { "interrupted" };
            assert_eq!(*said.lock(), [expected]);
        }

        #[test]
        fn shuttle_a_caller_gets_one_answer() {
            shuttle::check_random(a_caller_gets_one_answer_and_it_is_true, 5000);
            shuttle::check_pct(a_caller_gets_one_answer_and_it_is_true, 5000, 3);
        }
    }
}
