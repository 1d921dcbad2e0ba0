//! Chunk rows, put together to what a reader wants: one buffer of whole chunks.
//!
//! Rows come in order of chunks. Extents that follow each other in a file are collected and read in
//! one request, which is what makes a sequential read of a file that was written sequentially
//! cheap; the checksum of each chunk is compared all the same.

use tier_types::{Ino, to_usize};

use super::content::{Content, FileExtent, Patches};
use super::files::ExtentFiles;
use crate::FsError;
use crate::error::Damage;

/// Bytes that are read in one request.
const READ_BYTES_MAX: usize = 4 << 20;

/// Appends chunks to a buffer, each but the last filled up with zeros.
pub(in crate::store) struct Assembler<'a> {
    files: &'a ExtentFiles,
    ino: Ino,
    chunk_bytes: usize,
    out: &'a mut Vec<u8>,
    /// Where the chunks that are in the buffer end when the last one is filled up.
    end: usize,
    /// Extents that follow each other in a file and are not yet read, all but the last of the size
    /// of a chunk.
    pending: Vec<FileExtent>,
}

impl<'a> Assembler<'a> {
    pub(in crate::store) fn new(
        files: &'a ExtentFiles,
        ino: Ino,
        chunk_bytes: u32,
        out: &'a mut Vec<u8>,
    ) -> Self {
        let chunk_bytes = to_usize(u64::from(chunk_bytes));
        let end = out.len();
        Self { files, ino, chunk_bytes, out, end, pending: Vec::new() }
    }

    /// The row of the next chunk; `None` if there is none.
    pub(in crate::store) fn push(&mut self, row: Option<&[u8]>) -> Result<(), FsError> {
        match row.and_then(Content::from_bytes) {
            None => Err(FsError::damaged(self.ino, Damage::LostChunk)),
            Some(Content::Inline(bytes)) => {
                self.flush()?;
                self.out.resize(self.end, 0);
                self.out.extend_from_slice(bytes.get(..self.chunk_bytes).unwrap_or(bytes));
                self.end += self.chunk_bytes;
                Ok(())
            }
            Some(Content::InFile(extent, patches)) => {
                if to_usize(u64::from(extent.len)) > self.chunk_bytes {
                    return Err(FsError::damaged(self.ino, Damage::LostChunk));
                }
                if !self.follows(extent) {
                    self.flush()?;
                }
                self.pending.push(extent);
                if patches.is_empty() { Ok(()) } else { self.patch(patches) }
            }
        }
    }

    /// Reads what was collected; without it, the last chunks are missing.
    pub(in crate::store) fn finish(mut self) -> Result<(), FsError> {
        self.flush()
    }

    /// Whether an extent can be read in one request with those that are pending.
    fn follows(&self, extent: FileExtent) -> bool {
        self.pending.last().is_none_or(|last| {
            last.place.file == extent.place.file
                && last.end_offset() == extent.place.offset
                && to_usize(u64::from(last.len)) == self.chunk_bytes
                && (self.pending.len() + 1) * self.chunk_bytes <= READ_BYTES_MAX
        })
    }

    /// Writes patches into the chunk that was pushed last.
    fn patch(&mut self, patches: Patches<'_>) -> Result<(), FsError> {
        self.flush()?;
        patches.apply(self.out, self.end - self.chunk_bytes);
        // A patch within the largest of all chunks may reach beyond the end of this one.
        if self.out.len() > self.end {
            return Err(FsError::damaged(self.ino, Damage::LostChunk));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), FsError> {
        let (Some(first), Some(last)) = (self.pending.first(), self.pending.last()) else {
            return Ok(());
        };
        let len = to_usize(last.end_offset() - first.place.offset);
        self.out.resize(self.end + len, 0);
        let (_, bytes) = self.out.split_at_mut(self.end);
        if !self.files.read_at(first.place, bytes)? {
            return Err(self.files.damaged(self.ino, *first));
        }
        let mut chunks = bytes.chunks(self.chunk_bytes).zip(&self.pending);
        if let Some((_, extent)) = chunks.find(|(c, extent)| crc32c::crc32c(c) != extent.checksum) {
            return Err(self.files.damaged(self.ino, *extent));
        }
        self.end += self.pending.len() * self.chunk_bytes;
        self.pending.clear();
        Ok(())
    }
}
