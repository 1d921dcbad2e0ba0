//! The side of the process that has the store open.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use rustix::fs::{Mode, chmod};
use tier_types::{Control, ControlCommand, ControlSession, ErrorKind, PortError};

use crate::wire::{self, PIECE_BYTES, Request, Response};
use crate::{Client, RpcError};

/// Takes commands until it is dropped. Each runs on a thread of its own.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    /// The commands that run.
    running: Mutex<Vec<(JoinHandle<()>, Arc<AtomicBool>)>>,
}

impl Server {
    /// Listens at a path, where nobody but its owner can connect. A socket that is there already
    /// was left by a process that is gone: the caller holds the store's lock.
    pub fn start(path: &Path, control: Arc<dyn Control>) -> Result<Self, RpcError> {
        let failed = |operation| {
            move |source: io::Error| RpcError::Io { operation, path: path.to_path_buf(), source }
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove the remains of")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed("listen at"))?;
        let private = Mode::RUSR | Mode::WUSR;
        chmod(path, private).map_err(|errno| failed("protect")(errno.into()))?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new().name("tier-control".into());
        let thread = thread.spawn(move || accepting.accept(&listener, &control));
        let thread = thread.map_err(failed("start a thread for"))?;
        Ok(Self { path: path.to_path_buf(), shared, thread: Some(thread) })
    }
}

impl Drop for Server {
    /// Commands that run are asked to stop, and waited for.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Whoever accepts wakes up and sees it.
        drop(Client::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let running = std::mem::take(&mut *self.shared.running.lock());
        for (thread, cancelled) in running {
            cancelled.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

impl Shared {
    fn accept(&self, listener: &UnixListener, control: &Arc<dyn Control>) {
        for socket in listener.incoming() {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let Ok(socket) = socket else { continue };
            let cancelled = Arc::new(AtomicBool::new(false));
            let (control, flag) = (Arc::clone(control), Arc::clone(&cancelled));
            let thread = thread::Builder::new().name("tier-command".into());
            // Who cannot be served, for want of threads, sees the connection end.
            if let Ok(thread) = thread.spawn(move || serve(socket, control.as_ref(), &flag)) {
                let mut running = self.running.lock();
                running.retain(|(thread, _)| !thread.is_finished());
                running.push((thread, cancelled));
            }
        }
    }
}

/// Serves one connection: one command. Who breaks the protocol is not answered.
fn serve(mut socket: UnixStream, control: &dyn Control, cancelled: &Arc<AtomicBool>) {
    if wire::greet(&mut socket).is_err() || wire::read_greeting(&mut socket).is_err() {
        return;
    }
    let Ok(Request::Run { arguments, folder }) = wire::read(&mut socket) else { return };
    let Ok(mut listening) = socket.try_clone() else { return };
    let Ok(ending) = socket.try_clone() else { return };
    let session =
        Arc::new(Session { socket: Mutex::new(socket), cancelled: Arc::clone(cancelled) });
    thread::scope(|scope| {
        let flag = Arc::clone(cancelled);
        scope.spawn(move || {
            // A wish to stop, or somebody who is gone: the same.
            let _ = wire::read::<Request>(&mut listening);
            flag.store(true, Ordering::Relaxed);
        });
        let code =
            control.run(&ControlCommand { arguments, folder }, Arc::<Session>::clone(&session));
        let _ = session.send(&Response::Done(code));
        let _ = ending.shutdown(Shutdown::Both);
    });
}

struct Session {
    socket: Mutex<UnixStream>,
    cancelled: Arc<AtomicBool>,
}

impl Session {
    fn send(&self, response: &Response) -> Result<(), PortError> {
        wire::write(&mut *self.socket.lock(), response).map_err(|source| {
            // Nobody reads what comes: the command need not go on.
            self.cancelled.store(true, Ordering::Relaxed);
            PortError::new(ErrorKind::Cancelled, "whoever gave the command is gone")
                .with_source(source)
        })
    }
}

impl ControlSession for Session {
    fn output(&self, bytes: &[u8]) -> Result<(), PortError> {
        bytes.chunks(PIECE_BYTES).try_for_each(|piece| self.send(&Response::Output(piece.to_vec())))
    }

    fn note(&self, text: &str) {
        let _ = self.send(&Response::Note(text.to_string()));
    }

    fn progress(&self, text: &str) {
        let _ = self.send(&Response::Progress(text.to_string()));
    }

    fn cancelled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }
}
