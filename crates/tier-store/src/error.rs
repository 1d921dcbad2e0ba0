//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use tier_agent::AgentError;
use tier_index::IndexError;
use tier_persist::PersistError;
use tier_status::StatusError;
use tier_types::{ErrorKind, HasKind, PortError};

/// A store could not be made, opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system said no.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There are no settings where a store is expected.
    #[error("cannot read {}; is {} a store?", path.display(), store.display())]
    NoStore {
        /// The directory.
        store: PathBuf,
        /// The settings that are not there.
        path: PathBuf,
        /// Why they cannot be read.
        source: io::Error,
    },
    /// The settings are not valid.
    #[error("{} is not valid", path.display())]
    ConfigSyntax {
        /// The settings.
        path: PathBuf,
        /// What is wrong with them.
        source: Box<toml::de::Error>,
    },
    /// A setting has a value that it cannot have.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The settings.
        path: PathBuf,
        /// What cannot be.
        problem: String,
    },
    /// Another process has the store open.
    #[error("{} is in use by process {holder}", store.display())]
    Busy {
        /// The store.
        store: PathBuf,
        /// What the lock file says of its holder.
        holder: String,
    },
    /// A new store is to be made where something is already.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// Something that a user named cannot be.
    #[error("{0}")]
    Unusable(String),
    /// An identity file, or a recipient, is not one.
    #[error("{} is not an identity file", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: PersistError,
    },
    /// What is stored contradicts itself or is not there; the message says what to do.
    #[error("{0}")]
    Damaged(String),
    /// The archive failed.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A status log failed.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The agent failed.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// An object store or the filesystem failed.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl StoreError {
    /// Makes an error of an operation on a path.
    pub(crate) fn io<'a>(
        operation: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { operation, path: path.to_path_buf(), source }
    }
}

impl HasKind for StoreError {
    fn kind(&self) -> ErrorKind {
        // There is no catch-all arm: a new variant does not compile until its kind is said.
        match self {
            Self::Damaged(_) => ErrorKind::Damaged,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Persist(error) => error.kind(),
            Self::Index(error) => error.kind(),
            Self::Status(error) => error.kind(),
            Self::Agent(error) => error.kind(),
            Self::Port(error) => error.kind(),
            Self::Io { source, .. } => ErrorKind::of_io(source),
            // Settings that are not there mostly mean a mistyped path, and are no damage of a
            // store.
            Self::NoStore { .. }
            | Self::ConfigSyntax { .. }
            | Self::Config { .. }
            | Self::NotEmpty(_)
            | Self::Unusable(_)
            | Self::Identity { .. } => ErrorKind::Failed,
        }
    }
}
