//! One connection of the server: one command, from the greeting to the exit code.
//!
//! Three threads serve it. The *command's* own runs the command and ends the connection. A *writer*
//! sends what the command prints, from a short queue: the command waits for it only when it has
//! output, and a report of progress that finds the queue full is dropped. A *reader* waits for a
//! request to cancel, or for the connection to end, and raises the cancel flag for either.
//!
//! Whatever ends the command, all three end. When the command returns, its session is dropped, and
//! with it the queue, so that the writer ends after what is still queued; then the connection is
//! shut down, which wakes up the reader. The shutdown is a destructor, so that a command that
//! panics leaves no thread behind. When the writer fails, because the client is gone, the queue is
//! closed from its end: the next output is an error, and the cancel flag is raised.
//!
//! A connection that breaks the protocol, or says nothing for too long, is closed without an
//! answer.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tier_types::{Control, ControlCommand, ControlSession, ErrorKind, PortError};

use crate::RpcError;
use crate::wire::{self, PIECE_BYTES, Request, Response};

/// A client has so long to say what it wants.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait to be written.
const N_QUEUED: usize = 8;

/// Serves one connection to its end.
pub(crate) fn serve(socket: UnixStream, control: &dyn Control, cancelled: &Arc<AtomicBool>) {
    match accept(socket) {
        Ok(accepted) => accepted.run(control, cancelled),
        Err(error) => tracing::debug!(%error, "a control connection was refused"),
    }
}

/// A connection whose client has said what it wants, with a handle for each thread.
struct Accepted {
    command: ControlCommand,
    reader: UnixStream,
    writer: UnixStream,
    end: ShutDownOnDrop,
}

fn accept(mut socket: UnixStream) -> Result<Accepted, RpcError> {
    let gone = |_| RpcError::Gone;
    // The guard comes first: from here on every error shuts the connection down, and the client
    // sees it.
    let end = ShutDownOnDrop(socket.try_clone().map_err(gone)?);
    // A client that connects and says nothing would hold a thread for ever.
    socket.set_read_timeout(Some(GREETING_TIMEOUT)).map_err(gone)?;
    wire::greet(&mut socket).map_err(gone)?;
    wire::read_greeting(&mut socket)?;
    let Request::Run { arguments, directory } = wire::read(&mut socket)? else {
        // A cancel request ends with the connection that it is for; alone it means nothing.
        return Err(RpcError::Protocol("a request to cancel without a command"));
    };
    // Between now and the end the reader waits for a request that may never come.
    socket.set_read_timeout(None).map_err(gone)?;
    let reader = socket.try_clone().map_err(gone)?;
    Ok(Accepted { command: ControlCommand { arguments, directory }, reader, writer: socket, end })
}

impl Accepted {
    fn run(self, control: &dyn Control, cancelled: &Arc<AtomicBool>) {
        let Self { command, mut reader, writer, end } = self;
        // The bound keeps a connection at a few pieces of output, however slowly its client reads.
        let (responses, queued) = sync_channel(N_QUEUED);
        // Shared and not borrowed, because a command hands the session to threads of its own.
        let session = Arc::new(SocketSession { responses, cancelled: Arc::clone(cancelled) });
        thread::scope(|scope| {
            let flag = Arc::clone(cancelled);
            scope.spawn(move || {
                // A request to cancel and a client that is gone come to the same.
                let _ = wire::read::<Request>(&mut reader);
                flag.store(true, Ordering::Relaxed);
            });
            let writing = scope.spawn(move || write_all(writer, queued));
            // Within the scope, so that both threads end also if the command panics.
            let end = end;
            // It runs on this thread, so that a panic of the command unwinds through the scope.
            let code = control.run(&command, Arc::<SocketSession>::clone(&session));
            tracing::debug!(code, "a command from the control socket is done");
            let _ = session.send(Response::Done(code));
            // The writer ends when the last sender is gone, and a command keeps none beyond its
            // end.
            drop(session);
            // The exit code must be sent before the shutdown below, which would cut it off.
            let _ = writing.join();
            drop(end);
        });
    }
}

/// Writes responses until there will be no more, or the client is gone.
fn write_all(mut socket: UnixStream, queued: Receiver<Response>) {
    for response in queued {
        if let Err(error) = wire::write(&mut socket, &response) {
            // The receiver goes with this function: the command's next output fails, and the
            // command ends.
            tracing::debug!(%error, "a client does not read on");
            return;
        }
    }
}

/// Shuts a connection down when it is dropped, which wakes up all that wait at either end of it.
struct ShutDownOnDrop(UnixStream);

impl Drop for ShutDownOnDrop {
    fn drop(&mut self) {
        // The connection may be gone already, and there is nothing else to shut down.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// The session of a command whose caller is at the other end of the socket.
struct SocketSession {
    responses: SyncSender<Response>,
    cancelled: Arc<AtomicBool>,
}

impl SocketSession {
    /// Queues a response; waits while the queue is full.
    fn send(&self, response: Response) -> Result<(), PortError> {
        self.responses.send(response).map_err(|_| {
            // Nothing reads what comes: the command need not go on.
            self.cancelled.store(true, Ordering::Relaxed);
            PortError::new(ErrorKind::Cancelled, "the caller of the command is gone")
        })
    }
}

impl ControlSession for SocketSession {
    fn output(&self, bytes: &[u8]) -> Result<(), PortError> {
        // A command that prints much and looks at no flag is stopped here.
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(PortError::new(ErrorKind::Cancelled, "stopped"));
        }
        bytes.chunks(PIECE_BYTES).try_for_each(|piece| self.send(Response::Output(piece.to_vec())))
    }

    fn note(&self, text: &str) {
        // A caller that is gone misses nothing.
        let _ = pieces(text).try_for_each(|piece| self.send(Response::Note(piece.to_string())));
    }

    fn progress(&self, text: &str) {
        // Behind a full queue the next report is soon enough.
        let piece = pieces(text).next().unwrap_or_default();
        let _ = self.responses.try_send(Response::Progress(piece.to_string()));
    }

    fn cancelled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }
}

/// A text in pieces that fit into a message, cut between characters; one piece if it is empty.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        // A piece holds more than the longest character, so that each cut moves on.
        let (piece, behind) = text.split_at(text.floor_char_boundary(PIECE_BYTES));
        rest = (!behind.is_empty()).then_some(behind);
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(pieces("").collect::<Vec<_>>(), [""]);
        assert_eq!(pieces("short").collect::<Vec<_>>(), ["short"]);
        let long = format!("x{}", "ä".repeat(PIECE_BYTES));
        let cut: Vec<_> = pieces(&long).collect();
        assert_eq!(cut.len(), 3);
        assert_eq!(cut.concat(), long);
        assert!(cut.iter().all(|piece| piece.len() <= PIECE_BYTES));
    }
}
