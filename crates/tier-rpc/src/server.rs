//! The side of the process that has the store open.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{Mode, chmod};
use rustix::net::shutdown;
use tier_types::{Control, ControlCommand, ControlSession, ErrorKind, PortError};

use crate::RpcError;
use crate::place::Place;
use crate::wire::{self, PIECE_BYTES, Request, Response};

/// Who connects has so long to say what he wants.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// A command that is stopped has so long to be heard.
const LAST_WORDS: Duration = Duration::from_secs(2);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Messages that wait to be written.
const N_WORDS: usize = 8;

/// Takes commands until it is dropped. Each runs on a thread of its own.
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
    /// Whoever waits at either end of it wakes up when it is shut down.
    socket: UnixStream,
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
        let place = Place::of(path).map_err(failed("find the folder of"))?;
        let listener = UnixListener::bind(place.path()).map_err(failed("listen at"))?;
        let private = Mode::RUSR | Mode::WUSR;
        chmod(path, private).map_err(|errno| failed("protect")(errno.into()))?;
        let (ended, running) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { listener, ended, running });
        let accepting = Arc::clone(&shared);
        let thread = thread::Builder::new().name("tier-control".into());
        let thread = thread.spawn(move || accepting.accept(&control));
        let thread = thread.map_err(failed("start a thread for"))?;
        Ok(Self { path: path.to_path_buf(), shared, thread: Some(thread) })
    }
}

impl Drop for Server {
    /// Commands that run are asked to stop, and waited for.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Whoever accepts wakes up and sees it.
        let _ = shutdown(&self.shared.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let running = std::mem::take(&mut *self.shared.running.lock());
        for Running { cancelled, socket, .. } in &running {
            cancelled.store(true, Ordering::Relaxed);
            let _ = socket.shutdown(Shutdown::Read);
        }
        for Running { thread, socket, .. } in running {
            end_in_time(&thread, &socket);
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// A command that was asked to stop says its last words; if nobody reads them, it must not wait.
fn end_in_time(thread: &JoinHandle<()>, socket: &UnixStream) {
    let begin = Instant::now();
    while !thread.is_finished() && begin.elapsed() < LAST_WORDS {
        thread::park_timeout(RETRY_INTERVAL);
    }
    let _ = socket.shutdown(Shutdown::Both);
}

impl Shared {
    fn accept(&self, control: &Arc<dyn Control>) {
        loop {
            let socket = self.listener.accept();
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            // Who cannot be served, for want of threads or files, sees the connection end.
            let served = socket.and_then(|(socket, _)| self.serve(socket, control));
            if served.is_err() {
                thread::park_timeout(RETRY_INTERVAL);
            }
        }
    }

    fn serve(&self, socket: UnixStream, control: &Arc<dyn Control>) -> io::Result<()> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (control, flag) = (Arc::clone(control), Arc::clone(&cancelled));
        let held = socket.try_clone()?;
        let thread = thread::Builder::new().name("tier-command".into());
        let thread = thread.spawn(move || serve(socket, control.as_ref(), &flag))?;
        let mut running = self.running.lock();
        running.retain(|running| !running.thread.is_finished());
        running.push(Running { thread, cancelled, socket: held });
        Ok(())
    }
}

/// Serves one connection: one command. Who breaks the protocol, or says nothing, is not answered.
fn serve(mut socket: UnixStream, control: &dyn Control, cancelled: &Arc<AtomicBool>) {
    let Ok(ending) = socket.try_clone() else { return };
    let ending = ShutDown(ending);
    let patience = socket.set_read_timeout(Some(GREETING_TIMEOUT));
    if patience.is_err() || wire::greet(&mut socket).is_err() {
        return;
    }
    if wire::read_greeting(&mut socket).is_err() {
        return;
    }
    let Ok(Request::Run { arguments, folder }) = wire::read(&mut socket) else { return };
    let Ok(mut listening) = socket.try_clone() else { return };
    if socket.set_read_timeout(None).is_err() {
        return;
    }
    let (words, spoken) = sync_channel(N_WORDS);
    let session = Arc::new(Session { words, cancelled: Arc::clone(cancelled) });
    thread::scope(|scope| {
        let flag = Arc::clone(cancelled);
        scope.spawn(move || {
            // A wish to stop, or somebody who is gone: the same.
            let _ = wire::read::<Request>(&mut listening);
            flag.store(true, Ordering::Relaxed);
        });
        let speaking = scope.spawn(move || {
            let speak = |response: Response| wire::write(&mut socket, &response);
            spoken.into_iter().try_for_each(speak)
        });
        // Also if the command panics: both threads wake up.
        let ending = ending;
        let code = control
            .run(&ControlCommand { arguments, directory: folder }, Arc::<Session>::clone(&session));
        let _ = session.send(Response::Done(code));
        drop(session);
        let _ = speaking.join();
        drop(ending);
    });
}

/// Shuts a connection down when it is dropped.
struct ShutDown(UnixStream);

impl Drop for ShutDown {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// What a command says goes through a queue to a thread that writes it, so that whoever only tells
/// how far he is never waits for somebody who does not read.
struct Session {
    words: SyncSender<Response>,
    cancelled: Arc<AtomicBool>,
}

impl Session {
    fn send(&self, response: Response) -> Result<(), PortError> {
        self.words.send(response).map_err(|_| {
            // Nobody reads what comes: the command need not go on.
            self.cancelled.store(true, Ordering::Relaxed);
            PortError::new(ErrorKind::Cancelled, "whoever gave the command is gone")
        })
    }
}

impl ControlSession for Session {
    fn output(&self, bytes: &[u8]) -> Result<(), PortError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(PortError::new(ErrorKind::Cancelled, "stopped"));
        }
        bytes.chunks(PIECE_BYTES).try_for_each(|piece| self.send(Response::Output(piece.to_vec())))
    }

    fn note(&self, text: &str) {
        let _ = self.send(Response::Note(text.to_string()));
    }

    fn progress(&self, text: &str) {
        let _ = self.words.try_send(Response::Progress(text.to_string()));
    }

    fn cancelled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }
}
