//! The error type of every operation, and what can be wrong with stored data.
//!
//! Three kinds of errors share one type: answers that POSIX foresees (no such file), which a mount
//! turns into error numbers; trouble (the store failed, data did not come back), which is logged
//! where it ends; and [`Damage`], which the check can find and the repair may mend. An operation
//! that met damage has changed nothing.

use std::path::PathBuf;
use std::{fmt, io};

use tier_log::LogError;
use tier_types::{ByteRange, ChunkNo, ChunkRange, ErrorKind, HasKind, Ino, PortError};

use crate::loss::Loss;

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
    /// The extended attributes of a file take as much as they may.
    #[error("no room: {0}")]
    XattrsFull(&'static str),
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
    /// The request was cancelled before it changed anything.
    #[error("interrupted")]
    Interrupted,
    /// Other operations changed or evicted the data again and again before this one was done with
    /// it. Nothing was changed.
    #[error("inode {ino} {problem}")]
    Contended {
        /// The inode.
        ino: Ino,
        /// What overtook the operation.
        problem: &'static str,
    },
    /// Evicted data did not come back.
    #[error("cannot recall the data of inode {ino}")]
    Recall {
        /// The inode.
        ino: Ino,
        /// Why not.
        source: PortError,
    },
    /// Data that could not be read when it was persisted, in a filesystem that was restored from
    /// that archive.
    #[error(
        "bytes {bytes} of inode {ino} are lost: they could not be read when they were persisted; \
         only new content for all of them takes their place"
    )]
    LostRange {
        /// The inode.
        ino: Ino,
        /// What of it is lost; of a longer range perhaps only the part that was met.
        bytes: ByteRange,
    },
    /// What is stored contradicts itself.
    #[error("the filesystem is damaged{}: {damage}", at_inode(*ino))]
    Damaged {
        /// The inode; `None` if the damage concerns the filesystem as a whole.
        ino: Option<Ino>,
        /// What is wrong.
        damage: Damage,
    },
    /// Rows cannot be read: the files of the key-value store are damaged there. Everything else in
    /// it can be read.
    #[error("cannot read {rows}: the key-value store is damaged there; fsck says what else is")]
    Unreadable {
        /// The rows.
        rows: UnreadableRows,
        /// Which file, and what is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Transactions are missing.
    #[error(transparent)]
    Lost(#[from] Loss),
    /// A new filesystem is to be made where there is an earlier one.
    #[error("{} belongs to an earlier filesystem; make a new one in an empty directory", path.display())]
    NotNew {
        /// What is there.
        path: PathBuf,
    },
    /// The key-value store failed.
    #[error("cannot {operation} the key-value store")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// What the caller can do about it.
        kind: ErrorKind,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The files of large chunks failed.
    #[error("cannot {operation} the extent files of the store")]
    Extents {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The operation log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A write failed before; what is on disk is not known until the key-value store is opened
    /// again, which the next operation tries.
    #[error("an earlier write failed; the filesystem must be opened again")]
    Poisoned,
    /// A KVS snapshot was ended, because the key-value store is opened again after an error.
    #[error("the snapshot ended with an error of the disk; publish again")]
    Reopened,
    /// The thread that wrote this change together with its own panicked. If it had begun to write,
    /// every later change fails with [`Poisoned`](Self::Poisoned); if not, the change was not made
    /// and can be tried again.
    #[error("the thread that was to write this change panicked")]
    LeaderPanicked,
    /// Another process has it open.
    #[error("the filesystem is open in another process")]
    Busy,
}

impl FsError {
    /// Damage of one inode.
    pub(crate) fn damaged(ino: Ino, damage: Damage) -> Self {
        Self::Damaged { ino: Some(ino), damage }
    }

    /// Chunks that are lost, of a file of so many bytes.
    pub(crate) fn lost_range(
        ino: Ino,
        chunks: ChunkRange,
        chunk_bytes: u32,
        file_bytes: u64,
    ) -> Self {
        let offset = chunks.offset_bytes(chunk_bytes);
        let len = chunks.len_bytes(chunk_bytes, file_bytes);
        Self::LostRange { ino, bytes: ByteRange { offset, len } }
    }

    /// Damage of the filesystem as a whole.
    pub(crate) fn damaged_store(damage: Damage) -> Self {
        Self::Damaged { ino: None, damage }
    }

    /// The system refused something to the key-value store.
    pub(crate) fn io(operation: &'static str, source: io::Error) -> Self {
        Self::Store { operation, kind: ErrorKind::of_io(&source), source: source.into() }
    }

    /// Whether what is stored is damaged: other rows can be read all the same.
    pub(crate) fn is_damage(&self) -> bool {
        self.kind() == ErrorKind::Damaged
    }
}

fn at_inode(ino: Option<Ino>) -> String {
    ino.map_or_else(String::new, |ino| format!(" at inode {ino}"))
}

/// Rows of the key-value store that cannot be read, by what is known of their keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnreadableRows {
    /// The table in which they are.
    pub table: &'static str,
    /// Whose they are; `None` if they are of no inode, or of any.
    pub ino: Option<Ino>,
    /// The chunk, if it is one.
    pub chunk: Option<ChunkNo>,
}

impl fmt::Display for UnreadableRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ino, self.chunk) {
            (Some(ino), Some(chunk)) => write!(f, "chunk {chunk} of inode {ino}"),
            (Some(ino), None) => write!(f, "inode {ino} in table {}", self.table),
            (None, _) => write!(f, "table {}", self.table),
        }
    }
}

