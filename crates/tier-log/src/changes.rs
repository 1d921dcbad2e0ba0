//! Which inodes a range of transactions changed, and what of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;

use tier_types::{FileUpdate, Ino, LogService, XidRange};

use crate::fold::{Folded, Folder};
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
        Self { n_in_memory_max: 100_000, spill_dir: spill_dir.into() }
    }
}

/// The net changes of a range: an iterator over one [`FileUpdate`] for each inode that changed,
/// in order of inode numbers. Its memory is bounded by the options, not by the range.
#[derive(Debug)]
pub struct NetChanges {
    runs: Vec<Run>,
    /// The first inode of each run that is not at its end, and the run's number: smallest first,
    /// and of the same inode the oldest run.
    heads: BinaryHeap<Reverse<(Ino, usize)>>,
}

impl NetChanges {
    /// Reads the published segments of `range`.
    pub fn of_range(
        log: &dyn LogService,
        range: XidRange,
        options: &NetChangesOptions,
    ) -> Result<Self, LogError> {
        let mut folder = Folder::default();
        let mut runs = Vec::new();
        read_range(log, range, |header, record| {
            folder.add(&record, header.chunk_bytes);
            if folder.n_held() >= options.n_in_memory_max.max(1) {
                runs.push(Run::spilled(SpilledRun::write(&options.spill_dir, &folder.take())?)?);
            }
            Ok::<(), LogError>(())
        })?;
        runs.push(Run::in_memory(folder.take()));
        let heads = runs.iter().enumerate();
        let heads = heads.filter_map(|(number, run)| Some(Reverse((run.head.as_ref()?.0, number))));
        Ok(Self { heads: heads.collect(), runs })
    }

    /// The smallest inode's changes, from all runs, oldest first.
    fn step(&mut self) -> Result<Option<(Ino, Folded)>, LogError> {
        let Some(Reverse((ino, _))) = self.heads.peek().copied() else { return Ok(None) };
        let mut all: Option<Folded> = None;
        while let Some(Reverse((_, number))) = self.heads.peek().filter(|head| head.0.0 == ino) {
            let number = *number;
            self.heads.pop();
            let Some(run) = self.runs.get_mut(number) else { continue };
            if let Some((_, folded)) = run.advance()? {
                match &mut all {
                    Some(all) => all.then(&folded),
                    None => all = Some(folded),
                }
            }
            let next = run.head.as_ref().map(|(ino, _)| Reverse((*ino, number)));
            self.heads.extend(next);
        }
        Ok(Some((ino, all.unwrap_or_default())))
    }
}

impl Iterator for NetChanges {
    type Item = Result<FileUpdate, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(Some((ino, folded))) => {
                    if let Some(update) = folded.into_update(ino) {
                        return Some(Ok(update));
                    }
                }
                Ok(None) => return None,
                Err(error) => {
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
    head: Option<(Ino, Folded)>,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Spilled(SpilledRun),
    InMemory(std::vec::IntoIter<(Ino, Folded)>),
}

impl Run {
    fn spilled(mut run: SpilledRun) -> Result<Self, LogError> {
        Ok(Self { head: run.next()?, rest: Rest::Spilled(run) })
    }

    fn in_memory(inodes: Vec<(Ino, Folded)>) -> Self {
        let mut rest = inodes.into_iter();
        Self { head: rest.next(), rest: Rest::InMemory(rest) }
    }

    fn advance(&mut self) -> Result<Option<(Ino, Folded)>, LogError> {
        let next = match &mut self.rest {
            Rest::Spilled(run) => run.next()?,
            Rest::InMemory(rest) => rest.next(),
        };
        Ok(std::mem::replace(&mut self.head, next))
    }
}
