//! Starting named threads.

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
