//! Changes of a chunk map. The map is total: every chunk of the address space lies in a run, and a
//! run is stored by its first chunk and reaches to the next one.

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Ino};

use crate::FsError;
use crate::commit::Draft;
use crate::schema::{self, Table};
use crate::value;
use crate::view::{Place, View};

/// More keys than this are deleted as a range.
const N_DELETES_MAX: usize = 64;

/// What must be known of a map to replace a range of it.
#[derive(Clone, Debug)]
pub(crate) struct MapWindow {
    ino: Ino,
    range: ChunkRange,
    /// The runs that lie in the range, cut at its ends.
    pub(crate) runs: Vec<ChunkRun>,
    /// The chunk before the range.
    before: Option<Place>,
    /// The chunk after the range.
    after: Option<Place>,
    size: FileSize,
    /// Bytes of the whole file that are in the store.
    resident_bytes: u64,
    /// The state of the chunk in which the file ends, if it ends within one.
    end_state: ChunkState,
}

/// The size of a file before a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileSize {
    pub(crate) bytes: u64,
    pub(crate) chunk_bytes: u32,
}

impl FileSize {
    /// The chunk in which the file ends.
    fn end_chunk(self) -> ChunkNo {
        ChunkNo::new(self.bytes / u64::from(self.chunk_bytes))
    }
}

impl MapWindow {
    pub(crate) fn load(
        view: View<'_>,
        ino: Ino,
        range: ChunkRange,
        size: FileSize,
    ) -> Result<Self, FsError> {
        let (end_state, _) = view.run_start(ino, size.end_chunk())?.1;
        let before = match range.start().get().checked_sub(1) {
            Some(chunk) => Some(view.run_start(ino, ChunkNo::new(chunk))?.1),
            None => None,
        };
        let after = match range.end() {
            ChunkNo::END => None,
            end => Some(view.run_start(ino, end)?.1),
        };
        let runs = view.runs_in(ino, range)?;
        let resident_bytes = view.resident_bytes(ino)?;
        Ok(Self { ino, range, runs, before, after, size, resident_bytes, end_state })
    }

    /// Whose map it is.
    pub(crate) fn ino(&self) -> Ino {
        self.ino
    }

    /// Writes how many bytes of the file are in the store after all changes of a draft, which
    /// concern this file alone.
    pub(crate) fn put_resident(&self, draft: &mut Draft) {
        let delta = draft.counters.resident_bytes;
        if delta != 0 {
            let bytes = self.resident_bytes.saturating_add_signed(delta);
            let value = bytes.to_le_bytes().to_vec();
            draft.changes.put(Table::Resident, &schema::ino(self.ino), value);
        }
    }

    /// Counts what a file gains that grows beyond a chunk in which it ended, as far as that chunk is
    /// not replaced.
    pub(crate) fn grow(&self, new_bytes: u64, replaced: Option<ChunkRange>, draft: &mut Draft) {
        let end_chunk = self.size.end_chunk();
        let covered = replaced.is_some_and(|range| range.contains(end_chunk));
        if let Some(chunk) = ChunkRange::one(end_chunk).filter(|_| !covered) {
            let bytes = |size| chunk.len_bytes(self.size.chunk_bytes, size);
            let grown = bytes(new_bytes).saturating_sub(bytes(self.size.bytes));
            draft.counters.count(self.end_state, grown, 1);
        }
    }

    /// Takes all runs off the count.
    pub(crate) fn uncount(&self, draft: &mut Draft) {
        let FileSize { bytes, chunk_bytes } = self.size;
        for run in &self.runs {
            draft.counters.count(run.state, run.chunks.len_bytes(chunk_bytes, bytes), -1);
        }
    }

    /// Puts new runs in place of the old ones, in a file that now has `new_bytes`. They are
    /// adjacent and fill the range.
    pub(crate) fn replace(&self, new: &[ChunkRun], new_bytes: u64, draft: &mut Draft) {
        self.uncount(draft);
        for run in new {
            let bytes = run.chunks.len_bytes(self.size.chunk_bytes, new_bytes);
            draft.counters.count(run.state, bytes, 1);
        }
        self.grow(new_bytes, Some(self.range), draft);
        let first = schema::chunk(self.ino, self.range.start());
        if self.runs.len() > N_DELETES_MAX {
            draft.changes.delete_range(
                Table::Map,
                &first,
                &schema::chunk(self.ino, self.range.end()),
            );
        } else {
            for run in &self.runs {
                draft.changes.delete(Table::Map, &schema::chunk(self.ino, run.chunks.start()));
            }
        }
        let mut last = self.before;
        let rest = self.after.map(|place| (self.range.end(), place));
        let starts = new.iter().map(|run| (run.chunks.start(), (run.state, run.data_xid)));
        for (start, place) in starts.chain(rest) {
            let key = schema::chunk(self.ino, start);
            if last == Some(place) {
                draft.changes.delete(Table::Map, &key);
            } else {
                draft.changes.put(Table::Map, &key, value::run_to_bytes(place.0, place.1));
            }
            last = Some(place);
        }
    }

    /// Puts one run in place of all.
    pub(crate) fn set(&self, state: ChunkState, new_bytes: u64, draft: &mut Draft) {
        let data_xid = draft.xid;
        self.replace(&[ChunkRun { chunks: self.range, state, data_xid }], new_bytes, draft);
    }

    /// Deletes the chunks that are in the store.
    pub(crate) fn delete_chunks(&self, within: ChunkRange, draft: &mut Draft) {
        for run in &self.runs {
            let resident = matches!(run.state, ChunkState::Hot | ChunkState::Warm);
            let chunks = run.chunks.intersection(within).filter(|_| resident);
            if let Some(chunks) = chunks {
                delete_chunks(self.ino, chunks, draft);
            }
        }
    }
}

pub(crate) fn delete_chunks(ino: Ino, chunks: ChunkRange, draft: &mut Draft) {
    if chunks.len() <= 4 {
        for number in chunks.start().get()..chunks.end().get() {
            draft.changes.delete(Table::Chunks, &schema::pair(ino.get(), number));
        }
    } else {
        let (from, until) = (schema::chunk(ino, chunks.start()), schema::chunk(ino, chunks.end()));
        draft.changes.delete_range(Table::Chunks, &from, &until);
    }
}
