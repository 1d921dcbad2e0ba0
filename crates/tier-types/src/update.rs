//! File updates: the persister's input.
//!
//! A range of transactions comes to one update for each inode that it changed. An update says where
//! to look and not what is there: the content is read from the mounted snapshot, so that a hundred
//! writes to one chunk cost one read, and a range whose log is lost can be replaced by "everything
//! of this inode".

use crate::{ChunkRange, Ino, Xid};

/// What a range of transactions comes to for one inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileUpdate {
    /// The inode.
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
