//! What can go wrong with an index.

use std::path::PathBuf;

use tier_types::{ErrorKind, HasKind, Ino, PortError};

use crate::TarballId;

/// The index could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The database below failed.
    #[error("cannot {operation} the index {}{}", path.display(), advice(*kind))]
    Database {
        /// What was tried.
        operation: &'static str,
        /// The index.
        path: PathBuf,
        /// What the caller can do about it.
        kind: ErrorKind,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk of the index is full. Nothing of the batch is in the index; it is written again by
    /// the next snapshot, and the database goes on by itself when there is room.
    #[error("cannot {operation} the index {}: its disk is full; make room and try again", path.display())]
    NoSpace {
        /// What was tried.
        operation: &'static str,
        /// The index.
        path: PathBuf,
        /// The database's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An entry is not what was written. The index can be rebuilt from the tarballs.
    #[error("the index {} is damaged: {problem}; rebuild it", path.display())]
    Damaged {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// Contents of a filesystem with another chunk size.
    #[error("the index has chunks of {index} bytes, the contents of {contents}")]
    ChunkSize {
        /// The index's chunk size in bytes.
        index: u32,
        /// The contents' chunk size in bytes.
        contents: u32,
    },
    /// A tarball says what cannot be: an extent that does not fit into a frame.
    #[error(
        "the contents of tarball {tarball} are damaged: an extent of inode {ino} does not fit into a frame"
    )]
    Contents {
        /// The tarball.
        tarball: TarballId,
        /// The inode.
        ino: Ino,
    },
    /// An index that was to take the place of one that includes later manifests.
    #[error("the new index includes fewer snapshots than the one in use, which stays")]
    Behind,
    /// The dump's sink failed.
    #[error("cannot write the dump of the index")]
    Dump(#[source] std::io::Error),
}

fn advice(kind: ErrorKind) -> &'static str {
    if kind == ErrorKind::Damaged {
        ", which is damaged; rebuild it"
    } else {
        "; open the store again, and rebuild the index if that does not help"
    }
}

impl HasKind for IndexError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. }
            | Self::ChunkSize { .. }
            | Self::Contents { .. }
            | Self::Behind => ErrorKind::Damaged,
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::Dump(source) => ErrorKind::of_io(source),
            Self::Database { kind, .. } => *kind,
        }
    }
}

impl From<IndexError> for PortError {
    fn from(error: IndexError) -> Self {
        Self::of(error)
    }
}
