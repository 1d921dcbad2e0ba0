//! What can go wrong with a log.

use std::io;
use std::path::PathBuf;

use tier_types::{ErrorKind, HasKind, PortError, XidRange};

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
    #[error(transparent)]
    Service(#[from] PortError),
}

impl LogError {
    /// Whether segments are what cannot be read: they are damaged or gone, or the disk does not
    /// give them out. What they say of the filesystem can be found out from that.
    pub fn is_of_segment(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Damaged { .. } | Self::Gap { .. } => true,
            Self::Service(port) => port.kind().is_of_object(),
            Self::DamagedRecord(_) | Self::Spill { .. } => false,
        }
    }
}

impl HasKind for LogError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } | Self::DamagedRecord(_) => ErrorKind::Damaged,
            Self::Gap { .. } => ErrorKind::Missing,
            Self::Service(port) => port.kind(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::Missing
            }
            Self::Io { source, .. } | Self::Spill { source, .. } => ErrorKind::of_io(source),
        }
    }
}

impl From<LogError> for PortError {
    fn from(error: LogError) -> Self {
        // It crossed a port before, and a second layer would say nothing more.
        if let LogError::Service(port) = error {
            return port;
        }
        Self::of(error)
    }
}
