//! The error of an eviction pass.

use std::io;
use std::path::PathBuf;

use tier_log::LogError;
use tier_status::StatusError;
use tier_types::{ErrorKind, HasKind, PortError};

/// An eviction pass could not go on. What it evicted so far stays evicted; the next pass starts
/// over at the same cursor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvictError {
    /// The list of carried-over candidates cannot be read or written.
    #[error("cannot {operation} the list of carried-over candidates {}", path.display())]
    CarriedOver {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The list of carried-over candidates is not what was written.
    #[error(
        "the list of carried-over candidates {} is damaged in line {line}: {problem}",
        path.display()
    )]
    CarriedOverDamaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The filesystem or the archive failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The event could not be recorded.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// Stopped on request.
    #[error("stopped on request")]
    Cancelled,
}

impl HasKind for EvictError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Log(error) => error.kind(),
            Self::Status(error) => error.kind(),
            Self::Port(error) => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
            Self::CarriedOverDamaged { .. } => ErrorKind::Damaged,
            Self::CarriedOver { source, .. } => ErrorKind::of_io(source),
        }
    }
}

impl From<EvictError> for PortError {
    fn from(error: EvictError) -> Self {
        // Handed on as it is, because a layer around it would say nothing.
        if let EvictError::Port(port) = error {
            return port;
        }
        Self::of(error)
    }
}
