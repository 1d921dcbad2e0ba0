//! What can go wrong with a status log.

use std::io;
use std::path::PathBuf;

use tier_types::{ErrorKind, HasKind, PortError};

/// A status log could not be written, read or understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// An I/O error. After a failed write the writer refuses further events until the log is opened
    /// again.
    #[error("cannot {operation} status log {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line is not what was written.
    #[error(
        "status log {} is damaged in line {line}: {problem}; move it away, and what it said of the \
         snapshot is found out again", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// An earlier write failed.
    #[error("status log {} cannot be written any more after a failed write", path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
}

impl HasKind for StatusError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Io { source, .. } => ErrorKind::of_io(source),
            // Not `Away`: a retry with the same writer fails again, and only opening anew
            // helps.
            Self::Poisoned { .. } => ErrorKind::Failed,
        }
    }
}

impl From<StatusError> for PortError {
    fn from(error: StatusError) -> Self {
        Self::of(error)
    }
}
