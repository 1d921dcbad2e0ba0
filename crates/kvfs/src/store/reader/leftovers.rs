//! Leftovers: the rows of an inode that is deleted, so many at a time.
//!
//! An inode that is deleted loses its attributes at once, and with them everything that readers see
//! of it. Left over are its map, its chunks and its extended attributes, which may be any number of
//! rows. A step takes the first ones, and deletes each by its own key: a deletion of a range would
//! be looked at by every later reader of the table. The keys of chunks come from the map; the rows
//! are read for the extents that become free. Nothing but deletions of this inode reads them, and
//! so no row needs to be right: a run that cannot be decoded, or that never ends, goes by the
//! chunks that are there.

use tier_types::{ChunkNo, ChunkRange, ChunkState, Ino, Xid, to_u64, to_usize};

use super::StoreReader;
use super::chunks::{ChunkRow, RowContent};
use crate::FsError;
use crate::store::extents::ChunkExtent;
use crate::store::keys::{self, Table};
use crate::store::rows::{self, Dying, RunState};

/// Rows of an inode that are to be deleted.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    pub(crate) chunks: Vec<ChunkNo>,
    /// What their rows refer to.
    pub(crate) extents: Vec<ChunkExtent>,
    /// Keys of the map.
    pub(crate) runs: Vec<Vec<u8>>,
    /// A run of which not all chunks are among these: what is put in its place.
    pub(crate) rest: Option<RunRest>,
    pub(crate) xattrs: Vec<Vec<u8>>,
    /// Nothing of the inode is left after these.
    pub(crate) is_complete: bool,
}

/// The end of a run whose start goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunRest {
    pub(crate) start: ChunkNo,
    pub(crate) state: RunState,
}

/// A row of the map, as far as it can be decoded.
struct RowToGo {
    start: ChunkNo,
    state: Option<RunState>,
}

impl Leftovers {
    /// How many rows.
    pub(crate) fn n_rows(&self) -> usize {
        self.chunks.len() + self.runs.len() + self.xattrs.len()
    }

    /// The chunk before which nothing of the map is left.
    pub(crate) fn next(&self, before: ChunkNo) -> ChunkNo {
        let deleted = self.runs.iter().filter_map(|key| keys::parse_second(key)).max();
        let behind = deleted.map_or(before, |start| ChunkNo::new(start).next());
        self.rest.map_or(behind, |rest| rest.start)
    }
}

impl StoreReader<'_> {
    /// The first rows of an inode that is deleted, about `n_max` at most, from a chunk of its map
    /// on.
    pub(crate) fn leftovers(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Leftovers, FsError> {
        let mut left = Leftovers::default();
        let (_, until) = keys::rows_of(ino);
        let mut row: Option<RowToGo> = None;
        for pair in self.tables.scan(Table::Map, &keys::chunk(ino, from), &until)? {
            let (key, value) = pair?;
            // The key of a row says where the row before it ends; one that says nothing is skipped.
            let start = keys::parse_second(&key).map(ChunkNo::new);
            if let (Some(end), Some(row)) = (start, &row)
                && !self.add_run(&mut left, ino, row, end, n_max)?
            {
                return Ok(left);
            }
            if left.n_rows() >= n_max {
                return Ok(left);
            }
            left.runs.push(key.into_vec());
            if let Some(start) = start {
                row = Some(RowToGo { start, state: rows::run_from_bytes(&value) });
            }
        }
        if let Some(row) = row
            && !self.add_run(&mut left, ino, &row, ChunkNo::END, n_max)?
        {
            return Ok(left);
        }
        let (from, until) = keys::rows_of(ino);
        for pair in self.tables.scan(Table::Xattrs, &from, &until)? {
            if left.n_rows() >= n_max {
                return Ok(left);
            }
            let (key, _) = pair?;
            left.xattrs.extend(keys::name_of(&key).map(<[u8]>::to_vec));
        }
        left.is_complete = true;
        Ok(left)
    }

    /// Adds the chunks of a run whose row goes. Whether these are all.
    fn add_run(
        &self,
        left: &mut Leftovers,
        ino: Ino,
        row: &RowToGo,
        end: ChunkNo,
        n_max: usize,
    ) -> Result<bool, FsError> {
        let Some(chunks) = ChunkRange::new(row.start, end) else { return Ok(true) };
        let n_left = n_max.saturating_sub(left.n_rows());
        // Of a run that cannot be decoded it is not known whether there are chunks.
        let guessed = RunState { state: ChunkState::Hot, data_xid: Xid::new(0) };
        let state = row.state.unwrap_or(guessed);
        let next = match state.state {
            ChunkState::Hole | ChunkState::Cold | ChunkState::Lost => None,
            ChunkState::Hot | ChunkState::Warm if row.state.is_none() || end == ChunkNo::END => {
                let mut next = chunks.start();
                for row in self.chunk_rows(ino, chunks)?.take(n_left) {
                    let ChunkRow { chunk, content } = row?;
                    if let RowContent::InFile(extent) = content {
                        left.extents.push(ChunkExtent { ino, chunk, extent });
                    }
                    left.chunks.push(chunk);
                    next = chunk.next();
                }
                Some(next).filter(|next| left.n_rows() >= n_max && *next < end)
            }
            ChunkState::Hot | ChunkState::Warm => {
                let n = chunks.len().min(to_u64(n_left));
                let next = ChunkNo::new(chunks.start().get() + n);
                if let Some(first) = ChunkRange::new(chunks.start(), next) {
                    left.extents.extend(self.file_extents(ino, first)?);
                }
                left.chunks.reserve(to_usize(n));
                left.chunks.extend((chunks.start().get()..next.get()).map(ChunkNo::new));
                Some(next).filter(|next| *next < end)
            }
        };
        left.rest = next.map(|start| RunRest { start, state });
        Ok(next.is_none())
    }

    /// Whether an inode is dying: gone, and not all of its rows.
    pub(crate) fn is_dying(&self, ino: Ino) -> Result<bool, FsError> {
        self.tables.contains(Table::Dying, &keys::ino(ino))
    }

    /// Dying inodes above `after`, at most `n_max`. Keys that cannot be read are left out: the
    /// check finds them.
    pub(crate) fn dying_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, FsError> {
        self.listed(Table::Dying, after, n_max)
    }

    /// How far the reaper is with a dying inode; nothing if it is none, or cannot be told.
    pub(crate) fn dying(&self, ino: Ino) -> Result<Option<Dying>, FsError> {
        Ok(self.row(Table::Dying, &keys::ino(ino), rows::dying_from_bytes)?.readable())
    }
}
