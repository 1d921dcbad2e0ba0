//! One item of the persister's input.

use crate::{ChunkRange, Ino, Xid};

/// What a range of transactions comes to for one inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileUpdate {
    /// Which inode.
    pub ino: Ino,
    /// What became of it.
    pub change: Change,
}

/// What became of an inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is gone for good; the transaction that ended it.
    Gone(Xid),
    /// Its metadata changed, and the content of these chunks may have: written, unmapped or both.
    /// Sorted, disjoint, not adjacent; empty for a change of metadata only. What each chunk now
    /// is, data or hole and from which transaction, the mounted snapshot says.
    Touched(Vec<ChunkRange>),
}
