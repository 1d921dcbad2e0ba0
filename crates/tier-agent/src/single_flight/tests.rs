//! Tests of single flight: step by step, and under every interleaving that a model checker tries.

use std::time::Duration;

use super::*;

type Flights = SingleFlight<u32, u32>;

#[cfg(not(feature = "shuttle"))]
mod step_by_step {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    fn never() -> Instant {
        now() + Duration::from_hours(1)
    }

    #[test]
    fn the_first_caller_leads_and_all_get_its_answer() {
        let flights = Flights::new();
        let first = flights.join(&7);
        let second = flights.join(&7);
        assert!(second.lead.is_none());
        let other = flights.join(&8);
        assert!(other.lead.is_some(), "another key is another request");
        first.lead.unwrap().settle(42);
        assert_eq!(first.slot.wait(Some(never()), &|| false), Some(Outcome::Settled(42)));
        assert_eq!(second.slot.wait(Some(never()), &|| false), Some(Outcome::Settled(42)));
        assert_eq!(other.slot.wait(Some(now()), &|| false), None);
    }

    #[test]
    fn a_caller_that_comes_after_the_answer_asks_anew() {
        let flights = Flights::new();
        flights.join(&7).lead.unwrap().settle(1);
        let late = flights.join(&7);
        assert_eq!(
            late.slot.wait(Some(now()), &|| false),
            None,
            "the old answer is not handed out"
        );
        late.lead.unwrap().settle(2);
        assert_eq!(late.slot.wait(Some(now()), &|| false), Some(Outcome::Settled(2)));
    }

    #[test]
    fn a_request_that_is_dropped_is_abandoned_and_can_be_made_again() {
        let flights = Flights::new();
        let Joined { slot, lead } = flights.join(&7);
        let waiting = flights.join(&7);
        drop(lead);
        assert_eq!(slot.wait(Some(never()), &|| false), Some(Outcome::Abandoned));
        assert_eq!(waiting.slot.wait(Some(never()), &|| false), Some(Outcome::Abandoned));
        assert!(flights.join(&7).lead.is_some());
    }

    #[test]
    fn a_request_is_given_up_only_when_no_caller_waits() {
        let flights = Flights::new();
        let Joined { slot, lead } = flights.join(&7);
        let second = flights.join(&7);
        drop(slot);
        let lead = lead.unwrap().unless_abandoned().expect("the second caller waits");
        drop(second);
        assert!(lead.unless_abandoned().is_none(), "its deadline passed as well");
        let again = flights.join(&7);
        again.lead.expect("a later caller starts a request of its own").settle(3);
        assert_eq!(again.slot.wait(Some(never()), &|| false), Some(Outcome::Settled(3)));
    }

    #[test]
    fn a_panic_of_the_leader_strands_no_waiter() {
        let flights = Flights::new();
        let Joined { slot, lead } = flights.join(&7);
        let waiter = thread::spawn(move || slot.wait(Some(never()), &|| false));
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _lead = lead;
            panic!("told to");
        }));
        assert!(panicked.is_err());
        assert_eq!(waiter.join().unwrap(), Some(Outcome::Abandoned));
        assert!(flights.join(&7).lead.is_some());
    }

    #[test]
    fn a_deadline_that_passes_leaves_the_request_in_flight() {
        let flights = Flights::new();
        let Joined { slot, lead } = flights.join(&7);
        assert_eq!(slot.wait(Some(now()), &|| false), None);
        let joined = flights.join(&7);
        assert!(joined.lead.is_none(), "it is still in flight");
        lead.unwrap().settle(42);
        assert_eq!(
            joined.slot.wait(Some(now()), &|| false),
            Some(Outcome::Settled(42)),
            "also after the deadline"
        );
    }

    #[test]
    fn nothing_is_left_behind() {
        let flights = Flights::new();
        for key in 0..100 {
            let lead = flights.join(&key).lead;
            if key % 2 == 0 {
                lead.unwrap().settle(key);
            }
        }
        assert_eq!(flights.slots.lock().len(), 0);
    }
}

