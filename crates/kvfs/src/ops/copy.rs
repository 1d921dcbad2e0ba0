//! Copies of ranges within the filesystem.

use tier_types::{ByteRange, Ino, to_u64, to_usize};

use super::change::Blocking;
use crate::FsError;
use crate::core::Kvfs;

/// Bytes that are copied at a time from file to file.
const COPY_BYTES: u64 = 1 << 20;
/// Bytes of one copy; for more, the caller asks again.
const COPIED_BYTES_MAX: u64 = 64 << 20;

/// A byte of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilePosition {
    /// The file.
    pub ino: Ino,
    /// How many bytes lie before it.
    pub offset: u64,
}

impl Kvfs {
    /// Copies a range from one file to another, or within one, and returns how many bytes: fewer
    /// where the source ends, or where it is much.
    pub fn copy_range(
        &self,
        blocking: Blocking<'_>,
        from: FilePosition,
        to: FilePosition,
        len: u64,
    ) -> Result<u64, FsError> {
        let range = |position: FilePosition| ByteRange { offset: position.offset, len };
        if from.ino == to.ino && range(from).overlaps(range(to)) {
            return Err(FsError::Invalid("the ranges overlap"));
        }
        // Where the source ends now: a copy within one file may make it longer, and must not go on
        // with what it has written itself.
        let source_bytes = self.reader().regular(from.ino)?.size_bytes;
        let len = len.min(COPIED_BYTES_MAX).min(source_bytes.saturating_sub(from.offset));
        let mut copied = 0;
        while copied < len {
            let n = to_usize((len - copied).min(COPY_BYTES));
            // Piece by piece, each a transaction of its own: a copy is not atomic, as on any other
            // filesystem, and memory does not grow with it.
            let piece = self.read_with(blocking, from.ino, from.offset + copied, n);
            let written = piece.and_then(|piece| {
                self.write_with(blocking, to.ino, to.offset + copied, &piece)?;
                Ok(to_u64(piece.len()))
            });
            match written {
                Ok(0) => break,
                Ok(n) => copied += n,
                // What was copied before counts.
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(copied)
    }
}
