//! The committer: group commit with consecutive transaction ids.
//!
//! Every change of the filesystem is a mutation: a closure that is told its transaction id and its
//! time, and fills a draft. Threads put their mutations into a queue and ask for the lead. The
//! thread that gets it takes the whole queue, gives each mutation the next ids, and writes all
//! drafts, their log records and the new totals as one batch of the key-value store. So
//!
//! - ids have no gaps, and their order is the order in which batches become visible;
//! - a change, its log record and its share of the totals are in the store together or not at all;
//! - the cost of a batch is shared by all threads that came while the one before was written. A
//!   thread that comes alone leads at once and waits for nothing.
//!
//! A commit makes a change visible, and keeps it if the process ends, but not through a loss of
//! power: that takes a [`sync`](Committer::sync). A sync counts the batches that it covers before
//! it begins; threads that come while one is under way wait for it and share the next one, and a
//! thread whose batch is covered by then has nothing left to do. Lock order: `synced` before the
//! lead, and never the other way round, so that commits go on while a sync is under way.
//!
//! A KVS snapshot is taken with the lead held. No batch is half written then, so that the snapshot
//! and the last transaction id that comes with it belong together: this is what makes a publication
//! of log segment and snapshot atomic.
//!
//! # What a failure does
//! A batch that could not be written may or may not be in the write-ahead log, and after a failed
//! sync it is unknown what is on the disk. Both poison the committer: every later change and sync
//! fails with [`FsError::Poisoned`] until the filesystem is opened again, which looks at what is
//! there. The mutation that met the error gets it, the others of its batch get `Poisoned`.
//!
//! A panic must not leave threads waiting. There are three places for one:
//!
//! 1. In a mutation's closure. It runs with a draft of its own, which is dropped: nothing of it is
//!    in the batch, no id was used, and the others of the batch are written as if it had not come.
//!    The panic goes on in the thread that committed the mutation, whichever thread was leading.
//! 2. In the leader before anything was written (its clock, say). Everything that it had taken off
//!    the queue is dropped and by that settled with [`FsError::LeaderPanicked`]; nothing was
//!    changed, and the next thread leads.
//! 3. In the leader while it writes. The same, but the committer is poisoned: it is before the
//!    write begins, and is well again only when the write has come back.

mod group;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::iter;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use tier_types::{Clock, Timestamp, Xid};

use super::Draft;
use super::draft::{put_counters, put_extents_floor};
use crate::FsError;
use crate::store::extents::{Appended, Committing, Place};
use crate::store::{Batch, Counters, Db, KvsSnapshot};
use group::{GroupCommit, Lead, Pending, Promise, Queue, SharedSync};

/// A batch takes no further mutation when it has this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// A change that knows its content but not yet its transaction ids. It says beforehand how many
/// operations it logs: none for what is no operation, such as an eviction.
struct Mutation {
    n_operations: u64,
    fill: Box<dyn FnOnce(&mut Draft) + Send>,
}

/// A mutation is in the store, though not yet durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Committed {
    /// The transaction id of its first operation.
    pub(crate) xid: Xid,
    pub(crate) time: Timestamp,
}

/// What became of a mutation.
enum Outcome {
    Done(Result<Committed, FsError>),
    /// Its closure panicked, with this.
    Panicked(Box<dyn Any + Send>),
}

/// Gives mutations their transaction ids and writes them.
pub(crate) struct Committer {
    db: Arc<Db>,
    group: GroupCommit<Leader>,
    syncs: SharedSync,
}

/// What the leading thread goes by.
struct Leader {
    db: Arc<Db>,
    clock: Arc<dyn Clock>,
    next_xid: Xid,
    counters: Counters,
    /// Batches written, to tell what a sync covers.
    n_batches: u64,
    /// It is not known what is in the store, or on the disk: nothing may follow.
    poisoned: bool,
    extents: ExtentState,
}

/// What the leader knows of extents.
#[derive(Debug)]
struct ExtentState {
    /// The generation of what is freed now.
    generation: u64,
    /// Bytes that were freed in it.
    freed_bytes: u64,
    /// Where the last extent ends that is not known to be durable.
    unsynced: Option<Place>,
    /// Extents before this place are durable or free, and the store does not say so yet.
    floor: Option<Place>,
}

impl Committer {
    pub(crate) fn new(
        db: Arc<Db>,
        clock: Arc<dyn Clock>,
        next_xid: Xid,
        counters: Counters,
        generation: u64,
    ) -> Self {
        let leader = Leader {
            db: Arc::clone(&db),
            clock,
            next_xid,
            counters,
            n_batches: 0,
            poisoned: false,
            extents: ExtentState { generation, freed_bytes: 0, unsynced: None, floor: None },
        };
        Self { db, group: GroupCommit::new(leader), syncs: SharedSync::default() }
    }

    /// Commits a mutation that logs `n_operations`; `fill` must add exactly as many. If `fill`
    /// panics, so does this, and nothing of it is in the store.
    pub(crate) fn commit(
        &self,
        n_operations: u64,
        fill: impl FnOnce(&mut Draft) + Send + 'static,
    ) -> Result<Committed, FsError> {
        match self.group.commit(Mutation { n_operations, fill: Box::new(fill) }) {
            Outcome::Done(done) => done,
            Outcome::Panicked(panic) => panic::resume_unwind(panic),
        }
    }

    /// The last transaction id given out.
    pub(crate) fn last_xid(&self) -> Xid {
        self.group.leader().last_xid()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.group.leader().counters
    }

