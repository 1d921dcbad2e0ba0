//! The root of a tarball's tables: its last member, which lists the frames before its own, and the
//! parts of the table of contents.
//!
//! The manifest has the digest of the root's frame, and so vouches for every other frame as well.

use serde::{Deserialize, Serialize};
use tier_types::to_u64;

use crate::format::postcard;
use crate::format::tarball::header::append_plain_header;
use crate::format::tarball::layout::{BLOCK_BYTES, padding, to_u32};
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::pax::PaxWriter;
use crate::format::tarball::row::{FrameRow, WireFrame, place_frames};

/// The path of the member that holds the root.
pub(crate) const ROOT_PATH: &[u8] = b".tier/toc/root";

/// Version of the root and of the table that it lists. It stands first.
const VERSION: u32 = 1;

/// All frames but its own, and which of them are parts of the table of contents.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct TocRoot {
    version: u32,
    pub(crate) n_members: u64,
    pub(crate) parts: Vec<TocPart>,
    frames: Vec<WireFrame>,
}

/// Where a part of the table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct TocPart {
    /// The frame that the part has for itself.
    pub(crate) frame: u32,
    /// Where its content starts in the frame.
    pub(crate) offset: u32,
    /// Length of the content in bytes.
    pub(crate) len: u32,
}

impl TocRoot {
    pub(crate) fn new(n_members: u64, parts: Vec<TocPart>, frames: &[FrameRow]) -> Self {
        let frames = frames.iter().map(WireFrame::from).collect();
        Self { version: VERSION, n_members, parts, frames }
    }

    /// The frames before its own.
    pub(crate) fn frames(&self) -> Vec<FrameRow> {
        place_frames(self.frames.iter().copied())
    }

    /// The last frame of the tarball: the root as a member, and the end of the archive.
    pub(crate) fn to_frame(&self, mark: &FrameMark) -> Vec<u8> {
        let PlainMember { mut blocks, .. } =
            PlainMember::new(ROOT_PATH, &postcard::to_bytes(self), mark);
        // Two blocks of zeros end a tar archive.
        blocks.resize(blocks.len() + 2 * BLOCK_BYTES, 0);
        blocks
    }

    /// `None` if it cannot be read, or is of another version.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::parse(bytes).filter(|root: &Self| root.version == VERSION)
    }
}

/// A plain file of the format's own, alone in a frame.
pub(super) struct PlainMember {
    pub(super) blocks: Vec<u8>,
    /// Where its content starts.
    pub(super) offset: u32,
}

impl PlainMember {
    pub(super) fn new(path: &[u8], content: &[u8], mark: &FrameMark) -> Self {
        // It starts a frame, and every frame that does not continue another one has the mark.
        let mut pax = PaxWriter::default();
        mark.put(&mut pax);
        let content_bytes = to_u64(content.len());
        // A block each for the extended header, its records, the header, and the padding.
        let mut blocks = Vec::with_capacity(content.len() + 4 * BLOCK_BYTES);
        append_plain_header(path, pax, content_bytes, &mut blocks);
        let offset = to_u32(blocks.len());
        blocks.extend_from_slice(content);
        blocks.resize(blocks.len() + padding(content_bytes), 0);
        Self { blocks, offset }
    }
}
