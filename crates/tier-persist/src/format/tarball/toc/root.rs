//! The root of a table of contents: the last member of a tarball, which lists the parts of the
//! table.

use serde::{Deserialize, Serialize};
use tier_types::to_u64;

use crate::format::postcard;
use crate::format::tarball::header::append_plain_header;
use crate::format::tarball::layout::{BLOCK_BYTES, padding, to_u32};
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::pax::PaxWriter;

/// The path of the member that holds the root.
pub(crate) const ROOT_PATH: &[u8] = b".tier/toc/root";

/// The frames of the parts of the table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct TocRoot {
    pub(crate) parts: Vec<TocPart>,
    pub(crate) n_members: u64,
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
    /// The last frame of the tarball: the root as a member, and the end of the archive.
    pub(super) fn to_frame(&self, mark: &FrameMark) -> Vec<u8> {
        let PlainMember { mut blocks, .. } =
            PlainMember::new(ROOT_PATH, &postcard::to_bytes(self), mark);
        // Two blocks of zeros end a tar archive.
        blocks.resize(blocks.len() + 2 * BLOCK_BYTES, 0);
        blocks
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::parse(bytes)
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