#[cfg(feature = "shuttle")]
mod shuttle_tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use shuttle::{check_pct, check_random, thread};

    use super::*;

    /// The model knows no time: whether a deadline passes is its choice.
    fn wait(slot: &Slot<u32>) -> Option<Outcome<u32>> {
        slot.wait(Some(Instant::now() + Duration::from_hours(1)), &|| false)
    }

    /// Waits as often as it takes, as a reader that tries again does.
    fn wait_patiently(slot: &Slot<u32>) -> Outcome<u32> {
        loop {
            if let Some(outcome) = wait(slot) {
                return outcome;
            }
        }
    }

    fn check(model: impl Fn() + Clone + Send + Sync + 'static) {
        check_random(model.clone(), 3000);
        check_pct(model, 3000, 3);
    }

    #[test]
    fn no_caller_gets_an_answer_that_was_given_before_it_asked() {
        check(|| {
            let flights = Arc::new(Flights::new());
            // Each request is answered with a number of its own, in ascending order.
            let n_requests = Arc::new(AtomicU32::new(0));
            let callers = [(); 3].map(|()| {
                let (flights, n_requests) = (Arc::clone(&flights), Arc::clone(&n_requests));
                thread::spawn(move || {
                    let ask = || {
                        let Joined { slot, lead } = flights.join(&7);
                        if let Some(lead) = lead {
                            lead.settle(n_requests.fetch_add(1, Ordering::Relaxed));
                        }
                        let Outcome::Settled(answer) = wait_patiently(&slot) else {
                            panic!("no request was abandoned");
                        };
                        answer
                    };
                    let first = ask();
                    let second = ask();
                    assert!(first < second, "{first} was given before it was asked for again");
                })
            });
            for caller in callers {
                caller.join().unwrap();
            }
            let n_requests = n_requests.load(Ordering::Relaxed);
            assert!((2..=6).contains(&n_requests), "one for each question at most: {n_requests}");
            assert!(flights.slots.lock().is_empty());
        });
    }

    #[test]
    fn a_key_has_one_leader_at_a_time() {
        check(|| {
            let flights = Arc::new(Flights::new());
            let n_leading = Arc::new(AtomicU32::new(0));
            let callers = [(); 3].map(|()| {
                let (flights, n_leading) = (Arc::clone(&flights), Arc::clone(&n_leading));
                thread::spawn(move || {
                    let Joined { slot, lead } = flights.join(&7);
                    if let Some(lead) = lead {
                        assert_eq!(n_leading.fetch_add(1, Ordering::Relaxed), 0);
                        thread::yield_now();
                        assert_eq!(n_leading.fetch_sub(1, Ordering::Relaxed), 1);
                        lead.settle(1);
                    }
                    assert_eq!(wait_patiently(&slot), Outcome::Settled(1));
                })
            });
            for caller in callers {
                caller.join().unwrap();
            }
        });
    }

    #[test]
    fn a_leader_that_is_lost_strands_no_waiter() {
        check(|| {
            let flights = Arc::new(Flights::new());
            let callers = [(); 3].map(|()| {
                let flights = Arc::clone(&flights);
                thread::spawn(move || {
                    let Joined { slot, lead } = flights.join(&7);
                    // What a panic does while it unwinds.
                    drop(lead);
                    assert_eq!(wait_patiently(&slot), Outcome::Abandoned);
                })
            });
            for caller in callers {
                caller.join().unwrap();
            }
            assert!(flights.slots.lock().is_empty());
        });
    }

    #[test]
    fn a_waiter_is_answered_or_its_deadline_passes() {
        check(|| {
            let flights = Arc::new(Flights::new());
            let Joined { slot, lead } = flights.join(&7);
            let waiters = [(); 2].map(|()| {
                let flights = Arc::clone(&flights);
                thread::spawn(move || {
                    let Joined { slot, lead } = flights.join(&7);
                    // A caller that comes after the answer leads a request of its own.
                    if let Some(lead) = lead {
                        lead.settle(2);
                    }
                    let in_time = wait(&slot);
                    assert!(matches!(in_time, None | Some(Outcome::Settled(1 | 2))));
                    let late = wait_patiently(&slot);
                    assert!(in_time.is_none_or(|outcome| outcome == late));
                })
            });
            lead.unwrap().settle(1);
            assert_eq!(wait_patiently(&slot), Outcome::Settled(1), "however late it looks");
            for waiter in waiters {
                waiter.join().unwrap();
            }
        });
    }
}
