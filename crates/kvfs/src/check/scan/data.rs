//! Data: chunk maps against chunks, sums and lists, and evicted chunks against the archive.

use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, FileAttr, FileKind, Ino, Xid};

use super::Scan;
use crate::FsError;
use crate::check::problem::Problem;
use crate::error::Damage;
use crate::store::RowContent;

impl Scan<'_> {
    pub(super) fn data(&mut self, attr: &FileAttr) -> Result<(), FsError> {
        let ino = attr.ino;
        let before = self.counted.resident_bytes;
        let mut has_warm = false;
        for run in self.reader().all_runs(ino, ChunkNo::new(0)) {
            let run = run?;
            let bytes = run.chunks.len_bytes(self.chunk_bytes, attr.size_bytes);
            self.counted.gain(run.state, bytes);
            has_warm |= run.state == ChunkState::Warm;
            if run.state != ChunkState::Hole && !matches!(attr.kind, FileKind::Regular) {
                self.find(ino, Problem::DataOfNoFile)?;
            }
            self.run(attr, &run)?;
        }
        let counted = self.counted.resident_bytes - before;
        match self.reader().resident_bytes(ino) {
            Err(FsError::Damaged { damage: Damage::ResidentBytes, .. }) => {
                self.find(ino, Problem::ResidentUnreadable)?;
            }
            Err(error) => return Err(error),
            Ok(kept) if i64::try_from(kept) == Ok(counted) => {}
            Ok(kept) => self.find(ino, Problem::ResidentBytes { kept, counted })?,
        }
        if has_warm && !self.reader().is_listed_warm(ino)? {
            self.find(ino, Problem::WarmUnlisted)?;
        }
        Ok(())
    }

    fn run(&mut self, attr: &FileAttr, run: &ChunkRun) -> Result<(), FsError> {
        self.check_stop()?;
        let (ino, ChunkRun { chunks, state, data_xid }) = (attr.ino, *run);
        // Before the chunks: a cold run may have millions, of which none should be here.
        let is_archived = state != ChunkState::Cold || self.is_archived(ino, chunks, data_xid)?;
        let is_resident = matches!(state, ChunkState::Hot | ChunkState::Warm);
        let mut expected = chunks.start();
        for row in self.reader().chunk_rows(ino, chunks)? {
            let row = row?;
            let chunk = row.chunk;
            self.report.n_chunks += 1;
            if !is_resident {
                // Within the file it may be data whose place in the map is lost.
                let start = chunk.get().saturating_mul(u64::from(self.chunk_bytes));
                let is_beyond_end = state == ChunkState::Hole && start >= attr.size_bytes;
                self.find(ino, Problem::ChunkUnmapped { chunk, is_beyond_end })?;
                continue;
            }
            if let Some(missing) = ChunkRange::new(expected, chunk) {
                self.lost(ino, missing, data_xid)?;
            }
            let is_lost = match row.content {
                RowContent::Lost => true,
                RowContent::Inline => false,
                RowContent::InFile(extent) => !self.reader().is_whole(extent)?,
            };
            if let Some(one) = ChunkRange::one(chunk).filter(|_| is_lost) {
                self.lost(ino, one, data_xid)?;
            }
            expected = chunk.next();
        }
        if let Some(missing) = ChunkRange::new(expected, chunks.end()).filter(|_| is_resident) {
            self.lost(ino, missing, data_xid)?;
        }
        if state == ChunkState::Lost {
            let is_archived = self.is_archived(ino, chunks, data_xid)?;
            self.find(ino, Problem::LostRange { chunks, data_xid, is_archived })?;
        }
        self.report.n_cold_runs += u64::from(state == ChunkState::Cold);
        if !is_archived {
            self.find(ino, Problem::NotArchived { chunks, data_xid })?;
        }
        Ok(())
    }

    /// Chunks that should be in the store and are not. If the archive has just this version of
    /// them, they come from there.
    fn lost(&mut self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<(), FsError> {
        let is_archived = self.is_archived(ino, chunks, data_xid)?;
        self.find(ino, Problem::ChunksLost { chunks, data_xid, is_archived })
    }

    fn is_archived(&self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<bool, FsError> {
        let there = self.archive.is_persisted(ino, chunks, data_xid);
        there.map_err(|source| FsError::Recall { ino, source })
    }
}
