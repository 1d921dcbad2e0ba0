//! What can go wrong between two processes.

use std::io;
use std::path::PathBuf;

use tier_types::{ErrorKind, HasKind, PortError};

/// The socket could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The operating system refused.
    #[error("cannot {operation} the control socket {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody says what this protocol does not.
    #[error("the process at the control socket does not speak this protocol: {0}")]
    Protocol(&'static str),
    /// The other process is of another version.
    #[error(
        "the process that has the store open speaks version {theirs} of the protocol, not \
         {ours}; start it again with this version of the program"
    )]
    Version {
        /// Our version.
        ours: u8,
        /// The other one's.
        theirs: u8,
    },
    /// The other end is gone before its answer was complete.
    #[error("the process that has the store open ended before the command was done")]
    Gone,
}

impl HasKind for RpcError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Failed
    }
}

impl From<RpcError> for PortError {
    fn from(error: RpcError) -> Self {
        Self::of(error)
    }
}
