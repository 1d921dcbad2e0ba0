//! Changes of a chunk map: a window over the runs of a range, and what takes their place.
//!
//! A chunk is in one of four states:
//!
//! ```text
//!              write            evict
//!      Hole ---------> Hot -------------> Cold
//!                       ^                 |  ^
//!                 write |          recall |  | evict
//!                       |                 v  |
//!                       '--------------- Warm
//!
//!      Hot, Warm, Cold ----- punch, cut ----> Hole
//!      Cold ---- write of the whole chunk --> Hot
//! ```
//!
//! `Hole` reads as zeros. `Hot` data is in the store and perhaps only there. `Cold` data is in the
//! archive, and a detour stands for it here: the run itself, whose data xid says which version.
//! `Warm` data was recalled and not changed since: it is in both, and evicting it again costs
//! nothing. A write in part to cold chunks recalls them first (see `ops::change`), so that there is
//! no way from `Cold` to `Hot` that keeps some of the bytes but the one through `Warm`.
//!
//! Every change of content (write, punch, cut) gives the chunk the xid of its transaction as data
//! xid. Eviction and recall change where the bytes are and not what they are: they keep it, are no
//! operations, and are conditional on it. A chunk whose data xid moved on meanwhile is left alone;
//! this is the whole of the concurrency control between tiering and writers.
//!
//! The map of an inode is stored as runs: a row for the first chunk of each, with state and data
//! xid, which reaches to the next row. The map is total (every chunk lies in a run, the last one
//! ends at [`ChunkNo::END`]) and minimal (no run goes on as the one before it).
//! [`MapWindow::replace`] keeps both: it deletes the rows that start in the range, writes those of
//! the new runs, puts the end of the range down as a start of what lies behind it, and leaves every
//! row out that would repeat the run before it. For that the window holds what lies in the range
//! and one chunk on either side.
//!
//! The sums (resident and cold bytes, in all and by inode) change in the same draft by the bytes
//! that each run has up to the end of the file, before and after. Growth counts too: a file that
//! ends within a resident chunk has more resident bytes when it grows ([`MapWindow::grow`]).

#[cfg(test)]
mod tests;

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Ino};

use super::Draft;
use crate::FsError;
use crate::store::extents::ChunkExtent;
use crate::store::{RunState, StoreReader};

/// More rows than this are deleted as a range.
const N_DELETES_MAX: usize = 64;

/// What must be known of a map to replace a range of it.
#[derive(Clone, Debug)]
pub(crate) struct MapWindow {
    ino: Ino,
    range: ChunkRange,
    /// The runs that lie in the range, cut at its ends.
    runs: Vec<ChunkRun>,
    /// The chunk before the range; `None` at the start of the address space.
    before: Option<RunState>,
    /// The chunk after the range; `None` at the end of the address space.
    after: Option<RunState>,
    size: FileSize,
    /// Bytes of the whole file that are in the store.
    resident_bytes: u64,
    /// The state of the chunk in which the file ends, if it ends within one.
    end_state: ChunkState,
}

/// The size of a file before a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileSize {
    pub(crate) bytes: u64,
    pub(crate) chunk_bytes: u32,
}

impl FileSize {
    /// The chunk in which the file ends.
    pub(crate) fn end_chunk(self) -> ChunkNo {
        ChunkNo::new(self.bytes / u64::from(self.chunk_bytes))
    }
}

impl MapWindow {
    pub(crate) fn load(
        reader: StoreReader<'_>,
        ino: Ino,
        range: ChunkRange,
        size: FileSize,
    ) -> Result<Self, FsError> {
        let end_state = reader.run_at(ino, size.end_chunk())?.state;
        let before = match range.start().get().checked_sub(1) {
            Some(chunk) => Some(reader.run_at(ino, ChunkNo::new(chunk))?),
            None => None,
        };
        let after = match range.end() {
            ChunkNo::END => None,
            end => Some(reader.run_at(ino, end)?),
        };
        let runs = reader.runs_in(ino, range)?;
        assert!(fills(&runs, range), "a map is total: {runs:?} in {range:?}");
        let resident_bytes = reader.resident_bytes(ino)?;
        Ok(Self { ino, range, runs, before, after, size, resident_bytes, end_state })
    }

    /// Whose map it is.
    pub(crate) fn ino(&self) -> Ino {
        self.ino
    }

    /// The runs that lie in the range, cut at its ends: adjacent, and all of the range.
    pub(crate) fn runs(&self) -> &[ChunkRun] {
        &self.runs
    }

    /// The extents that the rows of resident chunks refer to.
    pub(crate) fn extents(
        &self,
        reader: StoreReader<'_>,
        within: ChunkRange,
    ) -> Result<Vec<ChunkExtent>, FsError> {
        let mut extents = Vec::new();
        for run in self.runs.iter().filter(|run| is_resident(run)) {
            if let Some(chunks) = run.chunks.intersection(within) {
                extents.extend(reader.file_extents(self.ino, chunks)?);
            }
        }
        Ok(extents)
    }

