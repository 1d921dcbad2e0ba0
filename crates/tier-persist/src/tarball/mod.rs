//! One tarball: pax tar in independent zstd frames, with a table of contents at its end
//! (`docs/formats/tarball.md`).

mod blocks;
mod frames;
mod identity;
mod listing;
mod locate;
mod mark;
mod member;
mod parse;
mod pax;
mod reader;
mod row;
mod scanner;
mod toc;

pub use listing::{list_members, write_tar};

pub(crate) use frames::{BuiltFrames, CompressedFrame, FrameBuilder};
pub(crate) use identity::TarballIdentity;
pub(crate) use mark::FrameMark;
pub(crate) use member::{Member, Run, header_bytes_about};
pub(crate) use reader::TarballReader;
pub(crate) use row::{FrameRow, TarballRow, WireRow, decompress, decompress_start, frame_digest};
pub(crate) use scanner::{Expected, ScanVisitor, scan};
pub(crate) use toc::{TocEntry, TocWriter};

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
