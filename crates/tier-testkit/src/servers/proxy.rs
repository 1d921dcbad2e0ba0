//! A network between a client and a server, which fails when it is told to.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::line::{Direction, Line};

/// What becomes of the next connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetworkFault {
    /// Its first request does not reach the server, and gets this answer, head and body.
    Answer(String),
    /// It ends after so many bytes of the server's answers; with zero an acknowledgement is lost.
    Cut(u64),
    /// It ends after so many bytes of the client's requests.
    CutRequest(u64),
    /// Nothing comes.
    Hang,
}

/// A port that leads to a server.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    network: Arc<Network>,
}

#[derive(Debug)]
struct Network {
    server: u16,
    faults: Mutex<VecDeque<NetworkFault>>,
    open: Mutex<Vec<TcpStream>>,
    is_away: AtomicBool,
    has_ended: AtomicBool,
    n_connections: AtomicU64,
    line: Option<[Direction; 2]>,
}

impl Proxy {
    /// A way to the server at a port of this machine.
    pub fn to(server: u16) -> Self {
        Self::over(server, None)
    }

    /// The same, over a line.
    pub fn over(server: u16, line: Option<Line>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let network = Arc::new(Network {
            server,
            faults: Mutex::default(),
            open: Mutex::default(),
            is_away: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            n_connections: AtomicU64::new(0),
            line: line.map(|line| [Direction::new(line), Direction::new(line)]),
        });
        let accepting = Arc::clone(&network);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.has_ended.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client else { continue };
                let network = Arc::clone(&accepting);
                // What becomes of a connection is seen by its client.
                thread::spawn(move || drop(network.connect(client)));
            }
        });
        Self { port, network }
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Has the next connections fail, one after the other, and ends those that there are.
    pub fn fail(&self, faults: impl IntoIterator<Item = NetworkFault>) {
        self.network.faults.lock().extend(faults);
        self.network.hang_up();
    }

    /// The server cannot be reached, or can again.
    pub fn set_away(&self, is_away: bool) {
        self.network.is_away.store(is_away, Ordering::SeqCst);
        self.network.hang_up();
    }

    /// Bytes that went over the line to the server, and back.
    pub fn carried_bytes(&self) -> [u64; 2] {
        let line = self.network.line.as_ref();
        line.map_or([0, 0], |line| line.each_ref().map(Direction::carried_bytes))
    }

    /// Connections so far, also those that failed.
    pub fn n_connections(&self) -> u64 {
        self.network.n_connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.has_ended.store(true, Ordering::SeqCst);
        self.network.hang_up();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Network {
    fn hang_up(&self) {
        for stream in self.open.lock().drain(..) {
            // One that has ended by itself cannot be shut down.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn connect(&self, mut client: TcpStream) -> io::Result<()> {
        self.n_connections.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.open.lock().push(client.try_clone()?);
        let fault = self.faults.lock().pop_front();
        match fault {
            Some(NetworkFault::Answer(answer)) => {
                read_request(&mut client)?;
                client.write_all(answer.as_bytes())?;
                client.shutdown(Shutdown::Write)
            }
            // Until it is hung up.
            Some(NetworkFault::Hang) => io::copy(&mut client, &mut io::sink()).map(drop),
            Some(NetworkFault::Cut(bytes)) => self.forward(&client, u64::MAX, bytes),
            Some(NetworkFault::CutRequest(bytes)) => self.forward(&client, bytes, u64::MAX),
            None => match &self.line {
                None => self.forward(&client, u64::MAX, u64::MAX),
                Some(line) => self.carry(&client, line),
            },
        }
    }

    /// Carries all over a line.
    fn carry(&self, client: &TcpStream, [there, back]: &[Direction; 2]) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", self.server))?;
        server.set_nodelay(true)?;
        client.set_nodelay(true)?;
        self.open.lock().push(server.try_clone()?);
        thread::scope(|scope| {
            scope.spawn(|| there.carry(client, &server));
            back.carry(&server, client);
        });
        Ok(())
    }

    /// Carries so many bytes to the server, and so many back.
    fn forward(&self, client: &TcpStream, sent_max: u64, answered_max: u64) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", self.server))?;
        self.open.lock().push(server.try_clone()?);
        let carry = |from: &TcpStream, to: &TcpStream, bytes_max: u64| {
            let mut to = to;
            let carried = io::copy(&mut from.take(bytes_max), &mut to);
            // An answer that is to be lost is one that the server has given.
            let wait = if bytes_max == 0 { from.peek(&mut [0]).map(drop) } else { Ok(()) };
            drop((carried, wait, from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
        };
        thread::scope(|scope| {
            scope.spawn(|| carry(client, &server, sent_max));
            carry(&server, client, answered_max);
        });
        Ok(())
    }
}

/// Reads a request to its end, as far as its head tells it.
fn read_request(client: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    io::copy(&mut client.take(length), &mut io::sink()).map(drop)
}
