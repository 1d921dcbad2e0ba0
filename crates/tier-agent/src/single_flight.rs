//! Single flight: concurrent requests for one key share one slot, and one of them has it filled.
//!
//! **Roles.** [`SingleFlight::join`] finds the key's slot, or makes one. Every caller gets the slot
//! to wait on. The caller that made it gets, in addition, the [`InFlight`] request: the duty to
//! fill the slot. It is handed to the thread that does the work, and is neither copied nor
//! forgotten:
//!
//! - settled with a value, it fills the slot with that value;
//! - dropped unsettled, because its thread panicked or its queue was thrown away, it fills the slot
//!   with [`Outcome::Abandoned`].
//!
//! There is no third way, so that a slot is filled exactly once, and a waiter depends on no timeout
//! to be told that its answer will not come.
//!
//! **States of a key.** Absent: no request is in flight. Present: exactly one is. Only the
//! in-flight request removes its key, and it does so *before* it fills the slot:
//!
//! ```text
//!            join: makes the slot                settle or drop
//!   absent ----------------------> present ---------------------------> absent, then slot filled
//!                                   |    ^
//!                                   +----+ join: shares the slot
//! ```
//!
//! The order of the two matters. A slot that can be joined is not filled yet, so that no caller
//! gets an answer that was given before it asked: a reader that was told of a failure and asks
//! again starts a new request. Filling first would leave a moment in which it is handed the same
//! failure once more. The price is that a caller that comes between the two starts a second request
//! while the first one's answer is already known.
//!
//! **Waiting.** A waiter checks the slot under the slot's lock and waits on its condition variable;
//! the slot is filled under the same lock and then all are notified, so that no notification is
//! lost. The deadline is the waiter's own, and so is the reason to wait no longer. When either
//! comes, the request stays in flight for the others, and a later caller joins it.
//!
//! **Locks.** The map's lock and a slot's lock are never held together, and neither is held while
//! the work is done.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};

/// How often a caller that waits is asked whether it still wants the outcome.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The requests in flight, by key.
pub(crate) struct SingleFlight<K, V> {
    slots: Arc<Slots<K, V>>,
}

type Slots<K, V> = Mutex<HashMap<K, Arc<Slot<V>>>>;

/// What a caller gets that joins.
pub(crate) struct Joined<K: Eq + Hash, V> {
    /// Where the answer comes.
    pub(crate) slot: Arc<Slot<V>>,
    /// The duty to bring it, for the caller that came first.
    pub(crate) lead: Option<InFlight<K, V>>,
}

/// Where all callers of one request find its answer.
pub(crate) struct Slot<V> {
    outcome: Mutex<Option<Outcome<V>>>,
    filled: Condvar,
    /// A caller waits for it that is in a hurry.
    is_urgent: Mutex<bool>,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome<V> {
    /// Its answer.
    Settled(V),
    /// It was dropped without one.
    Abandoned,
}

/// A request in flight: the duty to fill its slot.
pub(crate) struct InFlight<K: Eq + Hash, V> {
    key: K,
    slot: Arc<Slot<V>>,
    slots: Arc<Slots<K, V>>,
    is_settled: bool,
}

impl<K: Eq + Hash + Clone, V: Clone> SingleFlight<K, V> {
    pub(crate) fn new() -> Self {
        Self { slots: Arc::new(Mutex::new(HashMap::new())) }
    }

    /// Joins the request in flight for this key, or starts one.
    pub(crate) fn join(&self, key: &K) -> Joined<K, V> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(key) {
            return Joined { slot: Arc::clone(slot), lead: None };
        }
        // Under the lock of the look above: of two callers that come at once only one leads.
        let slot = Arc::new(Slot {
            outcome: Mutex::new(None),
            filled: Condvar::default(),
            is_urgent: Mutex::new(false),
        });
        slots.insert(key.clone(), Arc::clone(&slot));
        drop(slots);
        let lead = InFlight {
            key: key.clone(),
            slot: Arc::clone(&slot),
            slots: Arc::clone(&self.slots),
            is_settled: false,
        };
        Joined { slot, lead: Some(lead) }
    }

    /// Callers that hold a slot: what holds it besides the map and the request in flight.
    #[cfg(test)]
    #[cfg(not(feature = "shuttle"))]
    pub(crate) fn n_waiting(&self) -> usize {
        self.slots.lock().values().map(|slot| Arc::strong_count(slot).saturating_sub(2)).sum()
    }
}

impl<V> Slot<V> {
    /// Says that a caller is in a hurry.
    pub(crate) fn hurry(&self) {
        *self.is_urgent.lock() = true;
    }
}

impl<V: Clone> Slot<V> {
    /// Waits for the outcome; `None` if the deadline passed before, or it is not wanted any more,
    /// for which it looks now and then.
    pub(crate) fn wait(
        &self,
        deadline: Option<Instant>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Option<Outcome<V>> {
        let mut outcome = self.outcome.lock();
        // A wake-up may be spurious, so that only the outcome counts.
        while outcome.is_none() {
            let look = Instant::now() + LOOK_INTERVAL;
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            let is_late = self.filled.wait_until(&mut outcome, until).timed_out();
            if is_cancelled() || (is_late && deadline.is_some_and(|deadline| deadline <= until)) {
                break;
            }
        }
        // Also after the deadline: an outcome that came with it counts.
        outcome.clone()
    }
}

impl<K: Eq + Hash, V> InFlight<K, V> {
    /// Whether a caller is in a hurry.
    pub(crate) fn is_urgent(&self) -> bool {
        *self.slot.is_urgent.lock()
    }

    /// Gives the request up if no caller waits for it any more. Decided under the map's lock, under
    /// which callers join: one that comes later starts a request of its own.
    pub(crate) fn unless_abandoned(mut self) -> Option<Self> {
        let mut slots = self.slots.lock();
        // The map and this request hold the slot; every caller that waits holds it as well.
        if Arc::strong_count(&self.slot) > 2 {
            drop(slots);
            return Some(self);
        }
        slots.remove(&self.key);
        drop(slots);
        // The slot stays empty: no caller holds it, and none can get it any more.
        self.is_settled = true;
        None
    }

    /// Gives all callers this answer.
    pub(crate) fn settle(mut self, value: V) {
        self.fill(Outcome::Settled(value));
    }

    fn fill(&mut self, outcome: Outcome<V>) {
        // First: should an assertion below fail, the drop must not fill again while that unwinds.
        self.is_settled = true;
        let removed = self.slots.lock().remove(&self.key);
        let is_own = removed.is_some_and(|slot| Arc::ptr_eq(&slot, &self.slot));
        assert!(is_own, "a key is removed by its own request only");
        let before = self.slot.outcome.lock().replace(outcome);
        assert!(before.is_none(), "a slot is filled once");
        self.slot.filled.notify_all();
    }
}

impl<K: Eq + Hash, V> Drop for InFlight<K, V> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.fill(Outcome::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests;
