//! Reads of chunk maps and chunks.
//!
//! A map is total: the rows are the starts of runs, each of which reaches to the next, the last one
//! to [`ChunkNo::END`], and what lies before the first row was never written. So the run that holds
//! a chunk is the last row at or before it, and no range of chunks is without an answer.
//!
//! What readers see of the stored runs is theirs after the cut marks ([`CutMarks`]): dead parts are
//! holes, and neighbours that are equal are one run. Functions whose name has `stored` in it show
//! the rows as they are; they are for what changes them.

use std::iter;
use std::ops::Range;

use tier_types::{ChunkNo, ChunkRange, ChunkRun, Ino, to_usize};

use super::StoreReader;
use crate::FsError;
use crate::error::Damage;
use crate::store::cuts::{CutMarks, EffectiveRuns};
use crate::store::decode::{parse_run, run};
use crate::store::extents::{Assembler, ChunkExtent, Content, FileExtent};
use crate::store::keys::{self, Table};
use crate::store::rows::{self, RunState};

/// Runs of a long map that are read at a time at first, and at most: a question that the first runs
/// answer reads no more of them.
const N_RUNS_FIRST: usize = 8;
const N_RUNS_MAX: usize = 1024;

/// A chunk that is in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChunkRow {
    pub(crate) chunk: ChunkNo,
    pub(crate) content: RowContent,
}

/// What a chunk row holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RowContent {
    /// Nothing that can be decoded: its content was lost when patches were put together.
    Lost,
    /// The bytes.
    Inline,
    /// Where they lie.
    InFile(FileExtent),
}

impl RowContent {
    fn of(row: &[u8]) -> Self {
        match Content::from_bytes(row) {
            None => Self::Lost,
            Some(Content::Inline(_)) => Self::Inline,
            Some(Content::InFile(extent, _)) => Self::InFile(extent),
        }
    }
}

/// A chunk that is about to be replaced, with its row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OldChunk {
    pub(crate) chunk: ChunkNo,
    pub(crate) row: Vec<u8>,
}

impl OldChunk {
    /// The extent that its row refers to.
    pub(crate) fn extent(&self) -> Option<FileExtent> {
        match RowContent::of(&self.row) {
            RowContent::InFile(extent) => Some(extent),
            RowContent::Lost | RowContent::Inline => None,
        }
    }
}

/// The row of a map at or before a chunk, or at the start of what was never written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunRow {
    pub(crate) start: ChunkNo,
    pub(crate) state: RunState,
    /// Whether there is such a row.
    pub(crate) exists: bool,
}

impl RunRow {
    const NEVER_WRITTEN: Self =
        Self { start: ChunkNo::new(0), state: RunState::NEVER_WRITTEN, exists: false };
}

/// A range of a map as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct StoredMap {
    /// The row that the chunk before the range goes by.
    pub(crate) before: RunRow,
    /// The rows that start in the range; the first one stands for its start in any case.
    pub(crate) rows: Vec<RunRow>,
    /// The runs that lie in the range, cut at its ends: adjacent, and all of it.
    pub(crate) runs: Vec<ChunkRun>,
    /// What the chunk after the range goes by, as a row that starts there; `None` at the end of the
    /// address space.
    pub(crate) after: Option<RunRow>,
}

impl<'a> StoreReader<'a> {
    /// The chunks that were cut while their runs are still in the map.
    pub(crate) fn cut_marks(&self, ino: Ino) -> Result<CutMarks, FsError> {
        let row = self.row(Table::Cuts, &keys::ino(ino), rows::cuts_from_bytes)?;
        // No row stands for no marks.
        Ok(row.or_damaged(ino, Damage::CutMarks)?.unwrap_or_default())
    }

    /// Whether there are any, readable or not.
    pub(crate) fn has_cuts(&self, ino: Ino) -> Result<bool, FsError> {
        self.tables.contains(Table::Cuts, &keys::ino(ino))
    }

    /// Inodes above `after` with cut marks, at most `n_max`. Keys that cannot be read are left out:
    /// the check finds them.
    pub(crate) fn cut_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, FsError> {
        self.listed(Table::Cuts, after, n_max)
    }

