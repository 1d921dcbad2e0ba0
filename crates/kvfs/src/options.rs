//! Settings of a filesystem: data only, no components.

use std::ops::RangeInclusive;
use std::time::Duration;

use tier_types::to_usize;

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
    /// Bytes of changes that are not yet in files.
    pub write_buffer_bytes: usize,
    /// What the store may take on its disk; 0 for all of the disk.
    pub capacity_bytes: u64,
    /// From this share of what may be taken on, in percent, recalled data is not stored.
    pub critical_percent: u8,
    /// How long an operation waits for room at most, while something may make some.
    pub room_wait: Duration,
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
            capacity_bytes: 0,
            critical_percent: 95,
            room_wait: Duration::from_mins(5),
            extent_bytes_min: 16 << 10,
        }
    }
}

/// A store with a capacity has write buffers of this share of it at most.
const WRITE_BUFFER_SHARE: u64 = 16;
/// But no smaller ones than this.
const WRITE_BUFFER_BYTES_MIN: u64 = 1 << 20;

impl KvfsOptions {
    /// What is in memory lies in a preallocated log as well, and is written once more when that is
    /// given up: in a small store buffers as large as in others would take most of the room.
    pub(crate) fn effective_write_buffer_bytes(&self) -> usize {
        let share = (self.capacity_bytes / WRITE_BUFFER_SHARE).max(WRITE_BUFFER_BYTES_MIN);
        if self.capacity_bytes == 0 {
            self.write_buffer_bytes
        } else {
            self.write_buffer_bytes.min(to_usize(share))
        }
    }

    pub(crate) fn check(&self) -> Result<(), FsError> {
        if CHUNK_BYTES.contains(&self.chunk_bytes) {
            Ok(())
        } else {
            Err(FsError::Invalid("a chunk has 512 bytes to 1 MiB"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_store_has_small_write_buffers() {
        let buffers = |capacity_bytes| {
            KvfsOptions { capacity_bytes, ..KvfsOptions::default() }.effective_write_buffer_bytes()
        };
        assert_eq!(buffers(0), 48 << 20);
        assert_eq!(buffers(1 << 40), 48 << 20);
        assert_eq!(buffers(160 << 20), 10 << 20);
        assert_eq!(buffers(1), 1 << 20);
    }
}
