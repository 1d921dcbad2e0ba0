//! The one async runtime, which drives connections for the threads that call a store.
//!
//! A caller waits on its own thread ([`run`]); the runtime has one thread that watches sockets and
//! clocks. It lives as long as the process: connections outlast the stores that opened them.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

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

/// Wakes a thread that waits for an answer. The flag is this answer's own: a thread may wait for
/// one within another, as when what is put into one bucket is read from another one.
struct Waiting {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Waits for an answer. A store starts the runtime before it can be called.
#[expect(clippy::expect_used, reason = "a store is opened after the start")]
pub(super) fn run<T>(answer: impl Future<Output = T>) -> T {
    let _within = RUNTIME.get().expect("the runtime was started").enter();
    let waiting = Arc::new(Waiting { thread: thread::current(), is_woken: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&waiting));
    let mut answer = pin!(answer);
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer;
        }
        while !waiting.is_woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}
