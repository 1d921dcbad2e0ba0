//! A bounded reorder buffer: items that many threads make in any order come out in order.
//!
//! One thread, the source, takes slots, which are numbered without gaps. Each slot goes with a
//! piece of work to some other thread, which fills it. One thread, the consumer, receives what was
//! filled in the order of the slots. At most so many slots are under way at a time: the source
//! waits for room. A slot is under way from when it is taken until the consumer comes back after
//! its item, so that what the consumer works on counts as well.
//!
//! What may go wrong ends the consumer, and with it everything else:
//!
//! - a slot that is dropped empty (its worker panicked, its queue was dropped) is noticed at once,
//!   also when items before it are still missing;
//! - a source that is dropped before it said that it has ended is an attempt that was given up:
//!   what was received so far is not all there is, and must not be taken for it;
//! - a consumer that is dropped (the write failed) closes the buffer: the source gets no more
//!   slots, and what is still filled is dropped.
//!
//! Why no thread waits for ever: the consumer waits only while the slot that it needs next is with
//! a thread, or the source is still there. A slot ends by being filled or dropped, and the source
//! by ending or being dropped; each of them tells the consumer. The source waits only while the
//! consumer is there and slots are under way; the consumer tells it when it comes back for more,
//! and when it goes. All state is under one lock, so that no such word can come between a look at
//! the state and the wait. The tests run this file under a model checker.

use std::collections::BTreeMap;

use crate::sync::{Arc, Condvar, Mutex};

/// Makes a buffer with room for so many slots under way.
pub(super) fn reorder_buffer<T>(n_under_way_max: u64) -> (SlotSource<T>, InOrder<T>) {
    assert!(n_under_way_max > 0, "the buffer has room for something");
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            filled: BTreeMap::new(),
            n_taken: 0,
            n_received: 0,
            n_finished: 0,
            slot_lost: false,
            source: Source::Open,
            consumer_gone: false,
        }),
        filled_or_ended: Condvar::new(),
        room_or_closed: Condvar::new(),
    });
    (SlotSource { shared: Arc::clone(&shared), n_under_way_max }, InOrder { shared })
}

/// Why the order cannot be continued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// A slot was dropped empty.
    SlotLost,
    /// The source was dropped before it ended.
    SourceLost,
}

/// The buffer was closed by its consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Closed;

struct Shared<T> {
    state: Mutex<State<T>>,
    /// For the consumer.
    filled_or_ended: Condvar,
    /// For the source.
    room_or_closed: Condvar,
}

struct State<T> {
    /// What was filled and not yet received, by the number of the slot.
    filled: BTreeMap<u64, T>,
    /// Slots taken by the source; received by the consumer; and finished by it.
    n_taken: u64,
    n_received: u64,
    n_finished: u64,
    slot_lost: bool,
    source: Source,
    consumer_gone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Open,
    Ended,
    Lost,
}

/// Gives out slots in order.
pub(super) struct SlotSource<T> {
    shared: Arc<Shared<T>>,
    n_under_way_max: u64,
}

impl<T> SlotSource<T> {
    /// The next slot; waits while too many are under way.
    pub(super) fn take_slot(&mut self) -> Result<Slot<T>, Closed> {
        let mut state = self.shared.state.lock();
        assert!(state.source == Source::Open, "nothing comes after the end");
        while !state.consumer_gone && state.n_taken - state.n_finished >= self.n_under_way_max {
            self.shared.room_or_closed.wait(&mut state);
        }
        // Looked at after the wait: it may have gone meanwhile, and no slot would ever be received.
        if state.consumer_gone {
            return Err(Closed);
        }
        let number = state.n_taken;
        state.n_taken += 1;
        Ok(Slot { shared: Arc::clone(&self.shared), number, filled: false })
    }

    /// Says that there are no more slots.
    pub(super) fn end(&mut self) -> Result<(), Closed> {
        let mut state = self.shared.state.lock();
        assert!(state.source == Source::Open, "there is one end");
        state.source = Source::Ended;
        // Only the one consumer ever waits here, so that no second thread has to be woken.
        self.shared.filled_or_ended.notify_one();
        if state.consumer_gone { Err(Closed) } else { Ok(()) }
    }
}