    /// The stored row of the run that holds a chunk.
    pub(crate) fn stored_at(&self, ino: Ino, at: ChunkNo) -> Result<RunRow, FsError> {
        let (lower, upper) = (keys::chunk(ino, ChunkNo::new(0)), keys::chunk(ino, at));
        match self.tables.last(Table::Map, &lower, &upper)? {
            Some((key, bytes)) => {
                let (start, state) = parse_run(ino, &key, &bytes)?;
                Ok(RunRow { start, state, exists: true })
            }
            None => Ok(RunRow::NEVER_WRITTEN),
        }
    }

    /// A range of a map as it is stored.
    pub(crate) fn stored_map(&self, ino: Ino, range: ChunkRange) -> Result<StoredMap, FsError> {
        let holder = self.stored_at(ino, range.start())?;
        let starts_here = holder.start == range.start();
        let before = match range.start().get().checked_sub(1) {
            Some(chunk) if starts_here => self.stored_at(ino, ChunkNo::new(chunk))?,
            Some(_) => holder,
            None => RunRow::NEVER_WRITTEN,
        };
        let exists = holder.exists && starts_here;
        let mut rows = vec![RunRow { start: range.start(), exists, ..holder }];
        let mut runs = Vec::new();
        let (mut start, mut state) = (range.start(), holder.state);
        let mut after = None;
        let (from, until) = (keys::chunk(ino, start.next()), keys::chunk(ino, range.end().next()));
        for pair in self.tables.scan(Table::Map, &from, &until)? {
            let (key, bytes) = pair?;
            let (next, next_state) = parse_run(ino, &key, &bytes)?;
            let row = RunRow { start: next, state: next_state, exists: true };
            if next >= range.end() {
                after = Some(row);
                break;
            }
            rows.push(row);
            runs.extend(run(start, next, state));
            (start, state) = (next, next_state);
        }
        runs.extend(run(start, range.end(), state));
        // A row is read only if it starts within the range, so that something is left for the last.
        assert_eq!(runs.last().map(|run| run.chunks.end()), Some(range.end()));
        // Without a row of its own the chunk after the range goes on as the last one in it.
        let after = after.unwrap_or(RunRow { start: range.end(), state, exists: false });
        Ok(StoredMap { before, rows, runs, after: Some(after).filter(|_| !is_endless(range)) })
    }

    /// How far `n_max` rows and chunks reach from the start of a range, by more than nothing. Of
    /// the runs that `has_chunks` says, each chunk counts.
    pub(crate) fn reach(
        &self,
        ino: Ino,
        range: ChunkRange,
        n_max: u64,
        has_chunks: impl Fn(&ChunkRun) -> bool,
    ) -> Result<ChunkNo, FsError> {
        assert!(n_max > 1, "a row and a chunk at least");
        let mut n_left = n_max;
        let mut state = self.stored_at(ino, range.start())?.state;
        let mut start = range.start();
        let (from, until) = (keys::chunk(ino, start.next()), keys::chunk(ino, range.end()));
        let rows = self.tables.scan(Table::Map, &from, &until)?;
        let last = iter::once(Ok((range.end(), RunState::NEVER_WRITTEN)));
        let ends = rows.map(|pair| {
            let (key, bytes) = pair?;
            parse_run(ino, &key, &bytes)
        });
        for end in ends.chain(last) {
            let (end, next_state) = end?;
            let Some(run) = run(start, end, state) else { continue };
            if n_left == 0 {
                return Ok(start);
            }
            n_left -= 1;
            if has_chunks(&run) {
                if run.chunks.len() > n_left {
                    let reach = ChunkNo::new(start.get() + n_left);
                    // The row alone is no progress.
                    return Ok(reach.max(range.start().next()));
                }
                n_left -= run.chunks.len();
            }
            (start, state) = (end, next_state);
        }
        Ok(range.end())
    }

