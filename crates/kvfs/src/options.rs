//! Settings of a filesystem: data only, no components.

use std::ops::RangeInclusive;
use std::time::Duration;

use tier_types::{to_u64, to_usize};

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

/// A small store has write buffers of this share of what it may take at most.
const WRITE_BUFFER_SHARE: u64 = 512;
/// But no smaller ones than this.
const WRITE_BUFFER_BYTES_MIN: u64 = 1 << 20;

/// Sizes of what the key-value store writes at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WriteSizes {
    /// What is in memory before it is written.
    pub(crate) buffer_bytes: usize,
    /// A file, and all files of the first level below the newest, if they are to be smaller than
    /// the key-value store makes them by itself.
    pub(crate) file_bytes: Option<u64>,
}

impl KvfsOptions {
    /// The sizes for a store on a disk of so many bytes. What is in memory lies in a log as well,
    /// and is written once more when that is given up; and files are merged by being written anew
    /// beside the old ones. In a small store all of that must fit into its reserve.
    pub(crate) fn write_sizes(&self, disk_bytes: u64) -> WriteSizes {
        let capacity = if self.capacity_bytes == 0 { u64::MAX } else { self.capacity_bytes };
        let share = (capacity.min(disk_bytes) / WRITE_BUFFER_SHARE).max(WRITE_BUFFER_BYTES_MIN);
        let share = to_usize(share);
        if share >= self.write_buffer_bytes {
            return WriteSizes { buffer_bytes: self.write_buffer_bytes, file_bytes: None };
        }
        WriteSizes { buffer_bytes: share, file_bytes: Some(to_u64(share / 2)) }
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
    fn a_small_store_writes_little_at_a_time() {
        let sizes = |capacity_bytes, disk_bytes| {
            KvfsOptions { capacity_bytes, ..KvfsOptions::default() }.write_sizes(disk_bytes)
        };
        let small = |mebibytes: usize| WriteSizes {
            buffer_bytes: mebibytes << 20,
            file_bytes: Some(to_u64(mebibytes << 19)),
        };
        let large = WriteSizes { buffer_bytes: 48 << 20, file_bytes: None };
        assert_eq!([sizes(0, 1 << 40), sizes(1 << 40, 1 << 40)], [large; 2]);
        assert_eq!([sizes(1 << 30, 1 << 40), sizes(0, 1 << 30)], [small(2); 2]);
        assert_eq!([sizes(1, 1 << 40), sizes(0, 1)], [small(1); 2]);
    }
}
