//! Background work: threads of low priority, which yield to the foreground.

use std::thread;

use tier_types::{ErrorKind, PortError};

use crate::AgentError;

/// Has work done by a thread of low priority (0 as it is, 19 lowest), and waits for it. All threads
/// that it starts have the same. Not for work that holds locks of the filesystem: an operation that
/// wants one would wait for a thread that waits for a core.
pub(super) fn in_background<T: Send>(
    nice: u8,
    work: impl FnOnce() -> T + Send,
) -> Result<T, AgentError> {
    thread::scope(|scope| {
        let niced = move || {
            // The priority of this thread only. If it stays, the work is the same.
            if nice > 0
                && let Err(error) = rustix::process::setpriority_process(None, nice.into())
            {
                tracing::debug!(nice, %error, "the priority of a background thread stays");
            }
            work()
        };
        let builder = thread::Builder::new().name("tier-background".into());
        let worker = builder.spawn_scoped(scope, niced).map_err(|source| {
            PortError::new(ErrorKind::Failed, "cannot start a thread").with_source(source)
        })?;
        // A panic goes on here, as if the work had been done here.
        Ok(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
