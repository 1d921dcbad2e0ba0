//! Net changes: which inodes a range of transactions changed, and what of them.
//!
//! A range may hold a million operations that come to little: a file that is written a hundred
//! times, a temporary file that is made and removed. What the persister and the evicter need is one
//! update for each inode that changed, in order of inode numbers. This module computes it, in memory
//! that is bounded by its options and not by the range, as an external merge sort does:
//!
//! 1. **Fold.** Records are read in order and folded into one [`NetChange`] for each inode (see
//!    `fold.rs`). When inodes and touched ranges together reach the limit, the table is written out
//!    sorted, as a *run*, and folding begins afresh.
//! 2. **Spill.** A run lies in a temporary file without a name (see `spill.rs`). What was folded
//!    last stays in memory as the last run. Runs are numbered by age: everything in one is older
//!    than anything in the next.
//! 3. **Merge.** A heap holds the first inode of every run. The smallest inode is taken from all
//!    runs that have it, oldest first, and its changes are joined.
//!
//! Where the runs were cut makes no difference to the outcome. Inode numbers are never reused, so
//! that an inode is made at most once and gone at most once, and later; touched ranges are a union;
//! and joining is associative. A property test compares runs of one record with a single run.
//!
//! **Moot operations vanish here, and only here.** An inode that was made and is gone within the
//! range leaves nothing, and a chunk that was written twice is touched once. The segments stay as
//! they are: they are the history of what was deleted and when, and the same records are folded
//! again over other ranges. If persisting one range failed, the next one is the union of both, and
//! a file that was made in the first and removed in the second becomes moot only then.
//!
//! An inode that is gone but was made before the range is an update of its own: the archive holds
//! it and must be told.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;

use tier_types::{FileUpdate, Ino, LogService, XidRange};

use crate::fold::{Accumulator, InodeChange, NetChange};
use crate::spill::SpilledRun;
use crate::{LogError, read_range};

/// How net changes are computed.
#[derive(Clone, Debug)]
pub struct NetChangesOptions {
    /// Inodes and touched ranges held in memory before a sorted run goes to a temporary file; at
    /// least 1.
    pub n_in_memory_max: usize,
    /// Where the temporary files are.
    pub spill_dir: PathBuf,
}

impl NetChangesOptions {
    /// Settings for most: about 20 MiB of memory, temporary files in `spill_dir`.
    pub fn new(spill_dir: impl Into<PathBuf>) -> Self {
        // At about 200 bytes for an inode with its ranges.
        Self { n_in_memory_max: 100_000, spill_dir: spill_dir.into() }
    }
}

/// The net changes of a range: an iterator over one [`FileUpdate`] for each inode that changed,
/// in order of inode numbers. Its memory is bounded by the options, not by the range. After an error
/// it ends.
///
/// ```
/// use tier_log::{NetChanges, NetChangesOptions, Operation};
/// use tier_testkit::FakeLog;
/// use tier_types::{Change, ChunkNo, ChunkRange, Ino, LogService};
///
/// let log = FakeLog::new(4096);
/// let (kept, moot) = (Ino::new(10), Ino::new(11));
/// log.append(Operation::Create { ino: moot, link: None });
/// for _ in 0..100 {
///     log.append(Operation::Write { ino: kept, offset: 4096, len: 10 });
/// }
/// log.append(Operation::Gone { ino: moot });
/// let range = log.publish()?.expect("something was logged").range;
///
/// let options = NetChangesOptions::new(std::env::temp_dir());
/// let updates = NetChanges::of_range(&log, range, &options)?.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(updates.len(), 1, "what came and went leaves nothing");
/// let touched = ChunkRange::one(ChunkNo::new(1)).expect("one chunk");
/// assert_eq!((updates[0].ino, &updates[0].change), (kept, &Change::Touched(vec![touched])));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NetChanges {
    /// Oldest first.
    runs: Vec<Run>,
    /// The first inode of each run that is not at its end: smallest first, and of the same inode
    /// the oldest run.
    heads: BinaryHeap<Reverse<Head>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Head {
    ino: Ino,
    run_idx: usize,
}

