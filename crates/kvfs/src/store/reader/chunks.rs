//! Reads of chunk maps and chunks.
//!
//! A map is total: the rows are the starts of runs, each of which reaches to the next, the last one
//! to [`ChunkNo::END`], and what lies before the first row was never written. So the run that holds
//! a chunk is the last row at or before it, and no range of chunks is without an answer.

use std::iter;

use tier_types::{ChunkNo, ChunkRange, ChunkRun, Ino, to_usize};

use super::StoreReader;
use crate::FsError;
use crate::error::Damage;
use crate::store::decode::{parse_run, run};
use crate::store::extents::{Assembler, ChunkExtent, Content, FileExtent};
use crate::store::keys::{self, Table};
use crate::store::rows::RunState;

/// Runs of a long map that are read at a time.
const N_RUNS: usize = 1024;

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

impl<'a> StoreReader<'a> {
    /// The state of the run that holds a chunk.
    pub(crate) fn run_at(&self, ino: Ino, at: ChunkNo) -> Result<RunState, FsError> {
        let (lower, upper) = (keys::chunk(ino, ChunkNo::new(0)), keys::chunk(ino, at));
        match self.tables.last(Table::Map, &lower, &upper)? {
            Some((key, bytes)) => Ok(parse_run(ino, &key, &bytes)?.1),
            None => Ok(RunState::NEVER_WRITTEN),
        }
    }

    /// The runs from `from` on, at most `n_max`; the first one is cut there.
    pub(crate) fn runs(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, FsError> {
        let mut state = self.run_at(ino, from)?;
        let mut start = from;
        let mut runs = Vec::new();
        let (after, (_, until)) = (keys::chunk(ino, from.next()), keys::rows_of(ino));
        for pair in self.tables.scan(Table::Map, &after, &until)? {
            // Whether the last run ends here is known only with the next row.
            if runs.len() == n_max {
                return Ok(runs);
            }
            let (key, bytes) = pair?;
            let (next, next_state) = parse_run(ino, &key, &bytes)?;
            runs.extend(run(start, next, state));
            (start, state) = (next, next_state);
        }
        if runs.len() < n_max {
            runs.extend(run(start, ChunkNo::END, state));
        }
        Ok(runs)
    }

    /// All runs from `from` on, read in pages: between two of them the map may change, and with it
    /// what follows.
    pub(crate) fn all_runs(
        self,
        ino: Ino,
        from: ChunkNo,
    ) -> impl Iterator<Item = Result<ChunkRun, FsError>> + use<'a> {
        let mut at = Some(from);
        let mut page = Vec::new().into_iter();
        iter::from_fn(move || {
            loop {
                if let Some(run) = page.next() {
                    return Some(Ok(run));
                }
                match self.runs(ino, at.take()?, N_RUNS) {
                    Ok(runs) => {
                        let end = runs.last().map(|run| run.chunks.end());
                        at = end.filter(|end| *end < ChunkNo::END);
                        page = runs.into_iter();
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// The runs that lie in `range`, cut at its ends: adjacent, and all of the range.
    pub(crate) fn runs_in(&self, ino: Ino, range: ChunkRange) -> Result<Vec<ChunkRun>, FsError> {
        let mut state = self.run_at(ino, range.start())?;
        let mut start = range.start();
        let mut runs = Vec::new();
        let (after, until) = (keys::chunk(ino, start.next()), keys::chunk(ino, range.end()));
        for pair in self.tables.scan(Table::Map, &after, &until)? {
            let (key, bytes) = pair?;
            let (next, next_state) = parse_run(ino, &key, &bytes)?;
            runs.extend(run(start, next, state));
            (start, state) = (next, next_state);
        }
        runs.extend(run(start, range.end(), state));
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
                    return Err(FsError::damaged(ino, Damage::ChunkData));
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

    /// Appends chunks that must be in the store, each filled up with zeros.
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
        assembler.finish_filled()
    }

    /// The rows of the chunks of a range that are in the store.
    pub(crate) fn old_chunks(&self, ino: Ino, range: ChunkRange) -> Result<Vec<OldChunk>, FsError> {
        let (from, until) = (keys::chunk(ino, range.start()), keys::chunk(ino, range.end()));
        let rows = self.tables.scan(Table::Chunks, &from, &until)?.map(|pair| {
            let (key, row) = pair?;
            let chunk = keys::parse_second(&key).map_or(ChunkNo::END, ChunkNo::new);
            Ok(OldChunk { chunk, row: row.into_vec() })
        });
        rows.collect()
    }

    /// The extents that the rows of a range of chunks refer to.
    pub(crate) fn file_extents(
        &self,
        ino: Ino,
        range: ChunkRange,
    ) -> Result<Vec<ChunkExtent>, FsError> {
        let mut extents = Vec::new();
        for row in self.chunk_rows(ino, range)? {
            let ChunkRow { chunk, content } = row?;
            if let RowContent::InFile(extent) = content {
                extents.push(ChunkExtent { ino, chunk, extent });
            }
        }
        Ok(extents)
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