/// What an operation can find wrong with what is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Damage {
    /// The attributes of an inode cannot be decoded.
    Attributes,
    /// A directory's entry cannot be decoded.
    Entry,
    /// A directory's list of its entries cannot be decoded.
    Cookie,
    /// A name that an inode has cannot be decoded.
    Link,
    /// The key of an extended attribute cannot be decoded.
    XattrKey,
    /// A run of a chunk map cannot be decoded.
    ChunkMap,
    /// A run of a chunk map starts behind the last possible chunk.
    RunBeyondEnd,
    /// A chunk that should be in the store is not, and no detour stands for it.
    LostChunk,
    /// The bytes of a chunk are not those that were written.
    ChunkData,
    /// Up to where extents are durable cannot be decoded.
    ExtentsFloor,
    /// A row of an extent that is not known to be durable cannot be decoded.
    UnsyncedRow,
    /// A row of a free extent cannot be decoded.
    FreedRow,
    /// The sum of an inode's bytes in the store cannot be decoded.
    ResidentBytes,
    /// The chunks of an inode that were cut cannot be decoded.
    CutMarks,
    /// A key of the list of inodes with recalled data cannot be decoded.
    WarmKey,
    /// The size of a chunk is not recorded.
    ChunkSize,
    /// The transaction behind which the filesystem begins cannot be decoded.
    XidFloor,
    /// The last transaction id cannot be decoded, or contradicts the log.
    LastXid,
    /// The key of a log record cannot be decoded.
    LogKey,
    /// Log records are missing.
    LogRecords,
    /// What is recorded of the published log segments cannot be decoded, or contradicts itself.
    SegmentRow,
    /// The way up from a directory comes back to it.
    LinkCircle,
    /// A directory is entered in one that is not its parent.
    SecondEntry,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attributes => "its attributes cannot be read",
            Self::Entry => "an entry cannot be read",
            Self::Cookie => "a cookie cannot be read",
            Self::Link => "a link cannot be read",
            Self::XattrKey => "the name of an extended attribute cannot be read",
            Self::ChunkMap => "its chunk map cannot be read",
            Self::RunBeyondEnd => "a run starts beyond the last chunk",
            Self::LostChunk => "a chunk has neither data nor detour",
            Self::ChunkData => "the bytes of a chunk are not those that were written",
            Self::ExtentsFloor => "up to where chunk data is durable cannot be read",
            Self::UnsyncedRow => "a row of chunk data that was not synced cannot be read",
            Self::FreedRow => "a row of free chunk data cannot be read",
            Self::ResidentBytes => "its size in the store cannot be read",
            Self::CutMarks => "what was cut off it cannot be read",
            Self::WarmKey => "a warm key cannot be read",
            Self::ChunkSize => "no chunk size",
            Self::XidFloor => "the lowest transaction id cannot be read",
            Self::LastXid => "the last transaction id cannot be read, or contradicts the log",
            Self::LogKey => "a log key is wrong",
            Self::LogRecords => "log records are missing",
            Self::SegmentRow => "the list of published log segments is wrong",
            Self::LinkCircle => "the way up from it leads back to it",
            Self::SecondEntry => "it is entered in a directory that is not its parent",
        })
    }
}

impl HasKind for FsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. }
            | Self::LostRange { .. }
            | Self::Unreadable { .. }
            | Self::Lost(_) => ErrorKind::Damaged,
            Self::Store { kind, .. } => *kind,
            Self::Recall { source, .. } => source.kind(),
            Self::Log(error) => error.kind(),
            Self::Busy => ErrorKind::Busy,
            Self::Cold { .. } | Self::Contended { .. } | Self::Reopened => ErrorKind::Away,
            Self::NoSpace(_) | Self::XattrsFull(_) => ErrorKind::NoSpace,
            Self::Extents { source, .. } => ErrorKind::of_io(source),
            Self::Interrupted => ErrorKind::Cancelled,
            // Answers to a question about names, "not found" among them, are no damage.
            Self::NotFound
            | Self::Exists
            | Self::NotDirectory
            | Self::IsDirectory
            | Self::NotEmpty
            | Self::TooLong(_)
            | Self::TooLarge(_)
            | Self::Invalid(_)
            | Self::TooManyLinks
            | Self::NoXattr
            | Self::NotNew { .. }
            | Self::Poisoned
            | Self::LeaderPanicked => ErrorKind::Failed,
        }
    }
}

impl From<FsError> for PortError {
    fn from(error: FsError) -> Self {
        Self::of(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_names_its_inode_if_there_is_one() {
        let text = FsError::damaged(Ino::new(7), Damage::Attributes).to_string();
        assert_eq!(text, "the filesystem is damaged at inode 7: its attributes cannot be read");
        let chunks = ChunkRange::touching(512, 512, 512).unwrap();
        let text = FsError::lost_range(Ino::new(7), chunks, 512, 700).to_string();
        assert!(text.starts_with("bytes 512-699 of inode 7 are lost: "), "{text}");
        let text = FsError::damaged_store(Damage::ChunkSize).to_string();
        assert_eq!(text, "the filesystem is damaged: no chunk size");
    }

    #[test]
    fn a_failed_recall_is_of_the_kind_of_its_cause() {
        let source = PortError::new(ErrorKind::Missing, "not there");
        assert_eq!(FsError::Recall { ino: Ino::new(1), source }.kind(), ErrorKind::Missing);
        assert_eq!(FsError::NotFound.kind(), ErrorKind::Failed);
    }
}
