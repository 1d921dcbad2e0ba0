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
    /// Another process or component holds it.
    Busy,
    /// It may work later: a store that is away, a timeout.
    Unavailable,
    /// Stopped on request.
    Cancelled,
    /// Anything else: an I/O error, a full disk, bad input.
    Failed,
}

/// An error that tells its caller what can be done about it. Every error type of the workspace
/// implements it, so that exit codes and retries are decided where the error is defined.
pub trait HasKind: Error + Send + Sync + 'static {
    /// What the caller can do about it.
    fn kind(&self) -> ErrorKind;
}

/// An error with what failed, on which object, and what the caller can do about it.
#[derive(Debug)]
pub struct PortError {
    kind: ErrorKind,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Message {
        message: String,
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// An error of the crate behind the port, which says all there is to say.
    Error(Box<dyn Error + Send + Sync>),
}

impl PortError {
    /// An error that says what failed on which object.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, content: Content::Message { message: message.into(), source: None } }
    }

    /// The same with its cause, whose text the message does not repeat.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source = Some(source.into());
        let content = match self.content {
            Content::Message { message, .. } => Content::Message { message, source },
            Content::Error(error) => Content::Message { message: error.to_string(), source },
        };
        Self { kind: self.kind, content }
    }

    /// An error of the crate behind the port, with its own text, causes and kind.
    pub fn of(error: impl HasKind) -> Self {
        Self { kind: error.kind(), content: Content::Error(Box::new(error)) }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl HasKind for PortError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Message { message, .. } => f.write_str(message),
            Content::Error(error) => error.fmt(f),
        }
    }
}

impl Error for PortError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.content {
            Content::Message { source, .. } => {
                source.as_deref().map(|source| -> &(dyn Error + 'static) { source })
            }
            Content::Error(error) => error.source(),
        }
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
