//! Net changes: which inodes a range of transactions changed, and what of them.
//!
//! A range may hold a million operations that come to little: a file that is written a hundred
//! times, a temporary file that is made and removed. What the persister and the evicter need is one
//! update for each inode that changed, in order of inode numbers. This module computes it, in
//! memory that is bounded by its options and not by the range, as an external merge sort does:
//!
//! 1. **Fold.** Records are read in order and folded into one `NetChange` for each inode (see
//!    `fold.rs`). When inodes and touched ranges together reach the limit, the table is written out
//!    sorted, as a *run*, and folding begins afresh.
//! 2. **Spill.** A run lies in a temporary file without a name (see `spill.rs`). Everything in one
//!    run is older than anything in the next.
//! 3. **Pass.** Each run is an open file, of which a process has few. When [`FAN_IN`] runs of one
//!    generation are there, which are neighbours in age, they are merged into one of the next. So
//!    there are fewer than that many of each generation, and as many generations as the logarithm
//!    of the number of runs: some hundred files for more inodes than a disk holds.
//! 4. **Merge.** What was folded last stays in memory as the last run. A heap holds the first inode
//!    of every run. The smallest inode is taken from all runs that have it, oldest first, and its
//!    changes are joined.
//!
//! Where the runs were cut makes no difference to which inodes come out, nor to what became of
//! each. Inode numbers are never reused, so that an inode is made at most once and gone at most
//! once, and later; touched ranges are a union; and joining is associative. Of one inode at most so
//! many ranges are kept; beyond that the nearest ones become one, and more is touched than was. A
//! property test compares runs of one record, merged two at a time, with a naive fold: without the
//! limit they are equal, with it nothing is left out.
//!
//! **Moot operations vanish here, and only here.** An inode that was made and is gone within the
//! range leaves nothing, and a chunk that was written twice is touched once. The segments stay as
//! they are: they are the history of what was deleted and when, and the same records are folded
//! again over other ranges. If persisting one range failed, the next one is the union of both, and
//! a file that was made in the first and removed in the second becomes moot only then.
//!
//! An inode that is gone but was made before the range is an update of its own: the archive holds
//! it and must be told.

use std::path::PathBuf;

use tier_types::{FileUpdate, LogReader, PortError, XidRange};

use crate::fold::{Accumulator, InodeChange};
use crate::merge::{Items, Merge};
use crate::reader::{OpenedSegment, read_segments};
use crate::spill::{RunWriter, SpilledRun};
use crate::{LogError, LogRecord, SegmentHeader, read_range};

/// Runs of one generation that are merged into one of the next.
const FAN_IN: usize = 16;

/// Ranges of one inode: they are in memory together, here and in the persister.
const N_RANGES_MAX: usize = 1 << 14;

/// How net changes are computed.
#[derive(Clone, Debug)]
pub struct NetChangesOptions {
    /// Inodes and touched ranges held in memory before a sorted run goes to a temporary file; at
    /// least 1.
    pub n_in_memory_max: usize,
    /// Where the temporary files are.
    pub spill_dir: PathBuf,
    /// Sorted runs that are merged at a time, each from an open file; at least 2.
    pub fan_in: usize,
    /// Touched ranges that are kept of one inode; at least 1. Beyond that the nearest ones are
    /// joined, with what lies between them.
    pub n_ranges_max: usize,
}

impl NetChangesOptions {
    /// Settings for most: about 20 MiB of memory, temporary files in `spill_dir`.
    pub fn new(spill_dir: impl Into<PathBuf>) -> Self {
        Self {
            // At about 200 bytes for an inode with its ranges.
            n_in_memory_max: 100_000,
            spill_dir: spill_dir.into(),
            fan_in: FAN_IN,
            n_ranges_max: N_RANGES_MAX,
        }
    }
}

/// The net changes of a range: an iterator over one [`FileUpdate`] for each inode that changed, in
/// order of inode numbers. Its memory is bounded by the options, not by the range. After an error
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
pub struct NetChanges(Merge);

/// Runs that were spilled, oldest first, and how often each was merged.
#[derive(Debug, Default)]
struct Spilled(Vec<Generation>);

#[derive(Debug)]
struct Generation {
    /// Passes that made it: of the same number are at most as many as are merged at a time.
    n_passes: u32,
    run: SpilledRun,
}

/// Takes one record.
type Visit<'a> = &'a mut dyn FnMut(SegmentHeader, LogRecord) -> Result<(), LogError>;

