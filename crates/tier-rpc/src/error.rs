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
    /// The other end sent what this protocol does not have.
    #[error("the process at the control socket does not speak this protocol: {0}")]
    Protocol(&'static str),
    /// The other process is of another version.
    #[error(
        "the process that has the store open speaks version {theirs} of the protocol, not \
         {ours}; start it again with this version of the program"
    )]
    Version {
        /// The version of this process.
        ours: u8,
        /// The version of the other one.
        theirs: u8,
    },
    /// A command's arguments, say, that the protocol has no room for.
    #[error(
        "a message of {len_bytes} bytes is too long for the control socket: at most {max_bytes}"
    )]
    TooLong {
        /// Its length in bytes.
        len_bytes: u64,
        /// The longest one in bytes.
        max_bytes: u32,
    },
    /// The other end is gone before its answer was complete.
    #[error("the process that has the store open ended before the command was done")]
    Gone,
}

impl HasKind for RpcError {
    fn kind(&self) -> ErrorKind {
        // No kind of its own: a socket that fails says nothing about the store's data.
        ErrorKind::Failed
    }
}

impl From<RpcError> for PortError {
    fn from(error: RpcError) -> Self {
        Self::of(error)
    }
}
