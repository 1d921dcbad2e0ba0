//! What was damaged or missing while a snapshot was taken: which of it is lost, and which of it an
//! earlier snapshot has.
//!
//! A chunk of which the filesystem has no bytes any more may have been archived before they went
//! bad, with the data xid that it still has. The tarballs say "lost" of it all the same, because
//! they are written without a look at the index, and the index goes on to know the data: of one
//! data xid data wins. So the index, once it has all of the snapshot, tells the two apart: lost is
//! what it knows as lost.
//!
//! An inode with such ranges counts as persisted. It is not tried again with the next snapshot, as
//! an inode is that met an error of another kind: bytes whose checksum is wrong do not become right
//! by themselves, and every later snapshot would meet the same error. What does bring them back has
//! a way of its own: new content is a change and is persisted as such, and a repair that puts a
//! detour in their place needs an archive that has them already.

use tier_index::{Index, IndexError};
use tier_types::{ByteRange, ChunkRange, Ino};

use crate::lost::{LostRange, LostRanges};
use crate::write::member_data::LostRun;

/// Runs that are looked for in the index; those beyond it are taken to be lost.
const N_KEPT: usize = 1000;

/// Runs whose bytes are damaged or missing: the first of them, and the sum of the others.
#[derive(Debug, Default)]
pub(crate) struct UnreadRuns {
    kept: Vec<UnreadRun>,
    others: LostRanges,
    /// All inodes that have such runs; those of one come one after the other.
    inodes: Vec<Ino>,
}

#[derive(Clone, Copy, Debug)]
struct UnreadRun {
    ino: Ino,
    chunks: ChunkRange,
    bytes: ByteRange,
}

/// What became of all that could not be read.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    /// It is nowhere.
    pub(crate) lost: LostRanges,
    /// An earlier snapshot has it.
    pub(crate) archived: LostRanges,
}

impl UnreadRuns {
    /// Adds a run, and says whether it is one of those that are to be told one by one.
    pub(crate) fn add(&mut self, lost: &LostRun) -> bool {
        let LostRun { ino, run, bytes, .. } = lost;
        if self.inodes.last() != Some(ino) {
            self.inodes.push(*ino);
        }
        let is_kept = self.kept.len() < N_KEPT;
        if is_kept {
            self.kept.push(UnreadRun { ino: *ino, chunks: run.chunks, bytes: *bytes });
        } else {
            self.others.add(LostRange { ino: *ino, bytes: *bytes });
        }
        is_kept
    }

    /// The inodes that have such runs.
    pub(crate) fn inodes(&self) -> &[Ino] {
        &self.inodes
    }

    /// Asks an index that has all of the snapshot.
    pub(crate) fn sort(&self, index: &Index) -> Result<Sorted, IndexError> {
        let mut sorted = Sorted::default();
        for run in &self.kept {
            run.sort(index, &mut sorted)?;
        }
        sorted.lost.append(&self.others);
        Ok(sorted)
    }
}

impl UnreadRun {
    fn sort(&self, index: &Index, sorted: &mut Sorted) -> Result<(), IndexError> {
        let mut rest = Some(self.chunks);
        while let Some(chunks) = rest {
            let found = index.find(self.ino, chunks.start())?;
            let is_archived = found.is_some_and(|extent| extent.data().is_some());
            // The snapshot said of each of these chunks that it is lost, so that the index knows
            // them all; what it would not know were lost as well.
            let extent = found.and_then(|extent| extent.chunks.intersection(chunks));
            let known = extent.unwrap_or(chunks);
            let ranges = if is_archived { &mut sorted.archived } else { &mut sorted.lost };
            let bytes = self.bytes_of(known, index.chunk_bytes());
            ranges.add(LostRange { ino: self.ino, bytes });
            rest = ChunkRange::new(known.end(), chunks.end());
        }
        Ok(())
    }

    /// Its last chunk may end early, where the file does.
    fn bytes_of(&self, chunks: ChunkRange, chunk_bytes: u32) -> ByteRange {
        let start = chunks.offset_bytes(chunk_bytes);
        let run_end = self.bytes.offset.saturating_add(self.bytes.len);
        ByteRange { offset: start, len: chunks.len_bytes(chunk_bytes, run_end) }
    }
}
