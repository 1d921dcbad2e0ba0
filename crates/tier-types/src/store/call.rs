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
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    class: CallClass,
    deadline: Option<Instant>,
    cancelled: Option<&'a AtomicBool>,
}

impl<'a> Call<'a> {
    /// A call for which no reader waits, without a deadline.
    pub const fn bulk() -> Self {
        Self { class: CallClass::Bulk, deadline: None, cancelled: None }
    }

    /// A call for which a reader waits, without a deadline.
    pub const fn interactive() -> Self {
        Self { class: CallClass::Interactive, deadline: None, cancelled: None }
    }

    /// The same, given up after so long from now.
    #[must_use]
    pub fn within(self, time: Duration) -> Self {
        // One that is farther than the clock reaches is none.
        Self { deadline: Instant::now().checked_add(time), ..self }
    }

    /// The same, given up as soon as the flag is set.
    #[must_use]
    pub fn cancelled_by(self, flag: &'a AtomicBool) -> Self {
        Self { cancelled: Some(flag), ..self }
    }

    /// Whether a reader waits.
    pub fn class(&self) -> CallClass {
        self.class
    }

    /// When it is given up.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// An error of kind `Cancelled` or `Away` if the call is to be given up, with what it is about.
    pub fn check(&self, what: &dyn fmt::Display) -> Result<(), PortError> {
        if self.cancelled.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(PortError::new(ErrorKind::Cancelled, format!("{what} was cancelled")));
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(PortError::new(ErrorKind::Away, format!("{what} took too long")));
        }
        Ok(())
    }
}
