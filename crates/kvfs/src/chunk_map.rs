//! Changes of a chunk map. The map is total: every chunk of the address space lies in a run, and a
//! run is stored by its first chunk and reaches to the next one.

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Ino, Xid};

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
}

impl MapWindow {
    pub(crate) fn load(view: View<'_>, ino: Ino, range: ChunkRange) -> Result<Self, FsError> {
        let before = match range.start().get().checked_sub(1) {
            Some(chunk) => Some(view.run_start(ino, ChunkNo::new(chunk))?.1),
            None => None,
        };
        let after = match range.end() {
            ChunkNo::END => None,
            end => Some(view.run_start(ino, end)?.1),
        };
        Ok(Self { ino, range, runs: view.runs_in(ino, range)?, before, after })
    }

    /// Whose map it is.
    pub(crate) fn ino(&self) -> Ino {
        self.ino
    }

    /// Puts new runs in place of the old ones. They are adjacent and fill the range.
    pub(crate) fn replace(&self, new: &[ChunkRun], draft: &mut Draft) {
        for run in &self.runs {
            draft.counters.count(run.state, run.chunks.len(), -1);
        }
        for run in new {
            draft.counters.count(run.state, run.chunks.len(), 1);
        }
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
    pub(crate) fn set(&self, state: ChunkState, data_xid: Xid, draft: &mut Draft) {
        self.replace(&[ChunkRun { chunks: self.range, state, data_xid }], draft);
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
