//! Changes of a chunk map: a window over the runs of a range, and what takes their place.
//!
//! A chunk is in one of five states:
//!
//! ```text
//!              write            evict
//!      Hole ---------> Hot -------------> Cold
//!                       ^                 |  ^
//!                 write |          recall |  | evict
//!                       |                 v  |
//!                       '--------------- Warm
//!
//!      Hot, Warm, Cold, Lost ----- punch, cut ----> Hole
//!      Cold, Lost ---- write of the whole chunk --> Hot
//! ```
//!
//! `Hole` reads as zeros. `Hot` data is in the store and perhaps only there. `Cold` data is in the
//! archive, and a detour stands for it here: the run itself, whose data xid says which version.
//! `Warm` data was recalled and not changed since: it is in both, and evicting it again costs
//! nothing. A write in part to cold chunks recalls them first (see `ops::change`), so that there is
//! no way from `Cold` to `Hot` that keeps some of the bytes but the one through `Warm`. `Lost` data
//! is nowhere, and a restore brought it: it could not be read when it was persisted. It reads as an
//! error, and every change that would keep some of its bytes is one as well.
//!
//! Every change of content (write, punch, cut) gives the chunk the xid of its transaction as data
//! xid. Eviction and recall change where the bytes are and not what they are: they keep it, are no
//! operations, and are conditional on it. A chunk whose data xid moved on meanwhile is left alone;
//! this is the whole of the concurrency control between tiering and writers.
//!
//! The map of an inode is stored as runs: a row for the first chunk of each, with state and data
//! xid, which reaches to the next row. The map is total: every chunk lies in a run, the last one
//! ends at [`ChunkNo::END`]. [`MapWindow::replace`] keeps it so: for each place at which a run is
//! stored or is to start it writes a row or deletes one, and it puts the end of the range down as a
//! start of what lies behind it. For that the window holds what lies in the range and one chunk on
//! either side.
//!
//! A row that says what the row before it says is *redundant*. It is deleted only if the row before
//! it starts in the same block of [`BLOCK_CHUNKS`] chunks. So the first row that a block ever had
//! is there for good, and a reader that looks for the last row at or before a chunk meets fewer
//! deleted rows than two blocks have chunks, whatever was cut, evicted or merged. Readers see equal
//! neighbours as one run.
//!
//! # Dead runs
//! Runs that a cut mark covers are holes, and their rows, and chunks, are still there (`store` has
//! the marks). The window shows them as holes, and replaces what is stored: a dead run of its range
//! goes with its chunks, what is put in its place is newer than the mark. The row behind the range
//! stays what it is, dead or not, because its chunks are found by it. [`MapWindow::settle`] puts
//! what readers see in place of what is stored, and takes the range out of the marks.
//!
//! # Sums
//! The sums (resident, recalled and evicted bytes, in all and by inode) change in the same draft by
//! the bytes that each run has up to the end of the file, before and after. Growth counts too: a
//! file that ends within a resident chunk has more resident bytes when it grows
//! ([`MapWindow::grow`]). A dead run counts until it is deleted, for so long its chunks are in the
//! store; it has no place in the file any more, so that it counts with whole chunks.
//! [`MapWindow::mark`] sees to it that the chunk in which the file ended does so, too. An inode is
//! on the list of those with recalled data while its sum of them is not zero.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Ino};

use super::{Draft, ListKind};
use crate::FsError;
use crate::store::extents::ChunkExtent;
use crate::store::{
    CutMark, CutMarks, DataSums, FILE_BYTES_MAX, RunState, StoreReader, StoredMap, StoredRun,
};

/// In so many chunks one redundant row may stay.
const BLOCK_CHUNKS: u64 = 64;

