//! The one async runtime, which drives connections for the threads that call a store.
//!
//! A caller waits on its own thread ([`run`]); the runtime has one thread that watches sockets and
//! clocks. It lives as long as the process: connections outlast the stores that opened them.

use std::future::Future;
use std::sync::OnceLock;

use tier_types::{ErrorKind, PortError};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Makes the runtime, if it is not there, and says how connections are encrypted.
pub(super) fn start() -> Result<(), PortError> {
    if RUNTIME.get().is_some() {
        return Ok(());
    }
    // Another part of the process may have chosen the same library first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let built =
        Builder::new_multi_thread().worker_threads(1).thread_name("cloud").enable_all().build();
    let runtime = built.map_err(|source| {
        PortError::new(ErrorKind::of_io(&source), "cannot start the threads of the cloud")
            .with_source(source)
    })?;
    // One that another thread made meanwhile is as good.
    let _ = RUNTIME.set(runtime);
    Ok(())
}

/// Waits for an answer. A store starts the runtime before it can be called.
#[expect(clippy::expect_used, reason = "a store is opened after the start")]
pub(super) fn run<T>(answer: impl Future<Output = T>) -> T {
    RUNTIME.get().expect("the runtime was started").handle().block_on(answer)
}
