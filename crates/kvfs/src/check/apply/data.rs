//! Repairs of data: lost chunks that the archive has, chunks that belong to nothing, and sums.

use tier_types::{ChunkNo, ChunkRange, ChunkState, Ino, Xid};

use super::Apply;
use crate::FsError;
use crate::store::extents::ChunkExtent;
use crate::store::resident_bytes;
use crate::tx::MapWindow;

impl Apply<'_> {
    pub(super) fn delete_chunk(&self, ino: Ino, chunk: ChunkNo) -> Result<bool, FsError> {
        let Some(chunk) = ChunkRange::one(chunk) else { return Ok(false) };
        let extents = self.0.reader().file_extents(ino, chunk)?;
        self.write(move |draft| draft.delete_chunks(ino, chunk, &extents))
    }

    /// Puts detours in place of chunks, if their version is still this one.
    pub(super) fn make_cold(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
    ) -> Result<bool, FsError> {
        let attr = self.0.reader().attr(ino)?;
        let window = MapWindow::load(self.0.reader(), ino, chunks, self.0.size_of(&attr))?;
        if window.runs().iter().any(|run| run.data_xid != data_xid) {
            return Ok(false);
        }
        let extents = self.readable_extents(ino, chunks)?;
        // The sum of the inode is wrong as well by now; it is made anew below, from the map.
        self.write(move |draft| {
            draft.delete_chunks(ino, chunks, &extents);
            window.set_state(|_| true, ChunkState::Cold, draft);
        })?;
        self.0.residency_changed(ino);
        self.sum_resident(ino)
    }

    /// The extents of chunks, as far as their rows can be read. What a row in a damaged block refers
    /// to is not known, and stays where it is.
    fn readable_extents(&self, ino: Ino, chunks: ChunkRange) -> Result<Vec<ChunkExtent>, FsError> {
        let all = self.0.reader().file_extents(ino, chunks);
        if !matches!(all, Err(FsError::Unreadable { .. })) {
            return all;
        }
        let mut extents = Vec::new();
        for number in chunks.start().get()..chunks.end().get() {
            let Some(one) = ChunkRange::one(ChunkNo::new(number)) else { break };
            match self.0.reader().file_extents(ino, one) {
                Err(FsError::Unreadable { .. }) => {}
                found => extents.extend(found?),
            }
        }
        Ok(extents)
    }

    pub(super) fn sum_resident(&self, ino: Ino) -> Result<bool, FsError> {
        let attr = self.0.reader().attr(ino)?;
        let mut bytes = 0;
        for run in self.0.reader().all_runs(ino, ChunkNo::new(0)) {
            bytes += resident_bytes(&[run?], self.0.chunk_bytes, attr.size_bytes);
        }
        self.write(move |draft| match bytes {
            0 => draft.delete_resident(ino),
            bytes => draft.put_resident(ino, bytes),
        })
    }
}
