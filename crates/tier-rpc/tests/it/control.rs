//! Commands across the socket.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tier_rpc::{Client, RpcError, Server};
use tier_types::{Control, ControlCommand, ControlSession, PortError};

/// Prints its arguments; `wait` waits until it is stopped.
struct Echo;

impl Control for Echo {
    fn run(&self, command: &ControlCommand, session: Arc<dyn ControlSession>) -> u8 {
        if command.arguments.first().map(Vec::as_slice) == Some(b"wait") {
            session.progress("waiting");
            while !session.cancelled().load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            return 1;
        }
        session.note("a note");
        for argument in &command.arguments {
            if session.output(argument).is_err() {
                return 1;
            }
        }
        7
    }
}

#[derive(Default)]
struct Heard {
    output: Mutex<Vec<u8>>,
    said: Mutex<Vec<String>>,
    on_progress: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl ControlSession for Heard {
    fn output(&self, bytes: &[u8]) -> Result<(), PortError> {
        self.output.lock().extend_from_slice(bytes);
        Ok(())
    }

    fn note(&self, text: &str) {
        self.said.lock().push(text.to_string());
    }

    fn progress(&self, text: &str) {
        self.said.lock().push(text.to_string());
        if let Some(act) = self.on_progress.lock().take() {
            act();
        }
    }

    fn cancelled(&self) -> Arc<AtomicBool> {
        Arc::default()
    }
}

fn command(arguments: &[&[u8]]) -> ControlCommand {
    let arguments = arguments.iter().map(|argument| argument.to_vec()).collect();
    ControlCommand { arguments, directory: b"/".to_vec() }
}

#[test]
fn a_command_goes_over_and_its_output_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    assert!(Client::connect(&path).unwrap().is_none(), "no process listens");
    let server = Server::start(&path, Arc::new(Echo)).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let long = vec![0xfe; 3 << 18];
    for _ in 0..2 {
        let heard = Heard::default();
        let client = Client::connect(&path).unwrap().unwrap();
        let code = client.run(&command(&[b"one ", &long]), &heard).unwrap();
        assert_eq!(code, 7);
        assert_eq!(*heard.output.lock(), [b"one ", long.as_slice()].concat());
        assert_eq!(*heard.said.lock(), ["a note"]);
    }
    drop(server);
    assert!(Client::connect(&path).unwrap().is_none(), "the socket went with the server");
}

#[test]
fn a_command_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let _server = Server::start(&path, Arc::new(Echo)).unwrap();
    let client = Client::connect(&path).unwrap().unwrap();
    let mut canceller = client.canceller().unwrap();
    let heard = Heard::default();
    *heard.on_progress.lock() = Some(Box::new(move || canceller.cancel()));
    assert_eq!(client.run(&command(&[b"wait"]), &heard).unwrap(), 1);
}

#[test]
fn a_server_that_ends_stops_its_commands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let server = Server::start(&path, Arc::new(Echo)).unwrap();
    let client = Client::connect(&path).unwrap().unwrap();
    let (began, waits) = std::sync::mpsc::channel();
    let command_thread = std::thread::spawn(move || {
        let heard = Heard::default();
        *heard.on_progress.lock() = Some(Box::new(move || began.send(()).unwrap()));
        client.run(&command(&[b"wait"]), &heard)
    });
    waits.recv().unwrap();
    drop(server);
    assert_eq!(command_thread.join().unwrap().unwrap(), 1);
}

#[test]
fn what_a_crash_left_is_no_server_and_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(Client::connect(&path).unwrap().is_none());
    let _server = Server::start(&path, Arc::new(Echo)).unwrap();
    assert!(Client::connect(&path).unwrap().is_some());
}

#[test]
fn another_program_at_the_socket_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let other = std::thread::spawn(move || {
        use std::io::Write;
        listener.accept().unwrap().0.write_all(b"220 mail").unwrap();
    });
    let client = Client::connect(&path).unwrap().unwrap();
    let error = client.run(&command(&[]), &Heard::default()).unwrap_err();
    assert!(matches!(error, RpcError::Protocol(_) | RpcError::Gone), "{error}");
    other.join().unwrap();
}

#[test]
fn a_client_that_breaks_the_protocol_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let server = Server::start(&path, Arc::new(Echo)).unwrap();
    for bytes in
        [&b"tierctl\x01"[..], b"tierctl\x01\0\0\0\0", b"tierctl\x01\xff\xff\xff\xff", b"220 mail"]
    {
        use std::io::{Read, Write};
        let mut socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
        socket.write_all(bytes).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.len() <= 8, "no answer but a greeting: {answer:?}");
    }
    // It goes on to serve those that keep the protocol.
    let client = Client::connect(&path).unwrap().unwrap();
    assert_eq!(client.run(&command(&[b"hello"]), &Heard::default()).unwrap(), 7);
    drop(server);
}

#[test]
fn arguments_beyond_a_message_are_refused_by_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let _server = Server::start(&path, Arc::new(Echo)).unwrap();
    let client = Client::connect(&path).unwrap().unwrap();
    let long = vec![b'x'; 2 << 20];
    let error = client.run(&command(&[&long]), &Heard::default()).unwrap_err();
    assert!(matches!(error, RpcError::TooLong { .. }), "{error}");
}
