//! Data: chunk maps against chunks, sums and lists, and evicted chunks against the archive. Dead runs
//! are no contradiction: they count until the reaper has deleted them, and need no chunks.

use tier_types::{ChunkRange, ChunkRun, ChunkState, FileAttr, FileKind, Ino, Xid};

use super::Scan;
use crate::FsError;
use crate::check::problem::Problem;
use crate::error::Damage;
use crate::store::{Counters, DataSums, FILE_BYTES_MAX, RowContent, StoredRun};

impl Scan<'_> {
    pub(super) fn data(&mut self, attr: &FileAttr) -> Result<(), FsError> {
        let ino = attr.ino;
        let mut counted = Counters::default();
        let mut has_warm = false;
        let marks = self.reader().cut_marks(ino)?;
        if marks.marks().iter().any(|mark| mark.xid > self.last) {
            // It would cut what is yet to be written.
            self.find(ino, Problem::Damaged(Damage::CutMarks))?;
        }
        for run in self.reader().all_stored_runs(ino) {
            for part in marks.split(run?) {
                let ChunkRun { chunks, state, .. } = part.run;
                // What is dead has no place in the file, and counts with all its bytes.
                let is_dead = part.cut.is_some();
                let file_bytes = if is_dead { FILE_BYTES_MAX } else { attr.size_bytes };
                counted.gain(state, chunks.len_bytes(self.chunk_bytes, file_bytes));
                has_warm |= state == ChunkState::Warm && !is_dead;
                if state != ChunkState::Hole && !matches!(attr.kind, FileKind::Regular) {
                    self.find(ino, Problem::DataOfNoFile)?;
                }
                self.run(attr, &part)?;
            }
        }
        self.counted.add(&counted);
        let counted = DataSums::default().changed_by(&counted);
        match self.reader().data_sums(ino) {
            Err(FsError::Damaged { damage: Damage::ResidentBytes, .. }) => {
                self.find(ino, Problem::ResidentUnreadable)?;
            }
            Err(error) => return Err(error),
            Ok(kept) if kept == counted => {}
            Ok(kept) => self.find(ino, Problem::ResidentBytes { kept, counted })?,
        }
        if has_warm && !self.reader().is_listed_warm(ino)? {
            self.find(ino, Problem::WarmUnlisted)?;
        }
        Ok(())
    }

    fn run(&mut self, attr: &FileAttr, part: &StoredRun) -> Result<(), FsError> {
        self.check_stop()?;
        let (ino, ChunkRun { chunks, state, data_xid }) = (attr.ino, part.run);
        if part.cut.is_some() && part.is_resident() {
            // Its chunks are there until the reaper comes; no reader misses one that is not.
            return Ok(());
        }
        // Before the chunks: a cold run may have millions, of which none should be here.
        let is_wanted = state == ChunkState::Cold && part.cut.is_none();
        let is_archived = !is_wanted || self.is_archived(ino, chunks, data_xid)?;
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
        if state == ChunkState::Lost && part.cut.is_none() {
            let is_archived = self.is_archived(ino, chunks, data_xid)?;
            self.find(ino, Problem::LostRange { chunks, data_xid, is_archived })?;
        }
        self.report.n_cold_runs += u64::from(is_wanted);
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
