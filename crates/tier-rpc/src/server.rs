//! The server: takes commands in the process that has a store open.
//!
//! One thread accepts connections, and each connection has a thread of its own. Dropping the server
//! ends all of them in this order: no connection is accepted any more; every running command is
//! asked to stop, by its cancel flag and by the end of what its client can send; each is waited
//! for. A command that was stopped may still have output for a client that does not read it, so
//! that after a moment its connection is shut down as well, and what waits to be written fails.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{Mode, chmod};
use rustix::net::shutdown;
use tier_types::Control;

use crate::socket_path::SocketPath;
use crate::{RpcError, connection};

/// A command that is stopped has so long to send what it has left.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Takes commands until it is dropped. Each runs on a thread of its own.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::AtomicBool;
///
/// use tier_rpc::{Client, Server};
/// use tier_types::{Control, ControlCommand, ControlSession, PortError};
///
/// /// Prints its arguments.
/// struct Echo;
///
/// impl Control for Echo {
///     fn run(&self, command: &ControlCommand, session: Arc<dyn ControlSession>) -> u8 {
///         let printed = command.arguments.iter().try_for_each(|bytes| session.output(bytes));
///         u8::from(printed.is_err())
///     }
/// }
///
/// /// Checks what comes.
/// struct Caller;
///
/// impl ControlSession for Caller {
///     fn output(&self, bytes: &[u8]) -> Result<(), PortError> {
///         assert_eq!(bytes, b"hello");
///         Ok(())
///     }
///     fn note(&self, _: &str) {}
///     fn progress(&self, _: &str) {}
///     fn cancelled(&self) -> Arc<AtomicBool> {
///         Arc::default()
///     }
/// }
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("control.sock");
/// let _server = Server::start(&path, Arc::new(Echo))?;
/// let client = Client::connect(&path)?.expect("a process listens");
/// let command = ControlCommand { arguments: vec![b"hello".to_vec()], directory: b"/".to_vec() };
/// assert_eq!(client.run(&command, &Caller)?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    listener: UnixListener,
    ended: AtomicBool,
    /// The commands that run.
    running: Mutex<Vec<Running>>,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    cancelled: Arc<AtomicBool>,
    /// What waits at either end of it wakes up when it is shut down.
    socket: UnixStream,
}

impl Server {
    /// Listens at a path, where only its owner can connect. A socket that is there already was left
    /// by a process that is gone: the caller holds the store's lock.
    pub fn start(path: &Path, control: Arc<dyn Control>) -> Result<Self, RpcError> {
        let failed = |operation| {
            move |source: io::Error| RpcError::Io { operation, path: path.to_path_buf(), source }
        };
        // Binding fails over a name that exists, and a process that was killed leaves one.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove the remains of")(error));
            }
            _ => {}
        }
        let socket = SocketPath::of(path).map_err(failed("find the directory of"))?;
        let listener = UnixListener::bind(socket.short()).map_err(failed("listen at"))?;
        // Before this call the socket has the mode of the umask; the store's directory, which only
        // its owner can enter, keeps others out until then.
        let private = Mode::RUSR | Mode::WUSR;
        chmod(path, private).map_err(|errno| failed("protect")(errno.into()))?;
        let (ended, running) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { listener, ended, running });
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("tier-control".into())
            .spawn(move || accepting.accept(&control))
            .map_err(failed("start a thread for"))?;
        tracing::debug!(path = %path.display(), "control socket opened");
        Ok(Self { path: path.to_path_buf(), shared, thread: Some(thread) })
    }
}

impl Drop for Server {
    /// Commands that run are asked to stop, and waited for.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // The accepting thread wakes up and sees it.
        let _ = shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // It is joined first, so that no connection is added to the list that is taken below.
            let _ = thread.join();
        }
        let running = std::mem::take(&mut *self.shared.running.lock());
        // All commands are told before any is waited for: they stop at the same time.
        for Running { cancelled, socket, .. } in &running {
            cancelled.store(true, Ordering::Relaxed);
            // Only the reading half: what a command says of its stop can still be written.
            let _ = socket.shutdown(Shutdown::Read);
        }
        for Running { thread, socket, .. } in running {
            end_in_time(&thread, &socket);
            // A panic of a command was its own; ending the server has nothing to add to it.
            let _ = thread.join();
        }
        // A socket that stays is harmless: the next server removes it, and clients find no process.
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits a moment for a command that was asked to stop; then it must not wait for its client.
fn end_in_time(thread: &JoinHandle<()>, socket: &UnixStream) {
    let begin = Instant::now();
    while !thread.is_finished() && begin.elapsed() < FLUSH_TIMEOUT {
        // A thread cannot be joined with a limit; an early wake-up only looks again.
        thread::park_timeout(RETRY_INTERVAL);
    }
    let _ = socket.shutdown(Shutdown::Both);
}

impl Shared {
    fn accept(&self, control: &Arc<dyn Control>) {
        loop {
            let accepted = self.listener.accept();
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            // A client that cannot be served, for want of threads or files, sees the connection
            // end.
            let served = accepted.and_then(|(socket, _)| self.serve(socket, control));
            if let Err(error) = served {
                tracing::warn!(%error, "a control connection could not be served");
                // Without files or threads to spare the next try would fail at once, and this loop
                // would spin.
                thread::park_timeout(RETRY_INTERVAL);
            }
        }
    }

    fn serve(&self, socket: UnixStream, control: &Arc<dyn Control>) -> io::Result<()> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (control, flag) = (Arc::clone(control), Arc::clone(&cancelled));
        // The duplicate is made before the thread, because the thread takes the socket with it.
        let held = socket.try_clone()?;
        let thread = thread::Builder::new()
            .name("tier-command".into())
            .spawn(move || connection::serve(socket, control.as_ref(), &flag))?;
        let mut running = self.running.lock();
        // Finished threads are let go here, so that a mount of months keeps only what runs.
        running.retain(|running| !running.thread.is_finished());
        // No end of the server can miss it: the accepting thread, which runs this, is joined
        // before.
        running.push(Running { thread, cancelled, socket: held });
        Ok(())
    }
}
