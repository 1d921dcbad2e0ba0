//! A line with a delay and a rate: what a store that is far away is behind.
//!
//! Each piece arrives a fixed time after it was sent, and behind those that were sent before it as
//! fast as the line carries them, over all connections together. Each direction has a line of its
//! own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that are on their way in a connection: more than the line carries in its delay.
const N_PIECES: usize = 1024;

/// How a line carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// From one end to the other: half of the time of a round trip.
    pub delay: Duration,
    /// In each direction.
    pub bytes_per_second: u64,
}

/// One direction of a line.
#[derive(Debug)]
pub(super) struct Direction {
    line: Line,
    /// Until then it carries what was sent before.
    busy_until: Mutex<Option<Instant>>,
    carried_bytes: AtomicU64,
}

impl Direction {
    pub(super) fn new(line: Line) -> Self {
        Self { line, busy_until: Mutex::default(), carried_bytes: AtomicU64::new(0) }
    }

    pub(super) fn carried_bytes(&self) -> u64 {
        self.carried_bytes.load(Ordering::Relaxed)
    }

    /// When a piece arrives that is sent now.
    fn arrival(&self, len: usize) -> Instant {
        let len = u64::try_from(len).unwrap();
        self.carried_bytes.fetch_add(len, Ordering::Relaxed);
        let takes = Duration::from_nanos(len * 1_000_000_000 / self.line.bytes_per_second);
        let mut busy_until = self.busy_until.lock();
        let now = Instant::now();
        let sent = busy_until.map_or(now, |busy| busy.max(now)) + takes;
        *busy_until = Some(sent);
        sent + self.line.delay
    }

    /// Carries all that comes, until the end.
    pub(super) fn carry(&self, from: &TcpStream, to: &TcpStream) {
        let (sent, arriving) = mpsc::sync_channel(N_PIECES);
        thread::scope(|scope| {
            scope.spawn(move || drop(deliver(&arriving, to)));
            let (mut from, mut piece) = (from, vec![0; PIECE_BYTES]);
            while let Ok(len) = from.read(&mut piece) {
                let bytes = piece[..len].to_vec();
                if len == 0 || sent.send((self.arrival(len), bytes)).is_err() {
                    break;
                }
            }
            // What is on its way arrives.
            drop(sent);
        });
    }
}

fn deliver(arriving: &Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream) -> io::Result<()> {
    while let Ok((arrival, bytes)) = arriving.recv() {
        while let Some(left) = arrival.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        to.write_all(&bytes)?;
    }
    to.shutdown(Shutdown::Write)
}
