//! What can go wrong with a log.

use std::io;
use std::path::PathBuf;

use tier_types::{ErrorKind, PortError, XidRange};

/// A log segment could not be written, read or understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system said no.
    #[error("cannot {operation} log segment {}", name.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The segment.
        name: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The bytes are not a valid segment.
    #[error("log segment {} is damaged at offset {offset_bytes}: {problem}", name.display())]
    Damaged {
        /// The segment.
        name: PathBuf,
        /// Where.
        offset_bytes: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The published segments do not cover a range that they should.
    #[error("log segments of xids {range} are missing; found only up to xid {found_until}")]
    Gap {
        /// What was asked for.
        range: XidRange,
        /// The first xid that no segment holds.
        found_until: u64,
    },
    /// A record in the key-value store is not valid.
    #[error("log record is damaged: {0}")]
    DamagedRecord(&'static str),
    /// A temporary file for changes that do not fit into memory failed.
    #[error("cannot {operation} the temporary file of net changes")]
    Spill {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The log service failed.
    #[error("the log service failed")]
    Service(#[from] PortError),
}

impl From<LogError> for PortError {
    fn from(error: LogError) -> Self {
        let kind = match &error {
            LogError::Damaged { .. } | LogError::DamagedRecord(_) => ErrorKind::Damaged,
            LogError::Gap { .. } => ErrorKind::Missing,
            LogError::Service(port) => port.kind(),
            LogError::Io { .. } | LogError::Spill { .. } => ErrorKind::Failed,
        };
        Self::new(kind, "cannot read the operation log").with_source(error)
    }
}