/// What must be known of a map to replace a range of it.
#[derive(Clone, Debug)]
pub(crate) struct MapWindow {
    ino: Ino,
    range: ChunkRange,
    stored: StoredMap,
    marks: CutMarks,
    /// The runs that lie in the range, cut at its ends.
    runs: Vec<ChunkRun>,
    /// What the rows of dead chunks in the range refer to.
    dead_extents: Vec<ChunkExtent>,
    size: FileSize,
    sums: DataSums,
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

/// A place in the range at which a row is, or is to be.
#[derive(Default)]
struct Place {
    stored: Option<RunState>,
    wanted: Option<RunState>,
}

impl MapWindow {
    pub(crate) fn load(
        reader: StoreReader<'_>,
        ino: Ino,
        range: ChunkRange,
        size: FileSize,
    ) -> Result<Self, FsError> {
        let marks = reader.cut_marks(ino)?;
        let stored = reader.stored_map(ino, range)?;
        let runs: Vec<_> = split(&stored, &marks).map(|part| part.effective()).collect();
        assert!(fills(&runs, range), "a map is total: {runs:?} in {range:?}");
        let end_chunk = size.end_chunk();
        let end_state = match runs.iter().find(|run| run.chunks.contains(end_chunk)) {
            Some(run) => run.state,
            None => {
                let stored = reader.stored_at(ino, end_chunk)?.state;
                let is_dead = marks.cut_of(end_chunk, stored.data_xid).is_some();
                if is_dead { ChunkState::Hole } else { stored.state }
            }
        };
        let mut dead_extents = Vec::new();
        let dead = split(&stored, &marks).filter(|part| part.cut.is_some());
        for part in dead.filter(StoredRun::is_resident) {
            dead_extents.extend(reader.file_extents(ino, part.run.chunks)?);
        }
        let sums = reader.data_sums(ino)?;
        Ok(Self { ino, range, stored, marks, runs, dead_extents, size, sums, end_state })
    }

    /// Whose map it is.
    pub(crate) fn ino(&self) -> Ino {
        self.ino
    }

    /// The error of a change that needs the content of a lost run.
    pub(crate) fn lost(&self, run: &ChunkRun) -> FsError {
        FsError::lost_range(self.ino, run.chunks, self.size.chunk_bytes, self.size.bytes)
    }

    /// The chunks that it replaces.
    pub(crate) fn range(&self) -> ChunkRange {
        self.range
    }

    /// The runs that lie in the range, cut at its ends: adjacent, and all of the range.
    pub(crate) fn runs(&self) -> &[ChunkRun] {
        &self.runs
    }

    /// Whether there is room for one more cut mark.
    pub(crate) fn has_room_for_mark(&self) -> bool {
        !self.marks.are_full()
    }

    /// The extents that the rows of resident chunks refer to.
    pub(crate) fn extents(
        &self,
        reader: StoreReader<'_>,
        within: ChunkRange,
    ) -> Result<Vec<ChunkExtent>, FsError> {
        let mut extents = Vec::new();
        for run in self.runs.iter().filter(|run| run.state.is_resident()) {
            if let Some(chunks) = run.chunks.intersection(within) {
                extents.extend(reader.file_extents(self.ino, chunks)?);
            }
        }
        Ok(extents)
    }

    /// Writes where the bytes of the file are after all changes of a draft, which concern this file
    /// alone.
    pub(crate) fn put_sums(&self, draft: &mut Draft) {
        let sums = self.sums.changed_by(&draft.counters);
        if sums == self.sums {
            return;
        }
        draft.put_sums(self.ino, sums);
        match (self.sums.warm_bytes > 0, sums.warm_bytes > 0) {
            (false, true) => draft.list(ListKind::Warm, self.ino),
            (true, false) => draft.unlist(ListKind::Warm, self.ino),
            (true, true) | (false, false) => {}
        }
    }

    /// Counts what a file gains that grows beyond a chunk in which it ended, as far as that chunk
    /// is not replaced.
    pub(crate) fn grow(&self, new_bytes: u64, replaced: Option<ChunkRange>, draft: &mut Draft) {
        let end_chunk = self.size.end_chunk();
        // A chunk that is replaced is counted by its new run, up to the new end of the file. Its
        // growth on top of that would count the same bytes twice.
        let covered = replaced.is_some_and(|range| range.contains(end_chunk));
        if let Some(chunk) = ChunkRange::one(end_chunk).filter(|_| !covered) {
            let bytes = |size| chunk.len_bytes(self.size.chunk_bytes, size);
            let grown = bytes(new_bytes).saturating_sub(bytes(self.size.bytes));
            draft.counters.gain(self.end_state, grown);
        }
    }

    /// Bytes that a part of a run counts in a file of `file_bytes`. What is dead has no place in
    /// the file, and counts with all its bytes.
    fn counted_bytes(&self, part: &StoredRun, file_bytes: u64) -> u64 {
        let file_bytes = if part.cut.is_some() { FILE_BYTES_MAX } else { file_bytes };
        part.run.chunks.len_bytes(self.size.chunk_bytes, file_bytes)
    }

