//! How a store is called: how urgent it is, how long it may take, and what cancels it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::{ErrorKind, PortError};

/// Whether a reader waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CallClass {
    /// A reader waits: a recall. Such calls go before the others.
    Interactive,
    /// Uploads, scans, listings.
    Bulk,
}

/// What a store is told with each call besides the question. A store looks at it before it begins,
/// and again wherever it waits: between pieces, between attempts.
///
/// ```
/// use std::sync::atomic::AtomicBool;
/// use std::time::Duration;
///
/// use tier_types::{Call, ErrorKind};
///
/// let stop = AtomicBool::new(false);
/// let call = Call::bulk().cancelled_by(&stop);
/// call.check(&"a listing")?;
/// stop.store(true, std::sync::atomic::Ordering::Relaxed);
/// assert_eq!(call.check(&"a listing").unwrap_err().kind(), ErrorKind::Cancelled);
/// let late = Call::interactive().within(Duration::ZERO);
/// assert_eq!(late.check(&"a read").unwrap_err().kind(), ErrorKind::Away);
/// # Ok::<(), tier_types::PortError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Call<'a> {
    class: CallClass,
    deadline: Option<Instant>,
    cancel: Option<&'a dyn Cancel>,
}

/// Says whether a call is not wanted any more.
pub trait Cancel: Sync {
    /// From the moment when it is not, for good.
    fn is_cancelled(&self) -> bool;
}

impl Cancel for AtomicBool {
    fn is_cancelled(&self) -> bool {
        self.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("class", &self.class)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl<'a> Call<'a> {
    /// A call for which no reader waits, without a deadline.
    pub const fn bulk() -> Self {
        Self { class: CallClass::Bulk, deadline: None, cancel: None }
    }

    /// A call for which a reader waits, without a deadline.
    pub const fn interactive() -> Self {
        Self { class: CallClass::Interactive, deadline: None, cancel: None }
    }

    /// The same, given up after so long from now.
    #[must_use]
    pub fn within(self, time: Duration) -> Self {
        // One that is farther than the clock reaches is none.
        Self { deadline: Instant::now().checked_add(time), ..self }
    }

    /// The same, given up as soon as it is not wanted any more: when a flag is set, say.
    #[must_use]
    pub fn cancelled_by(self, cancel: &'a dyn Cancel) -> Self {
        Self { cancel: Some(cancel), ..self }
    }

    /// Whether a reader waits.
    pub fn class(&self) -> CallClass {
        self.class
    }

    /// When it is given up.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it is not wanted any more.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(Cancel::is_cancelled)
    }

    /// An error of kind `Cancelled` or `Away` if the call is to be given up, with what it is about.
    pub fn check(&self, what: &dyn fmt::Display) -> Result<(), PortError> {
        if self.is_cancelled() {
            return Err(PortError::new(ErrorKind::Cancelled, format!("{what} was cancelled")));
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(PortError::new(ErrorKind::Away, format!("{what} took too long")));
        }
        Ok(())
    }
}
