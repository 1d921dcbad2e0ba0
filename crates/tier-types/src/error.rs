//! The error that crosses a port.

use std::error::Error;
use std::fmt;

/// What the caller can do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// Stored bytes are not what was written. Retrying does not help; another copy might.
    Damaged,
    /// An object or entry that must be there is not.
    Missing,
    /// The key does not fit: another identity is needed.
    WrongKey,
    /// Somebody else holds it.
    Busy,
    /// It may work later: a store that is away, a timeout.
    Unavailable,
    /// Stopped on request.
    Cancelled,
    /// Anything else: an I/O error, a full disk, bad input.
    Failed,
}

/// An error with what failed, on which object, and what the caller can do about it.
#[derive(Debug)]
pub struct PortError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl PortError {
    /// An error that says what failed on which object.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with its cause, whose text the message does not repeat.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for PortError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| -> &(dyn Error + 'static) { source })
    }
}

/// An error with its causes, on one line, for a log or a status.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
