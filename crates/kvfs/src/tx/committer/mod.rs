//! The one way into the store: mutations wait in a queue, and whoever gets the lead gives all of
//! them consecutive transaction ids and writes one batch.

use std::sync::Arc;

use parking_lot::Mutex;
use tier_log::{LogRecord, Operation};
use tier_types::{Clock, Timestamp, Xid, to_u64};

use crate::counters::Counters;
use crate::db::{Changes, Db, SnapshotView};
use crate::schema::{self, META_COUNTERS, Table};
use crate::{FsError, value};

/// A batch takes no further mutation when it has this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// What a mutation's closure is told and fills in.
pub(crate) struct Draft {
    /// The transaction id of its first operation; the next ones follow.
    pub(crate) xid: Xid,
    /// Time of the commit.
    pub(crate) time: Timestamp,
    pub(crate) operations: Vec<Operation>,
    pub(crate) changes: Changes,
    pub(crate) counters: Counters,
}

/// A change that knows its content but not yet its transaction ids. It says beforehand how many
/// operations it logs: none for what is no operation, such as an eviction.
struct Mutation {
    n_operations: u64,
    fill: Box<dyn FnOnce(&mut Draft) + Send>,
    done: Arc<Mutex<Option<Result<Committed, FsError>>>>,
}

/// A mutation is in the store, though not yet durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Committed {
    /// The transaction id of its first operation.
    pub(crate) xid: Xid,
    pub(crate) time: Timestamp,
}

pub(crate) struct Committer {
    db: Arc<Db>,
    clock: Arc<dyn Clock>,
    queue: Mutex<Vec<Mutation>>,
    leader: Mutex<Leader>,
    synced: Mutex<u64>,
}

struct Leader {
    next_xid: Xid,
    counters: Counters,
    /// Batches written, to tell what a sync covers.
    n_batches: u64,
    poisoned: bool,
}

impl Committer {
    pub(crate) fn new(
        db: Arc<Db>,
        clock: Arc<dyn Clock>,
        next_xid: Xid,
        counters: Counters,
    ) -> Self {
        let leader = Leader { next_xid, counters, n_batches: 0, poisoned: false };
        let (queue, leader) = (Mutex::new(Vec::new()), Mutex::new(leader));
        Self { db, clock, queue, leader, synced: Mutex::new(0) }
    }

    /// Commits a mutation that logs `n_operations`; `fill` must add exactly as many.
    pub(crate) fn commit(
        &self,
        n_operations: u64,
        fill: impl FnOnce(&mut Draft) + Send + 'static,
    ) -> Result<Committed, FsError> {
        let done = Arc::new(Mutex::new(None));
        let mutation = Mutation { n_operations, fill: Box::new(fill), done: Arc::clone(&done) };
        self.queue.lock().push(mutation);
        loop {
            let mut leader = self.leader.lock();
            // Whoever led before may have taken it along.
            if let Some(result) = done.lock().take() {
                return result;
            }
            self.lead(&mut leader);
        }
    }

    /// The last transaction id given out.
    pub(crate) fn last_xid(&self) -> Xid {
        Xid::new(self.leader.lock().next_xid.get() - 1)
    }

    pub(crate) fn counters(&self) -> Counters {
        self.leader.lock().counters
    }

    /// A view of the store with the last transaction id that it shows.
    pub(crate) fn snapshot(&self) -> (SnapshotView, Xid) {
        let leader = self.leader.lock();
        (SnapshotView::take(&self.db), Xid::new(leader.next_xid.get() - 1))
    }

    /// Makes everything that is committed durable. Those who come while a sync is under way
    /// share the next one.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        let wanted = self.leader.lock().n_batches;
        let mut synced = self.synced.lock();
        if *synced >= wanted {
            return Ok(());
        }
        let covered = {
            let leader = self.leader.lock();
            // After a failed sync nobody can say what is on disk.
            if leader.poisoned {
                return Err(FsError::Poisoned);
            }
            leader.n_batches
        };
        if let Err(error) = self.db.sync() {
            self.leader.lock().poisoned = true;
            return Err(error);
        }
        *synced = covered;
        Ok(())
    }

    fn lead(&self, leader: &mut Leader) {
        let mut waiting = std::mem::take(&mut *self.queue.lock()).into_iter();
        while waiting.len() > 0 {
            self.write_batch(leader, &mut waiting);
        }
    }

    fn write_batch(&self, leader: &mut Leader, waiting: &mut std::vec::IntoIter<Mutation>) {
        let time = self.clock.now();
        let mut batch = Changes::default();
        let mut batch_bytes = 0;
        let mut next_xid = leader.next_xid;
        let mut counters = leader.counters;
        let mut members = Vec::new();
        for Mutation { n_operations, fill, done } in waiting.by_ref() {
            let mut draft = Draft {
                xid: next_xid,
                time,
                operations: Vec::new(),
                changes: Changes::default(),
                counters: Counters::default(),
            };
            fill(&mut draft);
            assert_eq!(to_u64(draft.operations.len()), n_operations, "as many as announced");
            for operation in draft.operations {
                let record = LogRecord { xid: next_xid, time, operation };
                batch.put(Table::Log, &schema::xid(next_xid), record.to_bytes());
                next_xid = next_xid.next();
            }
            members.push((done, Committed { xid: draft.xid, time }));
            counters.add(&draft.counters);
            batch_bytes += draft.changes.bytes();
            batch.append(draft.changes);
            if batch_bytes >= BATCH_BYTES {
                break;
            }
        }
        batch.put(Table::Meta, META_COUNTERS, value::counters_to_bytes(&counters));
        let written = if leader.poisoned { Err(FsError::Poisoned) } else { self.db.write(batch) };
        match written {
            Ok(()) => {
                leader.next_xid = next_xid;
                leader.counters = counters;
                leader.n_batches += 1;
                for (done, committed) in members {
                    *done.lock() = Some(Ok(committed));
                }
            }
            Err(error) => {
                // Whether the batch is in the store is not known: nothing may follow it.
                leader.poisoned = true;
                let mut first = Some(error);
                for (done, _) in members {
                    *done.lock() = Some(Err(first.take().unwrap_or(FsError::Poisoned)));
                }
            }
        }
    }
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}