    /// Writes how many bytes of the file are in the store after all changes of a draft, which
    /// concern this file alone.
    pub(crate) fn put_resident(&self, draft: &mut Draft) {
        let delta = draft.counters.resident_bytes;
        if delta != 0 {
            // A sum that was too small before can only come from damage, which the check finds.
            let bytes = self.resident_bytes.saturating_add_signed(delta);
            draft.put_resident(self.ino, bytes);
        }
    }

    /// Counts what a file gains that grows beyond a chunk in which it ended, as far as that chunk
    /// is not replaced.
    pub(crate) fn grow(&self, new_bytes: u64, replaced: Option<ChunkRange>, draft: &mut Draft) {
        let end_chunk = self.size.end_chunk();
        let covered = replaced.is_some_and(|range| range.contains(end_chunk));
        if let Some(chunk) = ChunkRange::one(end_chunk).filter(|_| !covered) {
            let bytes = |size| chunk.len_bytes(self.size.chunk_bytes, size);
            let grown = bytes(new_bytes).saturating_sub(bytes(self.size.bytes));
            draft.counters.gain(self.end_state, grown);
        }
    }

    /// Takes all runs off the count.
    pub(crate) fn uncount(&self, draft: &mut Draft) {
        let FileSize { bytes, chunk_bytes } = self.size;
        for run in &self.runs {
            draft.counters.lose(run.state, run.chunks.len_bytes(chunk_bytes, bytes));
        }
    }

    /// Puts new runs in place of the old ones, in a file that now has `new_bytes`. They are
    /// adjacent and fill the range.
    pub(crate) fn replace(&self, new: &[ChunkRun], new_bytes: u64, draft: &mut Draft) {
        assert!(fills(new, self.range), "the runs of {new:?} fill {:?}", self.range);
        // Off with the old sizes, on with the new ones: what a run counts depends on where the file
        // ends, before and after.
        self.uncount(draft);
        for run in new {
            let bytes = run.chunks.len_bytes(self.size.chunk_bytes, new_bytes);
            draft.counters.gain(run.state, bytes);
        }
        self.grow(new_bytes, Some(self.range), draft);
        if self.runs.len() > N_DELETES_MAX {
            draft.delete_runs(self.ino, self.range);
        } else {
            for run in &self.runs {
                draft.delete_run(self.ino, run.chunks.start());
            }
        }
        // The run behind the range may have started in it: then its row was deleted above, and the
        // end of the range is where it starts now.
        let mut last = self.before;
        let rest = self.after.map(|state| (self.range.end(), state));
        let starts = new.iter().map(|run| (run.chunks.start(), state_of(run)));
        for (start, state) in starts.chain(rest) {
            // A run that goes on as the one before it has no row of its own.
            if last == Some(state) {
                draft.delete_run(self.ino, start);
            } else {
                draft.put_run(self.ino, start, state);
            }
            last = Some(state);
        }
    }

    /// Puts one run in place of all.
    pub(crate) fn set(&self, state: ChunkState, new_bytes: u64, draft: &mut Draft) {
        let data_xid = draft.xid;
        self.replace(&[ChunkRun { chunks: self.range, state, data_xid }], new_bytes, draft);
    }

    /// Puts another state in place of that of the runs that `changes` says, and leaves everything
    /// else as it is: their data stays the same version, wherever it is.
    pub(crate) fn set_state(
        &self,
        changes: impl Fn(&ChunkRun) -> bool,
        state: ChunkState,
        draft: &mut Draft,
    ) {
        let changed = |run: &ChunkRun| if changes(run) { ChunkRun { state, ..*run } } else { *run };
        let new: Vec<_> = self.runs.iter().map(changed).collect();
        self.replace(&new, self.size.bytes, draft);
    }

    /// Deletes the rows of the whole map of an inode that is deleted, and its chunks with the
    /// extents that they refer to.
    pub(crate) fn delete(&self, extents: &[ChunkExtent], draft: &mut Draft) {
        assert_eq!(self.range, ChunkRange::ALL, "a window over the whole map");
        draft.free(extents);
        self.delete_chunks(ChunkRange::ALL, draft);
        self.uncount(draft);
        for run in &self.runs {
            draft.delete_run(self.ino, run.chunks.start());
        }
    }

    /// Deletes the chunks that are in the store. The extents of their rows are freed apart.
    pub(crate) fn delete_chunks(&self, within: ChunkRange, draft: &mut Draft) {
        for run in &self.runs {
            let chunks = run.chunks.intersection(within).filter(|_| is_resident(run));
            if let Some(chunks) = chunks {
                draft.delete_chunks(self.ino, chunks, &[]);
            }
        }
    }
}

fn is_resident(run: &ChunkRun) -> bool {
    matches!(run.state, ChunkState::Hot | ChunkState::Warm)
}

fn state_of(run: &ChunkRun) -> RunState {
    RunState { state: run.state, data_xid: run.data_xid }
}

/// Whether runs are adjacent and fill a range.
fn fills(runs: &[ChunkRun], range: ChunkRange) -> bool {
    let end = runs
        .iter()
        .try_fold(range.start(), |at, run| (run.chunks.start() == at).then_some(run.chunks.end()));
    end == Some(range.end())
}
