//! The error that crosses a port, and the kinds on which a caller acts.
//!
//! A crate has an error enum of its own that says what failed on which object. At a port it becomes
//! a [`PortError`], which keeps its text and its causes and adds nothing, so that no message says
//! the same thing twice. What the caller can do is its [`ErrorKind`]: retry later, look for another
//! copy, ask for another key, stop. A kind is decided where the error is defined ([`HasKind`]) and
//! never guessed from a text.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

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
    /// It may work later: a store that cannot be reached, a timeout.
    Away,
    /// The other side asks to be left alone for a while: this long, if it said.
    Throttled {
        /// From now.
        after: Option<Duration>,
    },
    /// It must be thawed first, which takes hours: about so long from now, if that was begun.
    Frozen {
        /// From now.
        within: Option<Duration>,
    },
    /// The other side refuses: the operator has to do something.
    Denied,
    /// Another object has the name, or another writer was faster.
    Conflict,
    /// There is no room for it: on a disk, within a quota, or within a capacity that was set.
    NoSpace,
    /// Stopped on request.
    Cancelled,
    /// Anything else: an I/O error, bad input.
    Failed,
}

impl ErrorKind {
    /// The kind of an error of the operating system that is neither damage nor an answer to a
    /// question.
    pub fn of_io(error: &io::Error) -> Self {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        if full.contains(&error.kind()) { Self::NoSpace } else { Self::Failed }
    }

    /// Whether the same call may succeed later, and nothing has to be done for it.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Away | Self::Throttled { .. } | Self::Busy)
    }

    /// Whether an error of this kind says something of an object, and not of the way to it: another
    /// copy may have it whole.
    pub fn is_of_object(self) -> bool {
        matches!(self, Self::Damaged | Self::Missing)
    }
}

/// An error that tells its caller what can be done about it. Every error type of the workspace
/// implements it, so that exit codes and retries are decided where the error is defined.
pub trait HasKind: Error + Send + Sync + 'static {
    /// What the caller can do about it.
    fn kind(&self) -> ErrorKind;
}

/// An error with what failed, on which object, and what the caller can do about it.
///
/// ```
/// use tier_types::{ErrorKind, PortError, with_causes};
///
/// let cause = std::io::Error::other("the cable is cut");
/// let error = PortError::new(ErrorKind::Away, "cannot read object a").with_source(cause);
/// assert_eq!(error.kind(), ErrorKind::Away);
/// assert_eq!(error.to_string(), "cannot read object a");
/// assert_eq!(with_causes(&error), "cannot read object a: the cable is cut");
/// ```
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

    /// The error of a read of a frozen object, which was asked for and is there after so long.
    pub fn frozen(name: &dyn fmt::Display, within: Duration) -> Self {
        let hours = within.as_secs().div_ceil(3600);
        let message = format!(
            "{name} is frozen in the cloud and being thawed, which takes up to {hours} h more: \
             read it again then"
        );
        Self::new(ErrorKind::Frozen { within: Some(within) }, message)
    }

    /// The same with its cause, whose text the message does not repeat.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        // An error of a crate has causes of its own, whose place a new one takes.
        let source = Some(source.into());
        let content = match self.content {
            Content::Message { message, .. } => Content::Message { message, source },
            Content::Error(error) => Content::Message { message: error.to_string(), source },
        };
        Self { kind: self.kind, content }
    }

    /// An error of the crate behind the port, with its own text, causes and kind.
    pub fn of(error: impl HasKind) -> Self {
        // The kind now, because the box forgets the type that tells it.
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
                // The closure only takes `Send + Sync` off the type, which an `Option` does not do
                // by itself.
                source.as_deref().map(|source| -> &(dyn Error + 'static) { source })
            }
            // The text of the error itself is this one's text, so that the causes begin behind it.
            Content::Error(error) => error.source(),
        }
    }
}

/// An error with its causes, on one line, for a log or a status.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    // No error repeats the text of its source, so that all of them can be joined.
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("frame 7 is damaged")]
    struct DamagedFrame(#[source] io::Error);

    impl HasKind for DamagedFrame {
        fn kind(&self) -> ErrorKind {
            ErrorKind::Damaged
        }
    }

    #[test]
    fn a_full_disk_has_a_kind_of_its_own() {
        let no_space = of_number(28);
        assert_eq!(ErrorKind::of_io(&no_space), ErrorKind::NoSpace);
        assert_eq!(ErrorKind::of_io(&of_number(5)), ErrorKind::Failed);
    }

    fn of_number(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn an_error_of_a_crate_keeps_text_causes_and_kind() {
        let error = PortError::of(DamagedFrame(io::Error::other("a bit flipped")));
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(with_causes(&error), "frame 7 is damaged: a bit flipped");
        let again = error.with_source(io::Error::other("the disk is old"));
        assert_eq!(again.kind(), ErrorKind::Damaged);
        assert_eq!(with_causes(&again), "frame 7 is damaged: the disk is old");
    }
}
