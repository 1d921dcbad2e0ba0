//! Data: chunk maps against chunks, sums and lists, and evicted chunks against the archive. Dead
//! runs are no contradiction: they count until the reaper has deleted them, and need no chunks.
//!
//! Whether a chunk can be read is found out by reading it, wherever its bytes lie: the rows say
//! which chunks there are, the content of each is read by itself, and the kind of the error tells
//! a lost one from one that is there and damaged. Where the rows cannot be read in order, so many
//! chunks as may lie in a damaged block are read by number, and then the rows are tried again.

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, FileAttr, FileKind, Ino, PersistedPart, Xid,
    persisted_parts, with_causes,
};

use super::Scan;
use crate::FsError;
use crate::check::problem::Problem;
use crate::error::Damage;
use crate::store::{Counters, DataSums, FILE_BYTES_MAX, StoredRun};

/// Chunks that are read by number where their rows cannot be read in order.
const N_BY_NUMBER: u64 = 256;

/// A resident run that is being read.
struct Resident {
    ino: Ino,
    data_xid: Xid,
    /// Neighbours that cannot be read for the same reason.
    unreadable: Option<Unreadable>,
}

struct Unreadable {
    chunks: ChunkRange,
    reason: String,
}

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
            // New sums are read before those in a damaged block.
            Err(
                FsError::Damaged { damage: Damage::ResidentBytes, .. } | FsError::Unreadable { .. },
            ) => self.find(ino, Problem::ResidentUnreadable)?,
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
        let is_wanted = state == ChunkState::Cold && part.cut.is_none();
        if part.is_resident() {
            return self.resident(ino, chunks, data_xid);
        }
        for row in self.reader().chunk_rows(ino, chunks)? {
            let chunk = match row {
                // What lies in a damaged block belongs to another run, or to nothing.
                Err(FsError::Unreadable { .. }) => break,
                row => row?.chunk,
            };
            self.report.n_chunks += 1;
            // Within the file it may be data whose place in the map is lost.
            let start = chunk.get().saturating_mul(u64::from(self.chunk_bytes));
            let is_beyond_end = state == ChunkState::Hole && start >= attr.size_bytes;
            self.find(ino, Problem::ChunkUnmapped { chunk, is_beyond_end })?;
        }
        if state == ChunkState::Lost && part.cut.is_none() {
            self.each_part(ino, chunks, data_xid, |chunks, is_archived| {
                Some(Problem::LostRange { chunks, data_xid, is_archived })
            })?;
        }
        self.report.n_cold_runs += u64::from(is_wanted);
        if is_wanted {
            self.each_part(ino, chunks, data_xid, |chunks, is_archived| {
                (!is_archived).then_some(Problem::NotArchived { chunks, data_xid })
            })?;
        }
        Ok(())
    }

    /// Chunks that must all be in the store, and readable.
    fn resident(&mut self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<(), FsError> {
        let mut run = Resident { ino, data_xid, unreadable: None };
        let mut rest = Some(chunks);
        while let Some(chunks) = rest {
            let Some(at) = self.resident_rows(&mut run, chunks)? else { break };
            // Rows are damaged from here on: they tell neither what is there nor what is missing.
            let end = at.get().saturating_add(N_BY_NUMBER).min(chunks.end().get());
            for number in at.get()..end {
                self.resident_chunk(&mut run, ChunkNo::new(number))?;
            }
            rest = ChunkRange::new(ChunkNo::new(end), chunks.end());
        }
        self.tell_unreadable(&mut run)
    }

    /// Reads chunks by their rows; returns from where on that is not possible.
    fn resident_rows(
        &mut self,
        run: &mut Resident,
        chunks: ChunkRange,
    ) -> Result<Option<ChunkNo>, FsError> {
        let mut expected = chunks.start();
        for row in self.reader().chunk_rows(run.ino, chunks)? {
            self.check_stop()?;
            let chunk = match row {
                Err(FsError::Unreadable { .. }) => return Ok(Some(expected)),
                row => row?.chunk,
            };
            if let Some(missing) = ChunkRange::new(expected, chunk) {
                self.lost(run.ino, missing, run.data_xid)?;
            }
            self.resident_chunk(run, chunk)?;
            expected = chunk.next();
        }
        if let Some(missing) = ChunkRange::new(expected, chunks.end()) {
            self.lost(run.ino, missing, run.data_xid)?;
        }
        Ok(None)
    }

    /// Reads a chunk.
    fn resident_chunk(&mut self, run: &mut Resident, chunk: ChunkNo) -> Result<(), FsError> {
        let Some(one) = ChunkRange::one(chunk) else { return Ok(()) };
        self.content.clear();
        let read =
            self.chunks.reader().read_chunks(run.ino, one, self.chunk_bytes, &mut self.content);
        match read {
            Ok(()) => self.report.n_chunks += 1,
            Err(FsError::Damaged { damage: Damage::LostChunk, .. }) => {
                self.lost(run.ino, one, run.data_xid)?;
            }
            Err(error) if error.is_damage() => {
                self.report.n_chunks += 1;
                match &mut run.unreadable {
                    Some(Unreadable { chunks, .. }) if chunks.end() == chunk => {
                        *chunks = ChunkRange::new(chunks.start(), one.end()).unwrap_or(*chunks);
                    }
                    _ => {
                        self.tell_unreadable(run)?;
                        let reason = with_causes(&error);
                        run.unreadable = Some(Unreadable { chunks: one, reason });
                    }
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells what could not be read up to here. If the archive has just this version of it, it
    /// comes from there.
    fn tell_unreadable(&mut self, run: &mut Resident) -> Result<(), FsError> {
        let Some(Unreadable { chunks, reason }) = run.unreadable.take() else { return Ok(()) };
        let (ino, data_xid) = (run.ino, run.data_xid);
        self.report.n_unreadable += 1;
        self.each_part(ino, chunks, data_xid, |chunks, is_archived| {
            let reason = reason.clone();
            Some(Problem::ChunksUnreadable { chunks, data_xid, is_archived, reason })
        })
    }

    /// Chunks that should be in the store and are not. If the archive has just this version of
    /// them, they come from there.
    fn lost(&mut self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<(), FsError> {
        self.each_part(ino, chunks, data_xid, |chunks, is_archived| {
            Some(Problem::ChunksLost { chunks, data_xid, is_archived })
        })
    }

    /// Finds what is wrong with each part of some chunks, by whether the archive has just this
    /// version of it: one chunk that it lacks keeps no other one from being taken from there.
    fn each_part(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
        problem: impl Fn(ChunkRange, bool) -> Option<Problem>,
    ) -> Result<(), FsError> {
        for part in persisted_parts(self.archive, ino, chunks, data_xid) {
            let PersistedPart { chunks, is_persisted } =
                part.map_err(|source| FsError::Recall { ino, source })?;
            if let Some(problem) = problem(chunks, is_persisted) {
                self.find(ino, problem)?;
            }
        }
        Ok(())
    }
}
