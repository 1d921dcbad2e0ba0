//! The layout of a tarball: sizes, names and positions that all its parts share.
//!
//! A tarball is a sequence of zstd frames, and inside them a tar stream. A member is found by its
//! position: the number of a frame, and a byte offset in that frame when it is decompressed. Both
//! fit `u32`, because no frame is larger than [`FRAME_BYTES_MAX`], and a tarball ends long before
//! it has 2³² of them.

use tier_types::{to_u64, to_usize};

/// Unit of the tar format.
pub(crate) const BLOCK_BYTES: usize = 512;
/// Everything that is not a whole inode under its own path lies in this directory.
pub(crate) const TIER_DIR: &str = ".tier";
/// No frame that a writer makes is larger when decompressed; a reader refuses more.
pub(crate) const FRAME_BYTES_MAX: u32 = 32 << 20;

/// Where a member or its data starts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct FramePosition {
    /// The number of the frame, from 0.
    pub(crate) frame: u32,
    /// Where in the decompressed frame, in bytes.
    pub(crate) offset: u32,
}

/// Bytes that fill the last block of `len` bytes.
pub(crate) fn padding(len: u64) -> usize {
    let block = to_u64(BLOCK_BYTES);
    to_usize((block - len % block) % block)
}

/// A number of frames, or a length or offset within one, of a tarball that is being written.
#[expect(clippy::expect_used, reason = "a writer's limits keep all of these far below 2^32")]
pub(crate) fn to_u32(n: usize) -> u32 {
    u32::try_from(n).expect("a writer makes no frame of 4 GiB, and not that many frames")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_fills_the_last_block() {
        for (len, bytes) in [(0, 0), (1, 511), (511, 1), (512, 0), (u64::MAX, 1)] {
            assert_eq!(padding(len), bytes, "{len}");
        }
    }
}
