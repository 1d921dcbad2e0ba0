//! The recaller: reads evicted data back, on threads of its own.
//!
//! Readers come from threads that answer the kernel, and must not be held up by a store longer than
//! their deadline. A reader joins the single flight of its extent (`single_flight.rs`) and waits;
//! the fetching is done by a few threads with a queue. Neighbours that miss the same extent at the
//! same time cause one read of the store.
//!
//! Every reader is answered: with the data, with the fetch's error, with `Away` once the
//! deadline has passed, or with `Failed` if the fetch panicked. A panic fails that one request: it
//! is caught around the fetch, and the thread goes on with the next. A request that is thrown away
//! with its queue abandons its flight, and its readers are told at once.
//!
//! The recaller holds no filesystem: what came is stored by the reader that asked for it, which
//! also checks that nothing changed meanwhile.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tier_persist::Fetcher;
use tier_types::{
    ChunkNo, ErrorKind, Ino, PortError, Recall, RecallRequest, RecalledExtent, Xid, to_u64,
    with_causes,
};

use crate::single_flight::{InFlight, Joined, Outcome, SingleFlight};
use crate::threads::{panic_text, start_thread};

/// How recalls are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecallerOptions {
    /// Threads that fetch; one at least is started.
    pub n_threads: usize,
    /// How long a reader waits.
    pub timeout: Duration,
}

impl Default for RecallerOptions {
    fn default() -> Self {
        Self { n_threads: 4, timeout: Duration::from_secs(30) }
    }
}

/// Fetches evicted data on threads of its own. Readers of one extent share one fetch.
pub struct Recaller {
    flights: SingleFlight<RecallKey, Answer>,
    /// Gone when the threads are to end.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    timeout: Duration,
}

/// What readers share a fetch by: the answer has at least the first chunk, and a reader that wants
/// more asks again for the rest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct RecallKey {
    ino: Ino,
    chunk: ChunkNo,
    data_xid: Xid,
}

/// What a fetch brought, for all that wait for it.
type Answer = Result<Arc<RecalledExtent>, SharedError>;

/// An error as text, because all readers get it.
#[derive(Clone, Debug)]
struct SharedError {
    kind: ErrorKind,
    message: String,
}

struct Job {
    request: RecallRequest,
    in_flight: InFlight<RecallKey, Answer>,
}

/// What the threads do with a request.
type Fetch = dyn Fn(&RecallRequest) -> Result<RecalledExtent, PortError> + Send + Sync;

impl std::fmt::Debug for Recaller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recaller").finish_non_exhaustive()
    }
}

impl Recaller {
    /// Starts the threads.
    pub fn start(fetcher: Fetcher, options: RecallerOptions) -> Result<Self, PortError> {
        let fetch = move |request: &RecallRequest| Ok(fetcher.fetch(request)?);
        Self::start_with(fetch, options)
    }

    fn start_with(
        fetch: impl Fn(&RecallRequest) -> Result<RecalledExtent, PortError> + Send + Sync + 'static,
        options: RecallerOptions,
    ) -> Result<Self, PortError> {
        let fetch: Arc<Fetch> = Arc::new(fetch);
        // Without a bound, because a full queue would hold a reader up beyond its deadline.
        let (jobs, queue) = unbounded();
        let flights = SingleFlight::new();
        let mut recaller =
            Self { flights, jobs: Some(jobs), threads: Vec::new(), timeout: options.timeout };
        for number in 0..options.n_threads.max(1) {
            let (fetch, queue) = (Arc::clone(&fetch), queue.clone());
            let work = move || work(fetch.as_ref(), &queue);
            // Should a later thread not start, dropping the recaller ends those that did.
            recaller.threads.push(start_thread(&format!("tier-recall-{number}"), work)?);
        }
        Ok(recaller)
    }

    /// Queues a job. One that no thread will take is dropped here, and abandons its flight.
    fn submit(&self, job: Job) {
        let ino = job.request.ino;
        // `jobs` is `None` only while the recaller is dropped, when no reader can borrow it.
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_err()
        {
            tracing::debug!(%ino, "no thread is left to take a recall");
        }
    }

