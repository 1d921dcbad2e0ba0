//! The one way back for evicted data.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};
use tier_persist::Fetcher;
use tier_types::{
    ChunkNo, ErrorKind, HasKind, Ino, PortError, Recall, RecallRequest, RecalledExtent, Xid,
    with_causes,
};

/// How recalls are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecallerOptions {
    /// Threads that fetch.
    pub n_threads: usize,
    /// How long a reader waits.
    pub timeout: Duration,
}

impl Default for RecallerOptions {
    fn default() -> Self {
        Self { n_threads: 4, timeout: Duration::from_secs(30) }
    }
}

/// Fetches evicted data on threads of its own. Readers of one extent share one flight.
pub struct Recaller {
    shared: Arc<Shared>,
    /// Gone when the threads are to end.
    requests: Option<Sender<Flight>>,
    threads: Vec<JoinHandle<()>>,
    timeout: Duration,
}

type Key = (Ino, ChunkNo, Xid);

struct Shared {
    fetcher: Fetcher,
    flights: Mutex<HashMap<Key, Arc<Landing>>>,
}

struct Flight {
    request: RecallRequest,
    landing: Arc<Landing>,
}

/// What a flight brought. An error is kept as text, because all who wait get it.
type Landed = Result<Arc<RecalledExtent>, (ErrorKind, String)>;

/// Where those who wait for a flight find what it brought.
#[derive(Default)]
struct Landing {
    result: Mutex<Option<Landed>>,
    landed: Condvar,
}

impl std::fmt::Debug for Recaller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recaller").finish_non_exhaustive()
    }
}

impl Recaller {
    /// Starts the threads.
    pub fn start(fetcher: Fetcher, options: RecallerOptions) -> Result<Self, PortError> {
        let (requests, queue) = unbounded();
        let shared = Arc::new(Shared { fetcher, flights: Mutex::new(HashMap::new()) });
        let mut threads = Vec::new();
        for number in 0..options.n_threads.max(1) {
            let (shared, queue) = (Arc::clone(&shared), queue.clone());
            let thread = thread::Builder::new().name(format!("tier-recall-{number}"));
            let thread = thread.spawn(move || shared.work(&queue)).map_err(|source| {
                PortError::new(ErrorKind::Failed, "cannot start a thread for recalls")
                    .with_source(source)
            })?;
            threads.push(thread);
        }
        Ok(Self { shared, requests: Some(requests), threads, timeout: options.timeout })
    }

    /// The flight for this request: one that is under way, or a new one.
    fn board(&self, request: &RecallRequest) -> Result<Arc<Landing>, PortError> {
        let key = (request.ino, request.chunks.start(), request.data_xid);
        let mut flights = self.shared.flights.lock();
        if let Some(landing) = flights.get(&key) {
            return Ok(Arc::clone(landing));
        }
        let landing = Arc::new(Landing::default());
        let flight = Flight { request: *request, landing: Arc::clone(&landing) };
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(flight).is_ok());
        if !sent {
            return Err(PortError::new(ErrorKind::Failed, "the threads for recalls have ended"));
        }
        flights.insert(key, Arc::clone(&landing));
        Ok(landing)
    }
}

impl Drop for Recaller {
    fn drop(&mut self) {
        self.requests = None;
        // The index and the keys are let go of before the program ends. A thread that itself
        // dropped the filesystem, and so this, cannot wait for itself.
        let here = thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != here) {
            let _ = thread.join();
        }
    }
}

impl Recall for Recaller {
    fn recall(&self, request: &RecallRequest) -> Result<RecalledExtent, PortError> {
        let landing = self.board(request)?;
        let deadline = Instant::now() + self.timeout;
        let mut result = landing.result.lock();
        loop {
            match result.as_ref() {
                Some(Ok(extent)) => return Ok(RecalledExtent::clone(extent)),
                Some(Err((kind, message))) => return Err(PortError::new(*kind, message.clone())),
                None => {}
            }
            if landing.landed.wait_until(&mut result, deadline).timed_out() && result.is_none() {
                let message = format!(
                    "the data of inode {} did not come within {} seconds",
                    request.ino,
                    self.timeout.as_secs()
                );
                return Err(PortError::new(ErrorKind::Unavailable, message));
            }
        }
    }
}

impl Shared {
    fn work(&self, queue: &Receiver<Flight>) {
        for Flight { request, landing } in queue {
            let result = self.fetch(&request);
            self.flights.lock().remove(&(request.ino, request.chunks.start(), request.data_xid));
            *landing.result.lock() = Some(result);
            landing.landed.notify_all();
        }
    }

    fn fetch(&self, request: &RecallRequest) -> Landed {
        let fetched = self.fetcher.fetch(request);
        let extent = fetched.map_err(|error| (error.kind(), with_causes(&error)))?;
        Ok(Arc::new(extent))
    }
}
