//! The runs of what changed of a file, read from its chunk map page by page.
//!
//! A page is what the snapshot gives at a time, so that the map of a large file is never in memory
//! as a whole. The map is total: one that is empty, or leaves chunks out, is an error, because it
//! would silently lose what they hold. A reading that has not ended can be tried out on what is
//! left of the map, without taking any of it ([`TouchedRuns::check`]).

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ErrorKind, Ino, PortError, SnapshotReader};

use crate::write::limits::RUNS_PER_READ;

/// Adjacent runs of a chunk map.
pub(super) struct MapRuns {
    pub(super) runs: Vec<ChunkRun>,
    /// The chunk after the last of them.
    pub(super) end: ChunkNo,
}

impl MapRuns {
    /// The first runs from a chunk on.
    pub(super) fn read(
        reader: &mut dyn SnapshotReader,
        ino: Ino,
        from: ChunkNo,
    ) -> Result<Self, PortError> {
        Self::checked(ino, from, reader.chunk_runs(ino, from, RUNS_PER_READ)?)
    }

    /// Runs that were read from a chunk on.
    pub(super) fn checked(ino: Ino, from: ChunkNo, runs: Vec<ChunkRun>) -> Result<Self, PortError> {
        let mut end = from;
        for run in &runs {
            if run.chunks.start() != end {
                return Err(gap(ino, end));
            }
            end = run.chunks.end();
        }
        if end == from {
            return Err(gap(ino, end));
        }
        Ok(Self { runs, end })
    }
}

fn gap(ino: Ino, at: ChunkNo) -> PortError {
    let message = format!("the chunk map of inode {ino} says nothing of chunk {at}");
    PortError::new(ErrorKind::Damaged, message)
}

/// A place in the runs of some ranges of a file.
#[derive(Clone)]
pub(super) struct TouchedRuns<'a> {
    ino: Ino,
    /// What is left of the range that is being read.
    rest: Option<ChunkRange>,
    later: &'a [ChunkRange],
}

impl<'a> TouchedRuns<'a> {
    pub(super) fn new(ino: Ino, touched: &'a [ChunkRange]) -> Self {
        Self { ino, rest: None, later: touched }
    }

    /// The next runs, cut at the ends of the range in which they lie; `None` at the end.
    pub(super) fn next_page(
        &mut self,
        reader: &mut dyn SnapshotReader,
    ) -> Result<Option<Vec<ChunkRun>>, PortError> {
        let range = match (self.rest, self.later.split_first()) {
            (Some(rest), _) => rest,
            (None, Some((next, later))) => {
                self.later = later;
                *next
            }
            (None, None) => return Ok(None),
        };
        let MapRuns { runs, end } = MapRuns::read(reader, self.ino, range.start())?;
        self.rest = ChunkRange::new(end, range.end());
        // The last run may go on behind the range.
        let cut = |run: ChunkRun| {
            let chunks = run.chunks.intersection(range)?;
            Some(ChunkRun { chunks, ..run })
        };
        Ok(Some(runs.into_iter().filter_map(cut).collect()))
    }

    /// Whether all that is left can be read, now.
    pub(super) fn check(&self, reader: &mut dyn SnapshotReader) -> Result<(), PortError> {
        let mut rest = self.clone();
        while rest.next_page(reader)?.is_some() {}
        Ok(())
    }
}
