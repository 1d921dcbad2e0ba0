//! Sizes and names that all parts of a tarball share.

/// Unit of the tar format.
pub(crate) const BLOCK_BYTES: usize = 512;
/// Everything that is not a whole inode under its own path lies here.
pub(crate) const TIER_FOLDER: &str = ".tier";
/// No frame that a writer makes is larger when decompressed; a reader refuses more.
pub(crate) const FRAME_BYTES_MAX: u32 = 32 << 20;

/// Bytes that fill the last block of `len` bytes.
pub(crate) fn padding(len: u64) -> usize {
    let block = tier_types::to_u64(BLOCK_BYTES);
    tier_types::to_usize((block - len % block) % block)
}
