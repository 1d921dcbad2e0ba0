//! Starting named threads, and what is left of those that panic.

use std::any::Any;
use std::thread::{Builder, JoinHandle};

use tier_types::{ErrorKind, PortError};

/// Starts a thread under this name, which debuggers and `top` show.
pub(crate) fn start_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, PortError> {
    // The short form, `thread::spawn`, panics where the system has no thread left.
    Builder::new().name(name.into()).spawn(work).map_err(|source| {
        PortError::new(ErrorKind::Failed, format!("cannot start the thread {name}"))
            .with_source(source)
    })
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    // `panic!` carries a `&str` for a literal and a `String` for a formatted message.
    let formatted = || panic.downcast_ref::<String>().map(String::as_str);
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(formatted).unwrap_or("it left no message").to_string()
}
