//! Repairs of data: lost chunks that the archive has, chunks that belong to nothing, and sums.

use tier_types::{ChunkNo, ChunkRange, ChunkState, Ino, Xid, to_u64};

use super::{Apply, N_ROWS_BATCH};
use crate::FsError;
use crate::store::{Counters, DataSums, FILE_BYTES_MAX};
use crate::tx::MapWindow;

impl Apply<'_> {
    pub(super) fn delete_chunk(&self, ino: Ino, chunk: ChunkNo) -> Result<bool, FsError> {
        let Some(chunk) = ChunkRange::one(chunk) else { return Ok(false) };
        let extents = self.core.reader().file_extents(ino, chunk)?;
        self.write(move |draft| draft.delete_chunks(ino, chunk, &extents))
    }

    /// Puts detours in place of chunks, if their version is still this one.
    pub(super) fn make_cold(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
    ) -> Result<bool, FsError> {
        let attr = self.core.reader().attr(ino)?;
        let mut rest = Some(chunks);
        while let Some(chunks) = rest {
            let n_rows = to_u64(N_ROWS_BATCH);
            let reach = match self.core.reader().reach(ino, chunks, n_rows, |_| true) {
                // How many rows lie in a damaged block is not known: one for each chunk at most.
                Err(FsError::Unreadable { .. }) => {
                    let end = chunks.start().get().saturating_add(n_rows);
                    ChunkNo::new(end.min(chunks.end().get()))
                }
                reach => reach?,
            };
            rest = ChunkRange::new(reach, chunks.end());
            let Some(part) = ChunkRange::new(chunks.start(), reach) else { break };
            let window = MapWindow::load(self.core.reader(), ino, part, self.core.size_of(&attr))?;
            if window.runs().iter().any(|run| run.data_xid != data_xid) {
                return Ok(false);
            }
            let extents = self.core.reader().file_extents(ino, part)?;
            // The sums of the inode are wrong as well by now; they are made anew below.
            self.write(move |draft| {
                draft.delete_chunks(ino, part, &extents);
                window.set_state(|_| true, ChunkState::Cold, draft);
            })?;
        }
        self.core.residency_changed(ino);
        self.sum_resident(ino)
    }

    /// Makes the sums of an inode anew, from the map.
    pub(super) fn sum_resident(&self, ino: Ino) -> Result<bool, FsError> {
        let attr = self.core.reader().attr(ino)?;
        let marks = self.core.reader().cut_marks(ino)?;
        let mut counted = Counters::default();
        for run in self.core.reader().all_stored_runs(ino) {
            for part in marks.split(run?) {
                let file_bytes = if part.cut.is_some() { FILE_BYTES_MAX } else { attr.size_bytes };
                let bytes = part.run.chunks.len_bytes(self.core.chunk_bytes, file_bytes);
                counted.gain(part.run.state, bytes);
            }
        }
        let sums = DataSums::default().changed_by(&counted);
        self.write(move |draft| draft.put_sums(ino, sums))
    }
}