    /// The answer to a request, from a fetch that is under way or a new one.
    fn answer(&self, request: &RecallRequest) -> Result<Arc<RecalledExtent>, SharedError> {
        let RecallRequest { ino, chunks, data_xid } = *request;
        // The reader's deadline, also when it joins a fetch that began long before.
        let deadline = Instant::now() + self.timeout;
        let Joined { slot, lead } =
            self.flights.join(&RecallKey { ino, chunk: chunks.start(), data_xid });
        // The key is taken by now and its lock let go of: readers that come from here on join,
        // whether the job is queued yet or not.
        if let Some(in_flight) = lead {
            self.submit(Job { request: *request, in_flight });
        }
        match slot.wait(deadline) {
            Some(Outcome::Settled(answer)) => answer,
            // Not a fetch that panicked, which settles its flight: the job was thrown away
            // unfetched.
            Some(Outcome::Abandoned) => {
                let message = "the threads for recalls have ended".into();
                Err(SharedError { kind: ErrorKind::Failed, message })
            }
            // The fetch goes on, and a reader that asks again joins it or finds its frame in the
            // cache.
            None => {
                let seconds = self.timeout.as_secs();
                let message =
                    format!("the data of inode {ino} did not come within {seconds} seconds");
                Err(SharedError { kind: ErrorKind::Away, message })
            }
        }
    }
}

impl Drop for Recaller {
    fn drop(&mut self) {
        // What is still queued is fetched for nothing: each reader borrows the recaller while it
        // waits, so that the readers of these jobs have given up.
        self.jobs = None;
        // The index and the keys are let go of before the program ends. A thread that itself
        // dropped the filesystem, and so this, cannot wait for itself.
        let here = thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != here) {
            if thread.join().is_err() {
                tracing::error!("a thread for recalls has panicked");
            }
        }
    }
}

impl Recall for Recaller {
    fn recall(&self, request: &RecallRequest) -> Result<RecalledExtent, PortError> {
        let RecallRequest { ino, chunks, data_xid } = *request;
        let start = Instant::now();
        let answer = self.answer(request);
        let elapsed = start.elapsed();
        match &answer {
            Ok(extent) => {
                let (came, bytes) = (extent.chunks(), to_u64(extent.bytes().len()));
                tracing::debug!(%ino, %chunks, %data_xid, %came, bytes, ?elapsed, "recalled");
            }
            Err(SharedError { kind, message }) => {
                tracing::debug!(%ino, %chunks, %data_xid, ?kind, message, ?elapsed, "not recalled");
            }
        }
        match answer {
            Ok(extent) => Ok(RecalledExtent::clone(&extent)),
            Err(SharedError { kind, message }) => Err(PortError::new(kind, message)),
        }
    }
}

/// Fetches one request after the other, until the queue is closed.
fn work(fetch: &Fetch, queue: &Receiver<Job>) {
    for Job { request, in_flight } in queue {
        // Readers whose deadline passed while the job was queued are gone: fetching for them would
        // only hold up those that still wait.
        let Some(in_flight) = in_flight.unless_abandoned() else {
            tracing::debug!(ino = %request.ino, chunks = %request.chunks, "no reader waits any more");
            continue;
        };
        // A panic gives the fetcher's locks back; at worst a frame is missing from its caches.
        let fetched = catch_unwind(AssertUnwindSafe(|| fetch(&request)));
        in_flight.settle(match fetched {
            Ok(Ok(extent)) => Ok(Arc::new(extent)),
            Ok(Err(error)) => Err(SharedError { kind: error.kind(), message: with_causes(&error) }),
            Err(panic) => Err(panic_error(&request, panic.as_ref())),
        });
    }
}

/// The error for the readers of a request whose fetch panicked.
fn panic_error(request: &RecallRequest, panic: &(dyn Any + Send)) -> SharedError {
    let text = panic_text(panic);
    tracing::error!(ino = %request.ino, "the fetch of a recall panicked: {text}");
    let message = format!("a bug: fetching the data of inode {} panicked: {text}", request.ino);
    SharedError { kind: ErrorKind::Failed, message }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;
