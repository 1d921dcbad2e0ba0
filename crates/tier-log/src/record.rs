//! Log records: one logged operation each, with its place in the order of all.
//!
//! A record says which inodes, names and byte ranges an operation concerned. It is enough to find
//! what changed and to tell the history of what was deleted; it is not enough to do the operation
//! again, because the content that was written is not in it. Inode numbers are never reused, and
//! the end of an inode is a record of its own ([`Operation::Gone`]): the last name may go long
//! before the last open file does.

use tier_types::{FileName, Ino, Link, Timestamp, Xid};

/// An operation with its place in the order of all operations.
///
/// ```
/// use tier_log::{LogError, LogRecord, Operation};
/// use tier_types::{Ino, Timestamp, Xid};
///
/// let operation = Operation::Write { ino: Ino::new(5), offset: 0, len: 100 };
/// let record = LogRecord { xid: Xid::new(9), time: Timestamp::default(), operation };
/// let bytes = record.to_bytes();
/// assert_eq!(LogRecord::from_bytes(record.xid, &bytes)?, record);
/// let cut = LogRecord::from_bytes(record.xid, &bytes[1..]);
/// assert!(matches!(cut, Err(LogError::DamagedRecord(_))));
/// # Ok::<(), LogError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// Its transaction id.
    pub xid: Xid,
    /// When it was done.
    pub time: Timestamp,
    /// What was done.
    pub operation: Operation,
}

/// What [`Operation::Mknod`] made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeKind {
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// What was done. Offsets, lengths and sizes are in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// A regular file was made; without a link it is a temporary file that may be linked later.
    Create {
        /// The new inode.
        ino: Ino,
        /// Its first name.
        link: Option<Link>,
    },
    /// A directory was made. The root has no link.
    Mkdir {
        /// The new inode.
        ino: Ino,
        /// Its name.
        link: Option<Link>,
    },
    /// A special file was made.
    Mknod {
        /// The new inode.
        ino: Ino,
        /// Its first name.
        link: Link,
        /// What it is.
        kind: NodeKind,
    },
    /// A symbolic link was made.
    Symlink {
        /// The new inode.
        ino: Ino,
        /// Its first name.
        link: Link,
    },
    /// An inode got one more name.
    Link {
        /// The inode.
        ino: Ino,
        /// The new name.
        link: Link,
    },
    /// An inode lost a name; a directory lost its only one.
    Unlink {
        /// The inode.
        ino: Ino,
        /// The name that is gone.
        link: Link,
    },
    /// An inode changed a name.
    Rename {
        /// The inode.
        ino: Ino,
        /// The old name.
        from: Link,
        /// The new name.
        to: Link,
        /// The inode that had the new name before and lost it.
        replaced: Option<Ino>,
    },
    /// Two inodes swapped names.
    Exchange {
        /// The inode that had the first name.
        ino: Ino,
        /// The first name.
        from: Link,
        /// The second name.
        to: Link,
        /// The inode that had the second name.
        other: Ino,
    },
    /// Data was written.
    Write {
        /// The inode.
        ino: Ino,
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// The size was set.
    Truncate {
        /// The inode.
        ino: Ino,
        /// Size before.
        old_size: u64,
        /// Size after.
        new_size: u64,
    },
    /// A range was unmapped, or zeroed.
    PunchHole {
        /// The inode.
        ino: Ino,
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Mode, owner or times were set.
    SetAttr {
        /// The inode.
        ino: Ino,
    },
    /// An extended attribute was set.
    SetXattr {
        /// The inode.
        ino: Ino,
        /// The attribute's name.
        name: Vec<u8>,
    },
    /// An extended attribute was removed.
    RemoveXattr {
        /// The inode.
        ino: Ino,
        /// The attribute's name.
        name: Vec<u8>,
    },
    /// The inode is gone: no name, no open handle.
    Gone {
        /// The inode.
        ino: Ino,
    },
}

impl Operation {
    /// The inode that the operation is about.
    pub fn ino(&self) -> Ino {
        // One inode each: the other one of a rename or an exchange is added by the fold.
        match self {
            Self::Create { ino, .. }
            | Self::Mkdir { ino, .. }
            | Self::Mknod { ino, .. }
            | Self::Symlink { ino, .. }
            | Self::Link { ino, .. }
            | Self::Unlink { ino, .. }
            | Self::Rename { ino, .. }
            | Self::Exchange { ino, .. }
            | Self::Write { ino, .. }
            | Self::Truncate { ino, .. }
            | Self::PunchHole { ino, .. }
            | Self::SetAttr { ino }
            | Self::SetXattr { ino, .. }
            | Self::RemoveXattr { ino, .. }
            | Self::Gone { ino } => *ino,
        }
    }

    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Mkdir { .. } => "mkdir",
            Self::Mknod { .. } => "mknod",
            Self::Symlink { .. } => "symlink",
            Self::Link { .. } => "link",
            Self::Unlink { .. } => "unlink",
            Self::Rename { .. } => "rename",
            Self::Exchange { .. } => "exchange",
            Self::Write { .. } => "write",
            Self::Truncate { .. } => "truncate",
            Self::PunchHole { .. } => "punch-hole",
            Self::SetAttr { .. } => "setattr",
            Self::SetXattr { .. } => "setxattr",
            Self::RemoveXattr { .. } => "removexattr",
            Self::Gone { .. } => "gone",
        }
    }

    /// The names that it is about, and for each the directory.
    pub fn links(&self) -> Vec<&Link> {
        match self {
            // The root has no name, nor has a file that was made without one.
            Self::Create { link, .. } | Self::Mkdir { link, .. } => link.iter().collect(),
            Self::Mknod { link, .. }
            | Self::Symlink { link, .. }
            | Self::Link { link, .. }
            | Self::Unlink { link, .. } => vec![link],
            // Both directories change, also where an exchange leaves each of them as many names.
            Self::Rename { from, to, .. } | Self::Exchange { from, to, .. } => vec![from, to],
            Self::Write { .. }
            | Self::Truncate { .. }
            | Self::PunchHole { .. }
            | Self::SetAttr { .. }
            | Self::SetXattr { .. }
            | Self::RemoveXattr { .. }
            | Self::Gone { .. } => Vec::new(),
        }
    }

    /// Whether it makes the inode.
    pub(crate) fn creates(&self) -> bool {
        // `Link` is not among them: it names an inode that is there, if only as a temporary file.
        matches!(
            self,
            Self::Create { .. } | Self::Mkdir { .. } | Self::Mknod { .. } | Self::Symlink { .. }
        )
    }
}

/// A name from untrusted bytes.
pub(crate) fn checked_name(bytes: &[u8]) -> Result<FileName, &'static str> {
    FileName::new(bytes).ok_or("a file name that cannot be one")
}
