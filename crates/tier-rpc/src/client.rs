//! The client: sends a command to the process that has a store open, and receives its output.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use tier_types::{ControlCommand, ControlSession};

use crate::RpcError;
use crate::socket_path::SocketPath;
use crate::wire::{self, Request, Response};

/// A connection to the process that has a store open.
///
/// ```
/// use tier_rpc::Client;
///
/// let dir = tempfile::tempdir()?;
/// let client = Client::connect(&dir.path().join("control.sock"))?;
/// assert!(client.is_none(), "no process has this store open");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
}

/// Stops the command of a client, from another thread.
#[derive(Debug)]
pub struct Canceller(UnixStream);

impl Client {
    /// Connects to the socket at a path; `None` if there is none, or only what a process left that
    /// is gone.
    pub fn connect(path: &Path) -> Result<Option<Self>, RpcError> {
        let connected = SocketPath::of(path).and_then(|socket| UnixStream::connect(socket.short()));
        match connected {
            Ok(mut socket) => {
                // The answer is read in `run`: a look whether a process listens must not wait for a
                // busy one.
                wire::greet(&mut socket).map_err(|_| RpcError::Gone)?;
                Ok(Some(Self { socket }))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => {
                Err(RpcError::Io { operation: "connect to", path: path.to_path_buf(), source })
            }
        }
    }

    /// A way to stop the command while [`run`](Self::run) waits for it.
    pub fn canceller(&self) -> Result<Canceller, RpcError> {
        // A duplicate of the socket, so that the signal thread can write while `run` reads.
        self.socket.try_clone().map(Canceller).map_err(|_| RpcError::Gone)
    }

    /// Has a command carried out and returns its exit code. What it prints goes to `session`.
    pub fn run(
        mut self,
        command: &ControlCommand,
        session: &dyn ControlSession,
    ) -> Result<u8, RpcError> {
        // Nothing is sent to a server of another version, which would not understand it.
        wire::read_greeting(&mut self.socket)?;
        let ControlCommand { arguments, directory } = command.clone();
        wire::write(&mut self.socket, &Request::Run { arguments, directory })?;
        loop {
            match wire::read(&mut self.socket)? {
                Response::Output(bytes) => {
                    if session.output(&bytes).is_err() {
                        // What comes then is read all the same, so that the command ends in order.
                        let _ = wire::write(&mut self.socket, &Request::Cancel);
                    }
                }
                Response::Note(text) => session.note(&text),
                Response::Progress(text) => session.progress(&text),
                Response::Done(code) => return Ok(code),
            }
        }
    }
}

/// Whether no process listens at a path.
fn is_absent(error: &io::Error) -> bool {
    // A socket of a process that was killed stays in the directory, and refuses connections.
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

impl Canceller {
    /// Asks for the command to stop at the next safe point.
    pub fn cancel(&mut self) {
        // A process that is gone needs not be asked.
        let _ = wire::write(&mut self.0, &Request::Cancel);
    }
}
