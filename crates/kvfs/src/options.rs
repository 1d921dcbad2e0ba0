//! Settings of a filesystem: data only, no components.

use std::ops::RangeInclusive;

use crate::FsError;

/// Sizes that a chunk can have, in bytes.
const CHUNK_BYTES: RangeInclusive<u32> = 512..=1 << 20;

/// Settings of a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvfsOptions {
    /// Bytes of a chunk, from 512 to 1 MiB; fixed when the filesystem is made.
    pub chunk_bytes: u32,
    /// Bytes of the cache of blocks that were read.
    pub cache_bytes: usize,
    /// Bytes of changes that are not yet in files. The reserve of the disk is a multiple of them.
    pub write_buffer_bytes: usize,
    /// Contents of chunks of this many bytes and more lie in files of their own and not in the
    /// key-value store. They give all their space back if chunks are multiples of 4 KiB.
    pub extent_bytes_min: usize,
}

impl Default for KvfsOptions {
    fn default() -> Self {
        Self {
            chunk_bytes: 64 << 10,
            cache_bytes: 32 << 20,
            write_buffer_bytes: 48 << 20,
            extent_bytes_min: 16 << 10,
        }
    }
}

impl KvfsOptions {
    pub(crate) fn check(&self) -> Result<(), FsError> {
        if CHUNK_BYTES.contains(&self.chunk_bytes) {
            Ok(())
        } else {
            Err(FsError::Invalid("a chunk has 512 bytes to 1 MiB"))
        }
    }
}
