//! The kernel of the committer: a queue of mutations, and one thread at a time that leads.
//!
//! It knows nothing of stores and transactions, so that a model checker can run it. A mutation is
//! settled exactly once: by the leader that took it off the queue, or, if that panics, when the
//! unwinding drops what it had taken. Both happen with the lead held; so a thread that gets the lead
//! finds its own mutation either settled or still in the queue.

use std::sync::Arc;

use crate::sync::{Mutex, MutexGuard};

/// Builds batches of mutations and writes them.
pub(super) trait Lead: Sized {
    type Mutation;
    type Outcome;

    /// Takes mutations off the front, at least one, and settles each that it took.
    fn write_batch(&mut self, queue: &mut Queue<Self>);

    /// What becomes of a mutation whose leader panicked.
    fn abandoned() -> Self::Outcome;
}

/// Mutations that were taken off the queue together, in the order in which they came.
pub(super) type Queue<L> = std::vec::IntoIter<Pending<L>>;

/// A mutation, and the way to tell its thread what became of it.
pub(super) struct Pending<L: Lead> {
    pub(super) mutation: L::Mutation,
    pub(super) promise: Promise<L>,
}

/// An outcome that is owed to a thread. Dropped unsettled, it says that the leader panicked.
pub(super) struct Promise<L: Lead>(Option<Arc<Slot<L>>>);

type Slot<L> = Mutex<Option<<L as Lead>::Outcome>>;

impl<L: Lead> Promise<L> {
    pub(super) fn settle(mut self, outcome: L::Outcome) {
        if let Some(slot) = self.0.take() {
            *slot.lock() = Some(outcome);
        }
    }
}

impl<L: Lead> Drop for Promise<L> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            *slot.lock() = Some(L::abandoned());
        }
    }
}

/// The queue and the lead.
pub(super) struct GroupCommit<L: Lead> {
    queue: Mutex<Vec<Pending<L>>>,
    leader: Mutex<L>,
}

impl<L: Lead> GroupCommit<L> {
    pub(super) fn new(leader: L) -> Self {
        Self { queue: Mutex::new(Vec::new()), leader: Mutex::new(leader) }
    }

    /// The state of the leader. No batch is written while it is held.
    pub(super) fn leader(&self) -> MutexGuard<'_, L> {
        self.leader.lock()
    }

    /// Has a mutation written, by this thread or by another one that leads.
    #[expect(clippy::expect_used, reason = "a leader settles all that it finds in the queue")]
    pub(super) fn commit(&self, mutation: L::Mutation) -> L::Outcome {
        let slot = Arc::new(Mutex::new(None));
        let promise = Promise(Some(Arc::clone(&slot)));
        self.queue.lock().push(Pending { mutation, promise });
        let mut leader = self.leader.lock();
        // A thread that led before may have taken the mutation along.
        if let Some(outcome) = slot.lock().take() {
            return outcome;
        }
        // Declared after the lead, so that an unwinding drops it before that is free again.
        let mut queue = std::mem::take(&mut *self.queue.lock()).into_iter();
        while queue.len() > 0 {
            leader.write_batch(&mut queue);
        }
        drop(queue);
        let outcome = slot.lock().take();
        outcome.expect("the leader's own mutation was in the queue")
    }
}

/// Syncs that threads share.
#[derive(Default)]
pub(super) struct SharedSync {
    /// Batches, counted from the start, that are known to be durable.
    synced: Mutex<u64>,
}

impl SharedSync {
    /// Makes the first `wanted` batches durable. `written` says how many are written by now, and
    /// `sync` makes those durable. Threads that come while a sync is under way share the next one.
    pub(super) fn sync<E>(
        &self,
        wanted: u64,
        written: impl FnOnce() -> Result<u64, E>,
        sync: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut synced = self.synced.lock();
        if *synced >= wanted {
            return Ok(());
        }
        let covered = written()?;
        assert!(covered >= wanted, "batches are only ever added");
        sync()?;
        *synced = covered;
        Ok(())
    }
}
