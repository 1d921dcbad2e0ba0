//! The kernel of the committer: a queue of mutations, and one thread at a time that leads.
//!
//! It knows nothing of stores and transactions, so that a model checker can run it. A mutation is
//! settled exactly once: by the leader that took it off the queue, or, if that panics, when the
//! unwinding drops what it had taken. Both happen with the lead held; so a thread that gets the
//! lead finds its own mutation either settled or still in the queue.

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

    #[cfg(test)]
    pub(super) fn n_queued(&self) -> usize {
        self.queue.lock().len()
    }

    /// Has a mutation written, by this thread or by another one that leads.
    #[expect(clippy::expect_used, reason = "a leader settles all that it finds in the queue")]
    pub(super) fn commit(&self, mutation: L::Mutation) -> L::Outcome {
        let slot = Arc::new(Mutex::new(None));
        let promise = Promise(Some(Arc::clone(&slot)));
        // The queue is free again before the lead is waited for, so that more mutations can line up
        // behind a batch that is being written.
        self.queue.lock().push(Pending { mutation, promise });
        // Where most threads wait: for the batch before theirs to be written.
        let mut leader = self.leader.lock();
        // A thread that led before may have taken the mutation along.
        if let Some(outcome) = slot.lock().take() {
            return outcome;
        }
        // Declared after the lead, so that an unwinding drops it before that is free again.
        let mut queue = std::mem::take(&mut *self.queue.lock()).into_iter();
        while queue.len() > 0 {
            let n_before = queue.len();
            leader.write_batch(&mut queue);
            assert!(queue.len() < n_before, "each batch takes at least one mutation");
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use super::*;

    /// A leader that counts what it writes, two mutations at most in a batch.
    #[derive(Default)]
    pub(super) struct Log {
        pub(super) written: Vec<Change>,
        pub(super) n_batches: u64,
    }

    /// A change of a thread.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) enum Change {
        Normal(usize),
        /// The leader panics at it, in the middle of a batch.
        Panics,
    }

    /// The place of a change in the log, or that its leader panicked.
    pub(super) type Settled = Result<usize, &'static str>;

    impl Lead for Log {
        type Mutation = Change;
        type Outcome = Settled;

        fn write_batch(&mut self, queue: &mut Queue<Self>) {
            let mut members = Vec::new();
            for Pending { mutation, promise } in queue.by_ref().take(2) {
                if mutation == Change::Panics {
                    // Without the hook that prints it.
                    resume_unwind(Box::new("on purpose"));
                }
                self.written.push(mutation);
                members.push((promise, self.written.len() - 1));
            }
            self.n_batches += 1;
            for (promise, place) in members {
                promise.settle(Ok(place));
            }
        }

        fn abandoned() -> Settled {
            Err("abandoned")
        }
    }

    /// What became of a change: a panic of its own thread is one of the leader.
    pub(super) fn commit(group: &GroupCommit<Log>, change: Change) -> Settled {
        let done = catch_unwind(AssertUnwindSafe(|| group.commit(change)));
        done.unwrap_or(Err("led and panicked"))
    }

    #[test]
    fn a_thread_alone_leads_its_own_mutation() {
        let group = GroupCommit::new(Log::default());
        assert_eq!(commit(&group, Change::Normal(0)), Ok(0));
        assert_eq!(commit(&group, Change::Normal(1)), Ok(1));
        assert_eq!(group.leader().n_batches, 2);
    }

    #[test]
    fn a_leader_that_panics_leaves_the_next_one_a_free_lead_and_an_empty_queue() {
        let group = GroupCommit::new(Log::default());
        assert_eq!(commit(&group, Change::Panics), Err("led and panicked"));
        assert_eq!(group.n_queued(), 0);
        assert_eq!(commit(&group, Change::Normal(1)), Ok(0));
    }

    #[test]
    fn a_sync_covers_what_was_written_when_it_began() {
        let syncs = SharedSync::default();
        let sync = |wanted, written| syncs.sync(wanted, || Ok(written), || Err("the disk is gone"));
        assert_eq!(sync(0, 0), Ok(()), "there is nothing to do");
        assert_eq!(syncs.sync(1, || Ok::<_, ()>(3), || Ok(())), Ok(()));
        assert_eq!(sync(3, 9), Ok(()), "it was covered");
        assert_eq!(sync(4, 9), Err("the disk is gone"));
        assert_eq!(sync(4, 9), Err("the disk is gone"), "and is tried again");
    }

    #[cfg(feature = "shuttle")]
    mod shuttle_tests {
        use shuttle::thread;

        use super::*;

        /// Runs threads, each with its changes one after the other, and returns what became of
        /// each.
        fn run(changes: &[&[Change]]) -> (Arc<GroupCommit<Log>>, Vec<Vec<Settled>>) {
            let group = Arc::new(GroupCommit::new(Log::default()));
            let spawn = |changes: &&[Change]| {
                let (group, changes) = (Arc::clone(&group), changes.to_vec());
                thread::spawn(move || {
                    changes.into_iter().map(|change| commit(&group, change)).collect::<Vec<_>>()
                })
            };
            let threads: Vec<_> = changes.iter().map(spawn).collect();
            let settled = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            (group, settled)
        }

        fn check(test: fn()) {
            shuttle::check_random(test, 2000);
            shuttle::check_pct(test, 2000, 3);
        }

        fn every_change_is_written_once_and_in_order() {
            let numbers = [[Change::Normal(0), Change::Normal(1)], [Change::Normal(2); 2]];
            let (group, settled) = run(&[&numbers[0], &numbers[1], &[Change::Normal(3)]]);
            let mut places: Vec<_> = settled.iter().flatten().map(|place| place.unwrap()).collect();
            for places in &settled {
                assert!(places.is_sorted(), "a thread's changes keep their order");
            }
            places.sort_unstable();
            assert_eq!(places, (0..5).collect::<Vec<_>>());
            let leader = group.leader();
            assert_eq!(leader.written[settled[0][1].unwrap()], Change::Normal(1));
        }

        #[test]
        fn shuttle_every_change_is_written_once() {
            check(every_change_is_written_once_and_in_order);
        }

        fn a_panic_settles_every_thread() {
            let two = [Change::Normal(0), Change::Normal(1)];
            let (group, settled) = run(&[&two, &[Change::Panics], &[Change::Normal(2)]]);
            let written = group.leader().written.len();
            for (thread, settled) in settled.iter().enumerate() {
                for settled in settled {
                    match settled {
                        Ok(place) => assert!(*place < written),
                        Err(error) => assert!(["abandoned", "led and panicked"].contains(error)),
                    }
                }
                assert!(thread != 1 || settled[0].is_err(), "it was never written");
            }
            let n_led = settled.iter().flatten().filter(|it| **it == Err("led and panicked"));
            assert_eq!(n_led.count(), 1, "one thread led when it happened");
            assert_eq!(commit(&group, Change::Normal(7)), Ok(written), "and the next one leads");
        }

        #[test]
        fn shuttle_a_panic_settles_every_thread() {
            check(a_panic_settles_every_thread);
        }

        /// What is synced is what was written before the sync began.
        fn a_sync_that_returned_covers_the_batch() {
            let group = Arc::new(GroupCommit::new(Log::default()));
            let syncs = Arc::new(SharedSync::default());
            let on_disk = Arc::new(Mutex::new(0));
            let work = |number| {
                let (group, syncs, on_disk) =
                    (Arc::clone(&group), Arc::clone(&syncs), Arc::clone(&on_disk));
                move || {
                    let place = commit(&group, Change::Normal(number)).unwrap();
                    let wanted = group.leader().n_batches;
                    let written = || Ok::<_, ()>(group.leader().n_batches);
                    let sync = || {
                        let now = group.leader().written.len();
                        *on_disk.lock() = now;
                        Ok(())
                    };
                    syncs.sync(wanted, written, sync).unwrap();
                    assert!(*on_disk.lock() > place, "change {number} is durable");
                }
            };
            let threads: Vec<_> = (0..3).map(|number| thread::spawn(work(number))).collect();
            for thread in threads {
                thread.join().unwrap();
            }
        }

        #[test]
        fn shuttle_a_sync_that_returned_covers_the_batch() {
            check(a_sync_that_returned_covers_the_batch);
        }
    }
}
