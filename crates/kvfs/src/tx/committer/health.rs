//! Whether the key-value store accepts batches, and what operations hear where it does not.
//!
//! ```text
//!      Well --- a write meets a full disk ---> Full --- RocksDB has flushed ---> Well
//!      Full --- a sync meets the torn log ---> Torn
//!      any other error of a write or sync ---> Poisoned
//!      Torn, Poisoned --- opened again ------> Well
//! ```
//!
//! A sync that is under way when another thread's write tears the log fails, and with it RocksDB
//! gives up: only opening it again helps. The cause is the full disk all the same, and that is what
//! every operation is told until then.

use std::time::Instant;

use crate::FsError;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Health {
    Well,
    /// It met a full disk, and refuses until its recovery has flushed.
    Full,
    /// It met a full disk, and must be opened again.
    Torn,
    /// It is not known what is in the store, or on the disk: nothing may follow.
    Poisoned,
}

/// When the key-value store was opened again, or that was tried, and after what.
#[derive(Clone, Copy)]
pub(super) struct Reopening {
    pub(super) at: Instant,
    pub(super) after: Health,
}

impl Health {
    /// Whether the store must be opened again.
    pub(super) fn is_broken(self) -> bool {
        matches!(self, Self::Torn | Self::Poisoned)
    }

    /// What an operation is told while the store must be opened again.
    pub(super) fn refusal(self) -> Option<FsError> {
        match self {
            Self::Well | Self::Full => None,
            Self::Torn => Some(FsError::NoSpace("the disk of the store is full")),
            Self::Poisoned => Some(FsError::Poisoned),
        }
    }

    /// What the operation is told that met an error: where a full disk is the cause, that.
    pub(super) fn refusal_instead_of(self, error: FsError) -> FsError {
        match self {
            Self::Torn => {
                tracing::debug!(%error, "what a full disk tore");
                self.refusal().unwrap_or(error)
            }
            Self::Well | Self::Full | Self::Poisoned => error,
        }
    }
}
