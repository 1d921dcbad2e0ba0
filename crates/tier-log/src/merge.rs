//! The merge of sorted runs of net changes: of each inode what all runs have of it, joined.
//!
//! A heap holds the first inode of every run, smallest first, and of the same inode the oldest run
//! first, because changes are joined in the order in which they were made. One item of each run is
//! in memory. The same merge makes one run of several when there are too many, and the net changes
//! of a range when all is folded.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tier_types::Ino;

use crate::LogError;
use crate::fold::{InodeChange, NetChange};
use crate::spill::SpilledRun;

/// Sorted runs, merged step by step. After an error it is at its end.
#[derive(Debug)]
pub(crate) struct Merge {
    /// Oldest first.
    runs: Vec<Run>,
    /// The first inode of each run that is not at its end: smallest first, and of the same inode
    /// the oldest run.
    heads: BinaryHeap<Reverse<Head>>,
    /// Ranges that are kept of one inode.
    n_ranges_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Head {
    ino: Ino,
    run_idx: usize,
}

impl Merge {
    /// Takes the runs, oldest first.
    pub(crate) fn start(
        runs: impl IntoIterator<Item = Items>,
        n_ranges_max: usize,
    ) -> Result<Self, LogError> {
        let runs = runs.into_iter().map(Run::start).collect::<Result<Vec<_>, _>>()?;
        let heads = runs.iter().enumerate().filter_map(|(run_idx, run)| run.head(run_idx));
        // A `BinaryHeap` gives its largest item first.
        Ok(Self { heads: heads.map(Reverse).collect(), runs, n_ranges_max })
    }

    /// The smallest inode with its changes from all runs, oldest first.
    pub(crate) fn step(&mut self) -> Result<Option<InodeChange>, LogError> {
        let merged = self.merge_next();
        if merged.is_err() {
            // What was taken from the runs is lost: the merge must not go on.
            self.heads.clear();
        }
        merged
    }

    fn merge_next(&mut self) -> Result<Option<InodeChange>, LogError> {
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
            merged.then(&self.advance(same)?, self.n_ranges_max);
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

/// A sorted sequence with its next item in view.
#[derive(Debug)]
struct Run {
    next: Option<InodeChange>,
    rest: Items,
}

/// A sorted sequence.
#[derive(Debug)]
pub(crate) enum Items {
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
