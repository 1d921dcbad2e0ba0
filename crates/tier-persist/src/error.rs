//! The crate's error: what can go wrong with tarballs, manifests, and the index over them.
//!
//! A variant says which operation failed on which object; its [`kind`](HasKind::kind) says what the
//! caller can do. Bytes from outside (a store, the index, a snapshot) that are not what they must
//! be are [`PersistError::Damaged`] or another error of that kind, never a panic: panics are kept
//! for what only a mistake in this crate could bring about.

use std::io;

use tier_index::IndexError;
use tier_status::StatusError;
use tier_types::{Epoch, ErrorKind, HasKind, PortError};

/// Persisting, reading or rebuilding failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PersistError {
    /// An object's bytes are not what was written.
    #[error("{object} is damaged: {problem}")]
    Damaged {
        /// The object, and where in it.
        object: String,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The archive does not have what was asked for.
    #[error("{0} is missing from the archive")]
    Missing(String),
    /// What was asked for could not be read when it was persisted, and is in no tarball.
    #[error("{0} is lost: it could not be read when it was persisted")]
    Lost(String),
    /// The object was encrypted for other keys.
    #[error("{object} cannot be decrypted with this identity; give the one it was encrypted for")]
    WrongKey {
        /// The object.
        object: String,
    },
    /// Text that is not an identity or a recipient.
    #[error("{0}")]
    BadKey(String),
    /// The operating system's source of randomness failed.
    #[error("the system has no random bytes")]
    NoRandomness,
    /// Two writers wrote the same snapshot, or a manifest was replaced.
    #[error("manifest {name} does not continue the one before it: {problem}")]
    BrokenChain {
        /// The manifest.
        name: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// Another store has the epoch.
    #[error(
        "epoch {epoch} of the archive was claimed by {by} a moment ago; nothing was changed here. \
         If this store is to be the writer all the same, take over once more"
    )]
    Claimed {
        /// The epoch.
        epoch: Epoch,
        /// Which machine has it.
        by: String,
    },
    /// The operating system said no.
    #[error("cannot {operation} {object}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why not.
        source: io::Error,
    },
    /// The store of objects failed.
    #[error(transparent)]
    Store(PortError),
    /// The data that was read does not cover the chunks that were asked for.
    #[error(transparent)]
    Recalled(PortError),
    /// The snapshot could not be read, or the list of updates.
    #[error("cannot read what is to be persisted")]
    Source(#[source] PortError),
    /// The filesystem did not take what was restored.
    #[error("cannot restore into the filesystem")]
    Restore(#[source] PortError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The event could not be recorded.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// So much cannot be read that it is no matter of single inodes; nothing was committed.
    #[error(
        "{n_unread} of {n_inodes} inodes cannot be read, or not in full: it is the disk or the \
         key-value store that fails, and a snapshot of what is left would be taken for the whole. \
         See what the system says of the disk, then run tier fsck --repair; to have it taken all \
         the same, set persist.unread_percent_max = 100 in tier.toml"
    )]
    TooMuchUnread {
        /// Those that cannot be read.
        n_unread: u64,
        /// Those of them of which something is damaged or missing. The others may be read another
        /// time.
        n_damaged: u64,
        /// All that were to be persisted.
        n_inodes: u64,
    },
    /// A thread of the pipeline ended before its work did.
    #[error("a thread of the pipeline ended early")]
    Pipeline,
    /// Stopped on request; nothing was committed.
    #[error("stopped on request")]
    Cancelled,
}

impl PersistError {
    pub(crate) fn damaged(object: impl std::fmt::Display, problem: &'static str) -> Self {
        Self::Damaged { object: object.to_string(), problem }
    }
}

impl HasKind for PersistError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } | Self::BrokenChain { .. } | Self::Lost(_) => ErrorKind::Damaged,
            Self::TooMuchUnread { n_unread, n_damaged, .. } => {
                let is_damage = *n_damaged > n_unread / 2;
                if is_damage { ErrorKind::Damaged } else { ErrorKind::Failed }
            }
            Self::Missing(_) => ErrorKind::Missing,
            Self::Claimed { .. } => ErrorKind::Conflict,
            Self::WrongKey { .. } => ErrorKind::WrongKey,
            Self::Store(error)
            | Self::Recalled(error)
            | Self::Source(error)
            | Self::Restore(error) => error.kind(),
            Self::Index(error) => error.kind(),
            Self::Status(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
            // `Io` is an operation of this process alone: an error of a store comes as `Store`,
            // with the kind that the store gave it.
            Self::Io { source, .. } => ErrorKind::of_io(source),
            Self::BadKey(_) | Self::NoRandomness | Self::Pipeline => ErrorKind::Failed,
        }
    }
}

impl From<PersistError> for PortError {
    fn from(error: PersistError) -> Self {
        // What came through a port goes on as it came.
        if let PersistError::Store(port) | PersistError::Recalled(port) = error {
            return port;
        }
        Self::of(error)
    }
}