impl NetChanges {
    /// Reads the published segments of `range`.
    ///
    /// # Panics
    /// If the options allow nothing in memory.
    pub fn of_range(
        log: &dyn LogService,
        range: XidRange,
        options: &NetChangesOptions,
    ) -> Result<Self, LogError> {
        assert!(options.n_in_memory_max > 0, "at least one inode is held in memory");
        let mut accumulator = Accumulator::default();
        let mut runs = Vec::new();
        read_range(log, range, |header, record| {
            accumulator.add(&record, header.chunk_bytes);
            // After the record: one operation adds a few inodes and a range, and goes beyond the
            // limit by no more than that.
            if accumulator.n_held() >= options.n_in_memory_max {
                let spilled = SpilledRun::write(&options.spill_dir, &accumulator.take())?;
                runs.push(Run::start(Items::Spilled(spilled))?);
            }
            Ok::<(), LogError>(())
        })?;
        // The newest run. It may be empty.
        runs.push(Run::start(Items::InMemory(accumulator.take().into_iter()))?);
        let heads = runs.iter().enumerate().filter_map(|(run_idx, run)| run.head(run_idx));
        // A `BinaryHeap` gives its largest item first.
        Ok(Self { heads: heads.map(Reverse).collect(), runs })
    }

    /// The smallest inode with its changes from all runs, oldest first.
    fn step(&mut self) -> Result<Option<InodeChange>, LogError> {
        let Some(Reverse(first)) = self.heads.pop() else { return Ok(None) };
        let mut merged = self.advance(first)?;
        while let Some(Reverse(same)) = self.heads.peek().copied()
            && same.ino == first.ino
        {
            assert!(
                same.run_idx > first.run_idx,
                "an inode is once in a run, and older runs first"
            );
            self.heads.pop();
            merged.then(&self.advance(same)?);
        }
        Ok(Some(InodeChange { ino: first.ino, change: merged }))
    }

    /// Takes the item at a head, which was popped, and puts the run's next one in its place.
    fn advance(&mut self, head: Head) -> Result<NetChange, LogError> {
        #[expect(clippy::indexing_slicing, reason = "heads are made from the runs")]
        let run = &mut self.runs[head.run_idx];
        let taken = run.advance()?;
        assert_eq!(taken.ino, head.ino, "the heap shows the runs as they are");
        self.heads.extend(run.head(head.run_idx).map(Reverse));
        Ok(taken.change)
    }
}

impl Iterator for NetChanges {
    type Item = Result<FileUpdate, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(Some(InodeChange { ino, change })) => {
                    // A moot inode is passed over in a loop: a recursion would go as deep as there
                    // are of them.
                    if let Some(update) = change.into_update(ino) {
                        return Some(Ok(update));
                    }
                }
                Ok(None) => return None,
                Err(error) => {
                    // What was taken from the runs is lost: the iterator must not go on.
                    self.heads.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

/// A sorted sequence with its next item in view.
#[derive(Debug)]
struct Run {
    next: Option<InodeChange>,
    rest: Items,
}

#[derive(Debug)]
enum Items {
    Spilled(SpilledRun),
    InMemory(std::vec::IntoIter<InodeChange>),
}

impl Run {
    fn start(mut items: Items) -> Result<Self, LogError> {
        Ok(Self { next: items.next()?, rest: items })
    }

    fn head(&self, run_idx: usize) -> Option<Head> {
        self.next.as_ref().map(|next| Head { ino: next.ino, run_idx })
    }

    /// Takes the item in view, which must be there.
    #[expect(clippy::expect_used, reason = "only a run with an item in view has a head")]
    fn advance(&mut self) -> Result<InodeChange, LogError> {
        // Read before the item in view is taken, so that an error does not take that with it.
        let next = self.rest.next()?;
        let taken = std::mem::replace(&mut self.next, next).expect("a run that is not at its end");
        Ok(taken)
    }
}

impl Items {
    fn next(&mut self) -> Result<Option<InodeChange>, LogError> {
        match self {
            Self::Spilled(run) => run.next(),
            Self::InMemory(rest) => Ok(rest.next()),
        }
    }
}