    /// Takes all runs off the count.
    fn uncount(&self, draft: &mut Draft) {
        for part in split(&self.stored, &self.marks) {
            draft.counters.lose(part.run.state, self.counted_bytes(&part, self.size.bytes));
        }
    }

    /// Puts new runs in place of the old ones, in a file that now has `new_bytes`. They are
    /// adjacent and fill the range.
    pub(crate) fn replace(&self, new: &[ChunkRun], new_bytes: u64, draft: &mut Draft) {
        assert!(fills(new, self.range), "the runs of {new:?} fill {:?}", self.range);
        // Off with the old sizes, on with the new ones: what a run counts depends on where the file
        // ends, before and after.
        self.uncount(draft);
        for part in new.iter().flat_map(|run| self.marks.split(*run)) {
            draft.counters.gain(part.run.state, self.counted_bytes(&part, new_bytes));
        }
        self.grow(new_bytes, Some(self.range), draft);
        // Dead chunks are found by their runs alone: they go in the same draft as these, or nothing
        // would lead to them any more.
        let dead = split(&self.stored, &self.marks).filter(|part| part.cut.is_some());
        for part in dead.filter(StoredRun::is_resident) {
            draft.delete_chunks(self.ino, part.run.chunks, &[]);
        }
        draft.free(&self.dead_extents);
        self.put_rows(new, draft);
    }

    fn put_rows(&self, new: &[ChunkRun], draft: &mut Draft) {
        let mut places: BTreeMap<ChunkNo, Place> = BTreeMap::new();
        let stored = self.stored.rows.iter().chain(&self.stored.after);
        for row in stored.filter(|row| row.exists) {
            places.entry(row.start).or_default().stored = Some(row.state);
        }
        for run in new {
            places.entry(run.chunks.start()).or_default().wanted = Some(state_of(run));
        }
        // What lies behind the range may have gone by a row within it.
        if let Some(after) = &self.stored.after {
            places.entry(after.start).or_default().wanted = Some(after.state);
        }
        let (mut last_start, mut last_state) = (self.stored.before.start, self.stored.before.state);
        let mut state = last_state;
        for (start, Place { stored, wanted }) in places {
            state = wanted.unwrap_or(state);
            let is_redundant = state == last_state;
            let stays = !is_redundant || (stored.is_some() && block(start) != block(last_start));
            match (stays, stored) {
                (true, Some(stored)) if stored == state => {}
                (true, _) => draft.put_run(self.ino, start, state),
                (false, Some(_)) => draft.delete_run(self.ino, start),
                (false, None) => {}
            }
            if stays {
                (last_start, last_state) = (start, state);
            }
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

    /// Makes chunks behind the range a hole from this transaction on, whatever is stored of them,
    /// and leaves that to the reaper.
    pub(crate) fn mark(&self, chunks: ChunkRange, draft: &mut Draft) {
        assert!(chunks.start() >= self.range.end(), "{chunks:?} behind {:?}", self.range);
        if chunks.contains(self.size.end_chunk()) {
            // As if the file had grown to the end of that chunk before it was cut.
            self.grow(FILE_BYTES_MAX, None, draft);
        }
        let mut marks = self.marks.clone();
        marks.add(CutMark { chunks, xid: draft.xid });
        draft.put_cuts(self.ino, &marks);
    }

    /// Stores what the marks say of the range, and takes it out of them.
    pub(crate) fn settle(&self, draft: &mut Draft) {
        // Rows and marks change in one draft: a mark that went while its dead rows are still there
        // would bring back what was cut.
        self.replace(&self.runs, self.size.bytes, draft);
        let mut marks = self.marks.clone();
        marks.remove(self.range);
        draft.put_cuts(self.ino, &marks);
    }

    /// Deletes the chunks that are in the store and that are not dead. The extents of their rows
    /// are freed apart.
    pub(crate) fn delete_chunks(&self, within: ChunkRange, draft: &mut Draft) {
        for run in &self.runs {
            let chunks = run.chunks.intersection(within).filter(|_| run.state.is_resident());
            if let Some(chunks) = chunks {
                draft.delete_chunks(self.ino, chunks, &[]);
            }
        }
    }
}

/// The stored runs of a range, each in its parts that live and that are dead.
fn split<'a>(
    stored: &'a StoredMap,
    marks: &'a CutMarks,
) -> impl Iterator<Item = StoredRun> + use<'a> {
    stored.runs.iter().flat_map(|run| marks.split(*run))
}

fn block(chunk: ChunkNo) -> u64 {
    chunk.get() / BLOCK_CHUNKS
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