impl<T> Drop for SlotSource<T> {
    fn drop(&mut self) {
        // Dropped after its end it has nothing more to say.
        let mut state = self.shared.state.lock();
        if state.source == Source::Open {
            state.source = Source::Lost;
            self.shared.filled_or_ended.notify_one();
        }
    }
}

/// The position of one item in the order.
pub(super) struct Slot<T> {
    shared: Arc<Shared<T>>,
    number: u64,
    filled: bool,
}

impl<T> Slot<T> {
    /// Puts the item into its position.
    pub(super) fn fill(mut self, item: T) {
        self.filled = true;
        let mut state = self.shared.state.lock();
        // It was closed because something failed, which is reported elsewhere.
        if state.consumer_gone {
            return;
        }
        assert!(self.number >= state.n_received, "an item comes before it is received");
        let other = state.filled.insert(self.number, item);
        assert!(other.is_none(), "a slot is filled once");
        self.shared.filled_or_ended.notify_one();
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        if !self.filled {
            // Under the lock, or it could come between the consumer's look and its wait.
            self.shared.state.lock().slot_lost = true;
            self.shared.filled_or_ended.notify_one();
        }
    }
}

/// Receives the items in the order of their slots.
pub(super) struct InOrder<T> {
    shared: Arc<Shared<T>>,
}

impl<T> InOrder<T> {
    /// The next item, once it is there; `None` when all were received. Says that the item before is
    /// finished with.
    pub(super) fn recv(&mut self) -> Result<Option<T>, Broken> {
        let mut state = self.shared.state.lock();
        // Coming back is the sign that the item before was written, and its memory is free.
        if state.n_finished < state.n_received {
            state.n_finished = state.n_received;
            self.shared.room_or_closed.notify_one();
        }
        loop {
            // Before anything that could be received: a writer need not write what will be
            // discarded.
            if state.slot_lost {
                return Err(Broken::SlotLost);
            }
            if state.source == Source::Lost {
                return Err(Broken::SourceLost);
            }
            let number = state.n_received;
            if let Some(item) = state.filled.remove(&number) {
                state.n_received += 1;
                return Ok(Some(item));
            }
            if state.source == Source::Ended && state.n_received == state.n_taken {
                assert!(state.filled.is_empty(), "the order has no gaps");
                return Ok(None);
            }
            // A slot is still with its thread, or the source is open: both end in a notification.
            self.shared.filled_or_ended.wait(&mut state);
        }
    }
}

