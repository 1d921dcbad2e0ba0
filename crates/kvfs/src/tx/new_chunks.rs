//! Contents of chunks on their way into the store.
//!
//! What is large enough is appended to an extent file before its transaction, on the thread of the
//! operation, so that the leader of a batch writes rows and no data. The rest goes into rows. Until
//! the transaction is committed nothing refers to what was appended, and dropping this gives it
//! back.

use std::sync::Arc;

use tier_types::{ChunkNo, Ino, to_u64, to_usize};

use super::Draft;
use crate::FsError;
use crate::store::ChunkBefore;
use crate::store::extents::{Appended, ExtentFiles, FileExtent};

/// Where new contents of chunks go.
#[derive(Clone, Debug)]
pub(crate) struct ChunkWriter {
    files: Arc<ExtentFiles>,
    chunk_bytes: u32,
    /// Contents of fewer bytes go into rows.
    extent_bytes_min: usize,
}

/// Contents of chunks that follow each other.
#[derive(Debug)]
pub(crate) struct NewChunks {
    first: ChunkNo,
    appended: Option<Appended>,
    extents: Vec<FileExtent>,
    inline: Vec<Vec<u8>>,
}

impl ChunkWriter {
    pub(crate) fn new(files: Arc<ExtentFiles>, chunk_bytes: u32, extent_bytes_min: usize) -> Self {
        Self { files, chunk_bytes, extent_bytes_min }
    }

    /// Takes the contents of the chunks from `first` on. All but the last one are whole.
    pub(crate) fn write(&self, first: ChunkNo, bytes: &[u8]) -> Result<NewChunks, FsError> {
        let chunk_bytes = to_usize(u64::from(self.chunk_bytes));
        let last_len = bytes.len() % chunk_bytes;
        // Only the last chunk can be shorter than the others, so that it alone can be too small for
        // an extent where they are not.
        let large_len = if chunk_bytes < self.extent_bytes_min {
            0
        } else if last_len < self.extent_bytes_min {
            bytes.len() - last_len
        } else {
            bytes.len()
        };
        let (large, small) = bytes.split_at(large_len);
        let (appended, extents) = if large.is_empty() {
            (None, Vec::new())
        } else {
            let appended = self.files.append(large)?;
            let extents = appended.extents(large, self.chunk_bytes);
            (Some(appended), extents)
        };
        let inline = small.chunks(chunk_bytes).map(<[u8]>::to_vec).collect();
        Ok(NewChunks { first, appended, extents, inline })
    }
}

impl NewChunks {
    /// How many chunks they are.
    pub(crate) fn len(&self) -> u64 {
        to_u64(self.extents.len() + self.inline.len())
    }

    /// Writes the rows. `before` tells what each chunk is now.
    pub(crate) fn put(self, ino: Ino, before: impl Fn(ChunkNo) -> ChunkBefore, draft: &mut Draft) {
        let mut chunk = self.first;
        for extent in self.extents {
            draft.put_extent(ino, chunk, extent, before(chunk));
            chunk = chunk.next();
        }
        if let Some(appended) = self.appended {
            draft.hold(appended);
        }
        for content in self.inline {
            draft.put_chunk(ino, chunk, &content);
            chunk = chunk.next();
        }
    }
}
