//! Contents: what a tarball holds, as values. They are the only input of the index.
//!
//! Whether they come from a persister that just wrote the tarball, from its table of contents, or
//! from a scan of its members makes no difference. An index is a function of the contents that were
//! applied, in whatever order and however often, and so a regenerated index is the same as the one
//! that was lost.

use tier_types::{ChunkRange, Ino, Xid};

use crate::TarballId;

/// A part of one tarball's table of contents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contents {
    /// The tarball.
    pub tarball: TarballId,
    /// The filesystem's chunk size in bytes.
    pub chunk_bytes: u32,
    /// What is in it, in the order of its members.
    pub entries: Vec<Entry>,
}

/// One thing that a tarball says. A location is a frame and a byte offset in the decompressed
/// frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// The metadata of an inode.
    Inode {
        /// The inode.
        ino: Ino,
        /// Metadata xid.
        xid: Xid,
        /// The frame in which the member's header starts.
        frame: u32,
        /// Where it starts.
        offset: u32,
    },
    /// Data of an inode that lies in one frame.
    Data {
        /// The inode.
        ino: Ino,
        /// The chunks; the last one may be cut by the end of the file.
        chunks: ChunkRange,
        /// The transaction that wrote them.
        data_xid: Xid,
        /// The frame.
        frame: u32,
        /// Where the first chunk starts.
        offset: u32,
        /// Bytes by which the last chunk is short of a whole one.
        short_bytes: u32,
    },
    /// A range was unmapped.
    Hole {
        /// The inode.
        ino: Ino,
        /// The chunks.
        chunks: ChunkRange,
        /// The transaction that unmapped them.
        data_xid: Xid,
    },
    /// A range that could not be read when it was persisted.
    Lost {
        /// The inode.
        ino: Ino,
        /// The chunks.
        chunks: ChunkRange,
        /// The transaction that wrote them.
        data_xid: Xid,
    },
    /// The inode is gone for good.
    Gone {
        /// The inode.
        ino: Ino,
        /// The transaction that ended it.
        xid: Xid,
    },
}

impl Entry {
    /// The inode that it is about.
    pub fn ino(&self) -> Ino {
        match self {
            Self::Inode { ino, .. }
            | Self::Data { ino, .. }
            | Self::Hole { ino, .. }
            | Self::Lost { ino, .. }
            | Self::Gone { ino, .. } => *ino,
        }
    }
}
