//! What a filesystem operation can answer, besides success.

use tier_log::LogError;
use tier_types::{ErrorKind, HasKind, Ino, PortError};

/// An operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// No such file or directory.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory is needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory is not allowed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// The name, a value or a file is longer than it may be.
    #[error("too long: {0}")]
    TooLong(&'static str),
    /// A file would be larger than it may be.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// There is no room for it.
    #[error("no room: {0}")]
    NoSpace(&'static str),
    /// An argument makes no sense.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// An inode has as many names as it can have.
    #[error("too many links")]
    TooManyLinks,
    /// No such extended attribute.
    #[error("no such extended attribute")]
    NoXattr,
    /// It needs evicted data, and was not to wait for it.
    #[error("inode {ino} is evicted")]
    Cold {
        /// The inode.
        ino: Ino,
    },
    /// Nobody wants it any more, and it has changed nothing.
    #[error("interrupted")]
    Interrupted,
    /// Evicted data did not come back.
    #[error("cannot recall the data of inode {ino}")]
    Recall {
        /// The inode.
        ino: Ino,
        /// Why not.
        source: PortError,
    },
    /// What is stored contradicts itself.
    #[error("the filesystem is damaged at inode {ino}: {problem}")]
    Damaged {
        /// The inode; zero if it concerns all.
        ino: Ino,
        /// What is wrong.
        problem: &'static str,
    },
    /// The key-value store failed.
    #[error("cannot {operation} the key-value store")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operation log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A write failed before; what is on disk is not known until the filesystem is opened again.
    #[error("an earlier write failed; the filesystem must be opened again")]
    Poisoned,
    /// Another process has it open.
    #[error("the filesystem is open in another process")]
    Busy,
}

impl HasKind for FsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Recall { source, .. } => source.kind(),
            Self::Log(error) => error.kind(),
            Self::Busy => ErrorKind::Busy,
            Self::Cold { .. } => ErrorKind::Unavailable,
            Self::Interrupted => ErrorKind::Cancelled,
            // Answers to a question about names, "not found" among them, are no damage.
            Self::NotFound
            | Self::Exists
            | Self::NotDirectory
            | Self::IsDirectory
            | Self::NotEmpty
            | Self::TooLong(_)
            | Self::TooLarge(_)
            | Self::NoSpace(_)
            | Self::Invalid(_)
            | Self::TooManyLinks
            | Self::NoXattr
            | Self::Store { .. }
            | Self::Poisoned => ErrorKind::Failed,
        }
    }
}

impl From<FsError> for PortError {
    fn from(error: FsError) -> Self {
        Self::of(error)
    }
}