impl NetChanges {
    /// Reads the published segments of `range`.
    ///
    /// # Panics
    /// If the options allow nothing in memory, no two runs to be merged, or no range.
    pub fn of_range(
        log: &dyn LogReader,
        range: XidRange,
        options: &NetChangesOptions,
    ) -> Result<Self, LogError> {
        Self::fold(options, |visit| read_range(log, range, visit))
    }

    /// Reads segments that come in order, from an archive for instance.
    ///
    /// # Panics
    /// As [`of_range`](Self::of_range).
    pub fn of_segments(
        segments: impl IntoIterator<Item = Result<OpenedSegment, PortError>>,
        range: XidRange,
        options: &NetChangesOptions,
    ) -> Result<Self, LogError> {
        Self::fold(options, |visit| read_segments(segments, range, visit))
    }

    fn fold(
        options: &NetChangesOptions,
        read: impl FnOnce(Visit<'_>) -> Result<(), LogError>,
    ) -> Result<Self, LogError> {
        assert!(options.n_in_memory_max > 0, "at least one inode is held in memory");
        assert!(options.fan_in > 1, "a pass makes one run of several");
        assert!(options.n_ranges_max > 0, "at least one range of an inode is kept");
        let mut accumulator = Accumulator::new(options.n_ranges_max);
        let mut spilled = Spilled::default();
        read(&mut |header, record| {
            accumulator.add(&record, header.chunk_bytes);
            // After the record: one operation adds a few inodes and a range, and goes beyond the
            // limit by no more than that.
            if accumulator.n_held() >= options.n_in_memory_max {
                spilled.add(&accumulator.take(), options)?;
            }
            Ok::<(), LogError>(())
        })?;
        let older = spilled.0.into_iter().map(|generation| Items::Spilled(generation.run));
        // The newest run. It may be empty.
        let newest = Items::InMemory(accumulator.take().into_iter());
        Ok(Self(Merge::start(older.chain([newest]), options.n_ranges_max)?))
    }
}

impl Spilled {
    /// Writes a run, and merges those of which there are enough.
    fn add(&mut self, inodes: &[InodeChange], options: &NetChangesOptions) -> Result<(), LogError> {
        let mut writer = RunWriter::create(&options.spill_dir)?;
        for inode in inodes {
            writer.push(inode)?;
        }
        self.0.push(Generation { n_passes: 0, run: writer.finish()? });
        while let Some(n_passes) = self.due(options.fan_in) {
            let first = self.0.len() - options.fan_in;
            let merged = self.0.drain(first..).map(|generation| Items::Spilled(generation.run));
            let mut merge = Merge::start(merged, options.n_ranges_max)?;
            let mut writer = RunWriter::create(&options.spill_dir)?;
            while let Some(inode) = merge.step()? {
                writer.push(&inode)?;
            }
            self.0.push(Generation { n_passes: n_passes + 1, run: writer.finish()? });
        }
        Ok(())
    }

    /// How often the newest runs were merged, if there are enough of them for the next pass.
    fn due(&self, fan_in: usize) -> Option<u32> {
        let newest = self.0.last()?.n_passes;
        let n_same = self.0.iter().rev().take_while(|run| run.n_passes == newest).count();
        (n_same >= fan_in).then_some(newest)
    }
}

impl Iterator for NetChanges {
    type Item = Result<FileUpdate, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.step() {
                Ok(Some(InodeChange { ino, change })) => {
                    // A moot inode is passed over in a loop: a recursion would go as deep as there
                    // are of them.
                    if let Some(update) = change.into_update(ino) {
                        return Some(Ok(update));
                    }
                }
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tier_types::Ino;

    use super::*;
    use crate::fold::NetChange;

    #[test]
    fn few_runs_are_open_however_many_were_spilled() {
        let dir = tempfile::tempdir().unwrap();
        let options = NetChangesOptions { fan_in: 4, ..NetChangesOptions::new(dir.path()) };
        let mut spilled = Spilled::default();
        for number in 1..=1000 {
            let change = NetChange { created: true, ..NetChange::default() };
            let inode = InodeChange { ino: Ino::new(number), change };
            spilled.add(&[inode], &options).unwrap();
            assert!(spilled.0.len() <= 3 * 5, "3 of each of 5 generations: 4 to the 5th is 1024");
            assert!(spilled.0.is_sorted_by(|a, b| a.n_passes >= b.n_passes), "oldest first");
        }
        let runs = spilled.0.into_iter().map(|generation| Items::Spilled(generation.run));
        let mut merge = Merge::start(runs, 1).unwrap();
        for number in 1..=1000 {
            assert_eq!(merge.step().unwrap().unwrap().ino, Ino::new(number));
        }
        assert_eq!(merge.step().unwrap(), None);
    }
}