    /// A KVS snapshot with the last transaction id that it shows.
    pub(crate) fn snapshot(&self) -> (KvsSnapshot, Xid) {
        let leader = self.group.leader();
        (KvsSnapshot::take(&self.db), leader.last_xid())
    }

    /// Bytes of extents that were freed in the generation of the moment.
    pub(crate) fn freed_bytes(&self) -> u64 {
        self.group.leader().extents.freed_bytes
    }

    /// Ends a generation: what is freed from now on belongs to the next one. Returns its number.
    pub(crate) fn end_generation(&self) -> u64 {
        let mut leader = self.group.leader();
        let generation = leader.extents.generation;
        leader.extents.generation += 1;
        leader.extents.freed_bytes = 0;
        generation
    }

    /// Makes everything that is committed durable. Threads that come while a sync is under way
    /// share the next one.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        let wanted = self.group.leader().n_batches;
        let written = || {
            let leader = self.group.leader();
            // After a failed sync it is unknown what is on the disk.
            if leader.poisoned { Err(FsError::Poisoned) } else { Ok(leader.n_batches) }
        };
        let sync = || {
            // Without the lead, so that commits go on meanwhile.
            let synced = self.db.sync();
            let mut leader = self.group.leader();
            match synced {
                Ok(floor) => leader.extents.synced(floor),
                Err(_) => leader.poisoned = true,
            }
            synced.map(drop)
        };
        self.syncs.sync(wanted, written, sync)
    }
}

impl ExtentState {
    /// A sync covered everything before a place.
    fn synced(&mut self, floor: Place) {
        if self.unsynced.is_some() {
            self.floor = Some(floor);
        }
        self.unsynced = self.unsynced.filter(|end| floor < *end);
    }

    fn committed(&mut self, committing: Vec<Committing>, freed_bytes: u64) {
        self.freed_bytes += freed_bytes;
        let ends = committing.into_iter().map(Committing::commit);
        self.unsynced = ends.chain(self.unsynced).max();
    }
}

impl Leader {
    fn last_xid(&self) -> Xid {
        Xid::new(self.next_xid.get() - 1)
    }

    /// Writes a batch. Poisoned before and well only after: a panic in between is a failure.
    fn write(&mut self, batch: Batch) -> Result<(), FsError> {
        if std::mem::replace(&mut self.poisoned, true) {
            return Err(FsError::Poisoned);
        }
        self.db.write(batch)?;
        self.poisoned = false;
        Ok(())
    }
}

impl Lead for Leader {
    type Mutation = Mutation;
    type Outcome = Outcome;

    fn write_batch(&mut self, queue: &mut Queue<Self>) {
        let time = self.clock.now();
        let mut batch = Batch::default();
        let mut batch_bytes = 0;
        let mut next_xid = self.next_xid;
        let mut counters = self.counters;
        let mut members: Vec<(Promise<Self>, Committed)> = Vec::new();
        let mut committing = Vec::new();
        let mut freed_bytes = 0;
        for Pending { mutation, promise } in queue.by_ref() {
            // On this thread, whichever thread the mutation came from: the closure knows its
            // content, and only here the id that it gets.
            let draft = match filled(mutation, next_xid, time, self.extents.generation) {
                Ok(draft) => draft,
                Err(panic) => {
                    promise.settle(Outcome::Panicked(panic));
                    continue;
                }
            };
            members.push((promise, Committed { xid: next_xid, time }));
            counters.add(&draft.counters);
            batch_bytes += draft.bytes();
            let n_operations = draft.n_operations();
            let drafted = draft.append_to(&mut batch);
            let n_ids = drafted.next_xid.get() - next_xid.get();
            assert_eq!(n_ids, n_operations, "ids have no gaps");
            next_xid = drafted.next_xid;
            freed_bytes += drafted.freed_bytes;
            committing.extend(drafted.appended.into_iter().map(Appended::into_committing));
            if batch_bytes >= BATCH_BYTES {
                break;
            }
        }
        if members.is_empty() {
            // All of them panicked: a batch of nothing but the totals would be a write for nothing.
            return;
        }
        put_counters(&mut batch, &counters);
        if let Some(floor) = self.extents.floor.take() {
            put_extents_floor(&mut batch, floor);
        }
        match self.write(batch) {
            Ok(()) => {
                assert!(next_xid >= self.next_xid, "transaction ids only ever rise");
                // Only now: a batch that failed has used no id and changed no total.
                self.next_xid = next_xid;
                self.counters = counters;
                self.n_batches += 1;
                self.extents.committed(committing, freed_bytes);
                for (promise, committed) in members {
                    promise.settle(Outcome::Done(Ok(committed)));
                }
            }
            Err(error) => {
                let errors = iter::once(error).chain(iter::repeat_with(|| FsError::Poisoned));
                for ((promise, _), error) in members.into_iter().zip(errors) {
                    promise.settle(Outcome::Done(Err(error)));
                }
            }
        }
    }

    fn abandoned() -> Outcome {
        Outcome::Done(Err(FsError::LeaderPanicked))
    }
}

/// The draft that a mutation fills, or what its closure panicked with. A draft of its own is all
/// that a closure can leave half made.
fn filled(
    mutation: Mutation,
    xid: Xid,
    time: Timestamp,
    generation: u64,
) -> Result<Draft, Box<dyn Any + Send>> {
    let Mutation { n_operations, fill } = mutation;
    panic::catch_unwind(AssertUnwindSafe(|| {
        let mut draft = Draft::new(xid, time);
        draft.generation = generation;
        fill(&mut draft);
        assert_eq!(draft.n_operations(), n_operations, "as many operations as announced");
        draft
    }))
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}
