//! The agent's error: a step failed, or the thread that carries steps out.

use std::error::Error;
use std::fmt;

use tier_evict::EvictError;
use tier_index::IndexError;
use tier_persist::{Fenced, PersistError};
use tier_status::StatusError;
use tier_types::{ErrorKind, HasKind, PortError, Xid};

use crate::report::AgentReport;

/// A step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Persisting, reading or verifying failed.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// Evicting failed.
    #[error(transparent)]
    Evict(#[from] EvictError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A status log failed.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// A port failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The archive knows later transactions than the filesystem.
    #[error(
        "the filesystem ends at xid {last} and its archive at xid {archived}: it was put back to \
         an earlier state, and nothing of it can be persisted. What is in it can be read; to go \
         on, make a new store from the archive (tier restore)"
    )]
    BehindArchive {
        /// The filesystem's last transaction.
        last: Xid,
        /// The archive's.
        archived: Xid,
    },
    /// The store does not write to its archive.
    #[error(
        "this store is a follower: it reads the archive and does not write to it; tier takeover \
         makes it the writer"
    )]
    Follower,
    /// The store was the writer, and is not any more.
    #[error("{0}")]
    Fenced(Fenced),
    /// There was no room for a snapshot, and the cloud, which would have made some, is away.
    #[error("there is no room to persist while the cloud is away: {why}")]
    AwaitsCloud {
        /// In which way it is.
        kind: ErrorKind,
        /// Why it did.
        why: String,
    },
    /// An upload failed; all else of the task was done.
    #[error(transparent)]
    NotUploaded(Box<NotUploaded>),
    /// A stage panicked. Its work is done again by the next task.
    #[error("a bug: the agent's work ({lane}) panicked: {text}; please report it")]
    Panicked {
        /// The lane.
        lane: &'static str,
        /// What the panic said.
        text: String,
    },
    /// The agent was stopped before the work was done.
    #[error("the agent was stopped")]
    Stopped,
}

/// What a task came to whose upload failed. Its text and its causes are those of the upload.
#[derive(Debug)]
pub struct NotUploaded {
    /// What was done all the same.
    pub done: AgentReport,
    /// Why the upload failed.
    pub why: AgentError,
}

impl fmt::Display for NotUploaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl Error for NotUploaded {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.why.source()
    }
}

impl HasKind for AgentError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Persist(error) => error.kind(),
            Self::Evict(error) => error.kind(),
            Self::Index(error) => error.kind(),
            Self::Status(error) => error.kind(),
            Self::Port(error) => error.kind(),
            Self::NotUploaded(not_uploaded) => not_uploaded.why.kind(),
            Self::BehindArchive { .. } => ErrorKind::Damaged,
            Self::Follower | Self::Fenced(_) => ErrorKind::Denied,
            Self::AwaitsCloud { kind, .. } => *kind,
            Self::Stopped => ErrorKind::Cancelled,
            Self::Panicked { .. } => ErrorKind::Failed,
        }
    }
}