    /// The runs from `from` on, at most `n_max`; the first one is cut there.
    pub(crate) fn runs(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, FsError> {
        // The marks before the rows: see `cuts`.
        let marks = self.cut_marks(ino)?;
        self.runs_after(ino, from, EffectiveRuns::new(marks, n_max))
    }

    fn runs_after(
        &self,
        ino: Ino,
        from: ChunkNo,
        mut runs: EffectiveRuns,
    ) -> Result<Vec<ChunkRun>, FsError> {
        let mut state = self.stored_at(ino, from)?.state;
        let mut start = from;
        let (after, (_, until)) = (keys::chunk(ino, from.next()), keys::rows_of(ino));
        for pair in self.tables.scan(Table::Map, &after, &until)? {
            let (key, bytes) = pair?;
            let (next, next_state) = parse_run(ino, &key, &bytes)?;
            // The end lies behind the last chunk of every file, so that no run can begin there.
            if next == ChunkNo::END {
                return Err(FsError::damaged(ino, Damage::RunBeyondEnd));
            }
            if let Some(run) = run(start, next, state) {
                runs.add(run);
            }
            if runs.is_full() {
                return Ok(runs.finish());
            }
            (start, state) = (next, next_state);
        }
        if let Some(run) = run(start, ChunkNo::END, state) {
            runs.add(run);
        }
        Ok(runs.finish())
    }

    /// All runs from `from` on, read in pages: between two of them the map may change, and with it
    /// what follows.
    pub(crate) fn all_runs(
        self,
        ino: Ino,
        from: ChunkNo,
    ) -> impl Iterator<Item = Result<ChunkRun, FsError>> + use<'a> {
        paged(from, move |at, n_max| self.runs(ino, at, n_max))
    }