impl<T> Drop for InOrder<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.consumer_gone = true;
        // Items may be large, and some threads keep the buffer alive a little longer.
        let filled = std::mem::take(&mut state.filled);
        self.shared.room_or_closed.notify_one();
        // Freed after the lock: a thread that fills its slot need not wait for that.
        drop(state);
        drop(filled);
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_the_order_of_their_slots() {
        let (mut source, mut in_order) = reorder_buffer(3);
        let slots: Vec<_> = (0..3).map(|_| source.take_slot().unwrap()).collect();
        for (slot, item) in slots.into_iter().zip(["a", "b", "c"]).rev() {
            slot.fill(item);
        }
        source.end().unwrap();
        let mut received = || in_order.recv().unwrap();
        assert_eq!([received(), received(), received()], [Some("a"), Some("b"), Some("c")]);
        assert_eq!(in_order.recv(), Ok(None));
    }

    #[test]
    fn a_lost_slot_is_noticed_before_its_turn() {
        let (mut source, mut in_order) = reorder_buffer::<&str>(3);
        let _first = source.take_slot().unwrap();
        drop(source.take_slot().unwrap());
        assert_eq!(in_order.recv(), Err(Broken::SlotLost));
    }

    #[test]
    fn a_lost_source_is_no_end() {
        let (mut source, mut in_order) = reorder_buffer(3);
        source.take_slot().unwrap().fill("a");
        drop(source);
        assert_eq!(in_order.recv(), Err(Broken::SourceLost));
    }

    #[test]
    fn a_consumer_that_is_gone_closes_the_buffer() {
        let (mut source, in_order) = reorder_buffer(1);
        let slot = source.take_slot().unwrap();
        drop(in_order);
        slot.fill("a");
        assert_eq!(source.take_slot().err(), Some(Closed));
        assert_eq!(source.end(), Err(Closed));
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod shuttle_tests {
    use shuttle::sync::atomic::{AtomicU64, Ordering};
    use shuttle::{check_pct, check_random, thread};

    use super::*;

    const N_SCHEDULES: usize = 2000;
    const N_ITEMS: u64 = 5;
    const N_UNDER_WAY_MAX: u64 = 2;

    fn check(test: impl Fn() + Clone + Send + Sync + 'static) {
        check_random(test.clone(), N_SCHEDULES);
        check_pct(test, N_SCHEDULES, 3);
    }

    #[test]
    fn every_item_comes_once_in_order_and_within_the_bound() {
        check(|| {
            let (mut source, mut in_order) = reorder_buffer(N_UNDER_WAY_MAX);
            let n_under_way = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&n_under_way);
            let consumer = thread::spawn(move || {
                let mut received = Vec::new();
                while let Some(item) = in_order.recv().unwrap() {
                    received.push(item);
                    counted.fetch_sub(1, Ordering::SeqCst);
                }
                received
            });
            let mut workers = Vec::new();
            for item in 0..N_ITEMS {
                let slot = source.take_slot().unwrap();
                let n = n_under_way.fetch_add(1, Ordering::SeqCst);
                assert!(n < N_UNDER_WAY_MAX, "too many under way");
                workers.push(thread::spawn(move || slot.fill(item)));
            }
            source.end().unwrap();
            assert!(consumer.join().unwrap().into_iter().eq(0..N_ITEMS));
            for worker in workers {
                worker.join().unwrap();
            }
        });
    }

    #[test]
    fn a_lost_slot_ends_both_sides() {
        check(|| {
            let (mut source, mut in_order) = reorder_buffer(N_UNDER_WAY_MAX);
            let consumer = thread::spawn(move || {
                let mut n_received = 0;
                loop {
                    match in_order.recv() {
                        Ok(Some(item)) => assert_eq!(item, n_received),
                        Ok(None) => panic!("the order was not complete"),
                        Err(broken) => return broken,
                    }
                    n_received += 1;
                }
            });
            let mut n_closed = 0;
            for item in 0..N_ITEMS {
                let Ok(slot) = source.take_slot() else {
                    n_closed += 1;
                    continue;
                };
                thread::spawn(move || if item == 2 { drop(slot) } else { slot.fill(item) });
            }
            let ended = source.end();
            assert!(n_closed == 0 || ended.is_err());
            assert_eq!(consumer.join().unwrap(), Broken::SlotLost);
        });
    }

    #[test]
    fn a_source_that_is_given_up_ends_the_consumer() {
        check(|| {
            let (mut source, mut in_order) = reorder_buffer(N_UNDER_WAY_MAX);
            let consumer = thread::spawn(move || {
                let mut received = Vec::new();
                loop {
                    match in_order.recv() {
                        Ok(Some(item)) => received.push(item),
                        Ok(None) => panic!("nothing said that this was all"),
                        Err(broken) => return (received, broken),
                    }
                }
            });
            for item in 0..3 {
                let slot = source.take_slot().unwrap();
                thread::spawn(move || slot.fill(item));
            }
            drop(source);
            let (received, broken) = consumer.join().unwrap();
            assert_eq!(broken, Broken::SourceLost);
            assert!(received.into_iter().zip(0..).all(|(item, number)| item == number));
        });
    }

    #[test]
    fn a_consumer_that_gives_up_ends_the_source() {
        check(|| {
            let (mut source, mut in_order) = reorder_buffer(N_UNDER_WAY_MAX);
            let consumer = thread::spawn(move || assert_eq!(in_order.recv(), Ok(Some(0))));
            let mut n_slots = 0;
            while let Ok(slot) = source.take_slot() {
                let item = n_slots;
                thread::spawn(move || slot.fill(item));
                n_slots += 1;
                assert!(n_slots <= N_UNDER_WAY_MAX + 1, "nothing made room");
            }
            consumer.join().unwrap();
        });
    }
}