    /// All runs as they are stored.
    pub(crate) fn all_stored_runs(
        self,
        ino: Ino,
    ) -> impl Iterator<Item = Result<ChunkRun, FsError>> + use<'a> {
        paged(ChunkNo::new(0), move |at, n_max| {
            self.runs_after(ino, at, EffectiveRuns::new(CutMarks::default(), n_max))
        })
    }

    /// The runs that lie in `range`, cut at its ends: adjacent, and all of the range.
    pub(crate) fn runs_in(&self, ino: Ino, range: ChunkRange) -> Result<Vec<ChunkRun>, FsError> {
        let mut runs = EffectiveRuns::new(self.cut_marks(ino)?, usize::MAX);
        let mut state = self.stored_at(ino, range.start())?.state;
        let mut start = range.start();
        let (after, until) = (keys::chunk(ino, start.next()), keys::chunk(ino, range.end()));
        for pair in self.tables.scan(Table::Map, &after, &until)? {
            let (key, bytes) = pair?;
            let (next, next_state) = parse_run(ino, &key, &bytes)?;
            if let Some(run) = run(start, next, state) {
                runs.add(run);
            }
            (start, state) = (next, next_state);
        }
        if let Some(run) = run(start, range.end(), state) {
            runs.add(run);
        }
        let runs = runs.finish();
        // A row is read only if it starts within the range, so that something is left for the last.
        assert_eq!(runs.last().map(|run| run.chunks.end()), Some(range.end()));
        Ok(runs)
    }

    /// The content of a chunk that must be in the store; it may be shorter than a chunk.
    pub(crate) fn chunk(&self, ino: Ino, chunk: ChunkNo) -> Result<Vec<u8>, FsError> {
        let row = self.tables.get(Table::Chunks, &keys::chunk(ino, chunk))?;
        match row.as_deref().and_then(Content::from_bytes) {
            None => Err(FsError::damaged(ino, Damage::LostChunk)),
            Some(Content::Inline(bytes)) => Ok(bytes.to_vec()),
            Some(Content::InFile(extent, patches)) => {
                let mut content = vec![0; to_usize(u64::from(extent.len))];
                if !self.tables.files().read(extent, &mut content)? {
                    return Err(self.tables.files().damaged(ino, extent));
                }
                patches.apply(&mut content, 0);
                Ok(content)
            }
        }
    }

    /// Whether the bytes of an extent are those that were written.
    pub(crate) fn is_whole(&self, extent: FileExtent) -> Result<bool, FsError> {
        let mut content = vec![0; to_usize(u64::from(extent.len))];
        self.tables.files().read(extent, &mut content)
    }

    /// The row of a chunk.
    pub(crate) fn chunk_row(&self, ino: Ino, chunk: ChunkNo) -> Result<Option<Vec<u8>>, FsError> {
        self.tables.get(Table::Chunks, &keys::chunk(ino, chunk))
    }

    /// Appends chunks that must be in the store, each but the last filled up with zeros.
    pub(crate) fn read_chunks(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        chunk_bytes: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        let mut assembler = Assembler::new(self.tables.files(), ino, chunk_bytes, out);
        for number in chunks.start().get()..chunks.end().get() {
            let key = keys::chunk(ino, ChunkNo::new(number));
            let mut pushed = None;
            // From where RocksDB has it right to where the caller wants it.
            self.tables.visit(Table::Chunks, &key, &mut |row| {
                pushed = Some(assembler.push(Some(row)));
            })?;
            pushed.unwrap_or_else(|| assembler.push(None))?;
        }
        assembler.finish()
    }

    /// The rows of the chunks of a range that are in the store and can be read.
    pub(crate) fn old_chunks(&self, ino: Ino, range: ChunkRange) -> Result<Vec<OldChunk>, FsError> {
        let mut chunks = Vec::new();
        self.visit_rows(ino, range, &mut |chunk, row| {
            chunks.push(OldChunk { chunk, row: row.to_vec() });
        })?;
        Ok(chunks)
    }

    /// The extents that the rows of a range of chunks refer to, as far as they can be read.
    pub(crate) fn file_extents(
        &self,
        ino: Ino,
        range: ChunkRange,
    ) -> Result<Vec<ChunkExtent>, FsError> {
        let mut extents = Vec::new();
        self.visit_rows(ino, range, &mut |chunk, row| {
            if let RowContent::InFile(extent) = RowContent::of(row) {
                extents.push(ChunkExtent { ino, chunk, extent });
            }
        })?;
        Ok(extents)
    }

    /// Shows `visit` the rows of a range of chunks that are about to be replaced or deleted. Damage
    /// must not stop that, because it is how damage goes away: from a damaged block on each chunk
    /// is looked for by its key. To what an unreadable row refers is not known, and stays where it
    /// is.
    fn visit_rows(
        &self,
        ino: Ino,
        range: ChunkRange,
        visit: &mut dyn FnMut(ChunkNo, &[u8]),
    ) -> Result<(), FsError> {
        let (from, until) = (keys::chunk(ino, range.start()), keys::chunk(ino, range.end()));
        let mut next = range.start();
        for pair in self.tables.scan(Table::Chunks, &from, &until)? {
            let (key, row) = match pair {
                Err(FsError::Unreadable { .. }) => {
                    return self.visit_rows_by_key(ino, next.get()..range.end().get(), visit);
                }
                pair => pair?,
            };
            // A key that cannot be read is of a chunk that no map knows.
            let Some(chunk) = keys::parse_second(&key).map(ChunkNo::new) else { continue };
            visit(chunk, &row);
            next = chunk.next();
        }
        Ok(())
    }

    fn visit_rows_by_key(
        &self,
        ino: Ino,
        numbers: Range<u64>,
        visit: &mut dyn FnMut(ChunkNo, &[u8]),
    ) -> Result<(), FsError> {
        for chunk in numbers.map(ChunkNo::new) {
            match self.chunk_row(ino, chunk) {
                Ok(Some(row)) => visit(chunk, &row),
                Ok(None) => {}
                Err(FsError::Unreadable { .. }) => {
                    tracing::warn!(%ino, %chunk, "a row is damaged: its space stays taken");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The chunks of a range of which there are rows, wanted there or not.
    pub(crate) fn chunk_rows(
        &self,
        ino: Ino,
        range: ChunkRange,
    ) -> Result<impl Iterator<Item = Result<ChunkRow, FsError>> + use<'a>, FsError> {
        let (from, until) = (keys::chunk(ino, range.start()), keys::chunk(ino, range.end()));
        Ok(self.tables.scan(Table::Chunks, &from, &until)?.map(|pair| {
            let (key, row) = pair?;
            // A key that cannot be read stands for a chunk that no map knows.
            let chunk = keys::parse_second(&key).map_or(ChunkNo::END, ChunkNo::new);
            Ok(ChunkRow { chunk, content: RowContent::of(&row) })
        }))
    }
}

/// Whether a range reaches to the end of the address space.
fn is_endless(range: ChunkRange) -> bool {
    range.end() == ChunkNo::END
}

/// The runs of a map in pages, of which each is larger than the one before.
fn paged(
    from: ChunkNo,
    read: impl Fn(ChunkNo, usize) -> Result<Vec<ChunkRun>, FsError>,
) -> impl Iterator<Item = Result<ChunkRun, FsError>> {
    let mut at = Some(from);
    let mut n_max = N_RUNS_FIRST;
    let mut page = Vec::new().into_iter();
    iter::from_fn(move || {
        loop {
            if let Some(run) = page.next() {
                return Some(Ok(run));
            }
            match read(at.take()?, n_max) {
                Ok(runs) => {
                    let end = runs.last().map(|run| run.chunks.end());
                    at = end.filter(|end| *end < ChunkNo::END);
                    n_max = (4 * n_max).min(N_RUNS_MAX);
                    page = runs.into_iter();
                }
                Err(error) => return Some(Err(error)),
            }
        }
    })
}
