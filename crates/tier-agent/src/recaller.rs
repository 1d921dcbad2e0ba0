//! The recaller: reads evicted data back, on threads of its own.
//!
//! Readers come from threads that answer the kernel, and must not be held up by a store longer than
//! their deadline, nor when their own caller is gone. A reader joins the single flight of its
//! extent (`single_flight.rs`) and waits; the fetching is done by a few threads ([`worker`]) that
//! take from a [`queue`] with a side for readers and one for what is wanted in bulk. Readers that
//! miss something of the same frame at the same time cause one read of the store, and one that
//! reads in order finds the next frames there when it comes to them ([`streaks`]).
//!
//! Every reader is answered: with the data, with the fetch's error, with `Away` once the deadline
//! has passed, with `Cancelled` if it is not wanted any more, or with `Failed` if the fetch
//! panicked. A panic fails that one request: it is caught around the fetch, and the thread goes on
//! with the next. A request that is thrown away with its queue abandons its flight, and its readers
//! are told at once.
//!
//! The recaller holds no filesystem: what came is stored by the reader that asked for it, which
//! also checks that nothing changed meanwhile.

mod answer;
mod queue;
mod streaks;
mod worker;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tier_persist::Fetcher;
use tier_types::{
    Call, CallClass, ErrorKind, PortError, Recall, RecallHint, RecallRequest, RecalledExtent,
    to_u64,
};

use crate::single_flight::{Joined, Outcome, SingleFlight};
use crate::threads::start_thread;
use answer::{Answer, RecallKey, SharedError};
use queue::Queue;
use worker::{Job, RecallJob, Source, Worker};

/// How often a reader that waits for frozen data looks whether it is itself still wanted.
const CANCEL_INTERVAL: Duration = Duration::from_millis(200);

/// How recalls are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecallerOptions {
    /// Threads that fetch; one at least is started.
    pub n_threads: usize,
    /// How long a reader waits that says nothing of that. What is wanted in bulk waits behind all
    /// readers, and for as long as they keep it waiting.
    pub timeout: Duration,
    /// What becomes of a reader of frozen data.
    pub frozen: FrozenReads,
}

/// What becomes of a reader of data that is to be thawed first, which takes hours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FrozenReads {
    /// It is told at once, and reads again later.
    #[default]
    Refuse,
    /// It waits, until it is not wanted any more.
    Wait {
        /// How often it looks whether the data is there.
        interval: Duration,
    },
}

impl Default for RecallerOptions {
    fn default() -> Self {
        // Most of them wait for a store: for a reader in order, with what is read ahead for it, and
        // some others.
        Self { n_threads: 24, timeout: Duration::from_secs(30), frozen: FrozenReads::default() }
    }
}

/// Fetches evicted data on threads of its own. Readers of one frame share one fetch.
pub struct Recaller {
    flights: SingleFlight<RecallKey, Answer>,
    queue: Arc<Queue<Job>>,
    threads: Vec<JoinHandle<()>>,
    timeout: Duration,
    frozen: FrozenReads,
}

impl std::fmt::Debug for Recaller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recaller").finish_non_exhaustive()
    }
}

impl Recaller {
    /// Starts the threads.
    pub fn start(fetcher: Fetcher, options: RecallerOptions) -> Result<Self, PortError> {
        Self::start_with(fetcher, options)
    }

    fn start_with(source: impl Source, options: RecallerOptions) -> Result<Self, PortError> {
        let n_threads = options.n_threads.max(1);
        let queue = Arc::new(Queue::new(n_threads));
        let worker = Arc::new(Worker::new(source, Arc::clone(&queue)));
        let (flights, threads) = (SingleFlight::new(), Vec::new());
        let RecallerOptions { timeout, frozen, .. } = options;
        let mut recaller = Self { flights, queue, threads, timeout, frozen };
        for number in 0..n_threads {
            let worker = Arc::clone(&worker);
            // Should a later thread not start, dropping the recaller ends those that did.
            let thread = start_thread(&format!("tier-recall-{number}"), move || worker.run())?;
            recaller.threads.push(thread);
        }
        Ok(recaller)
    }

    /// The answer to a request, from a fetch that is under way or a new one.
    fn answer(
        &self,
        call: &Call<'_>,
        hint: RecallHint,
        request: &RecallRequest,
    ) -> Result<Arc<RecalledExtent>, SharedError> {
        // The reader's deadline, also when it joins a fetch that began long before.
        let began = Instant::now();
        let timeout = match call.class() {
            CallClass::Interactive => began.checked_add(self.timeout),
            CallClass::Bulk => None,
        };
        let key = RecallKey::of(request);
        let Joined { slot, lead } = self.flights.join(&key);
        let is_reader = call.class() == CallClass::Interactive;
        if is_reader {
            slot.hurry();
        }
        // The key is taken by now and its lock let go of: readers that come from here on join,
        // whether the job is queued yet or not. One that comes before it is queued is in a hurry by
        // then, and one that comes later finds it there.
        match lead {
            Some(in_flight) => {
                let job = RecallJob { request: *request, hint, in_flight };
                self.queue.push_where(Job::side, Job::Recall(job));
            }
            None if is_reader => self.queue.promote(|job| job.is_of(&key)),
            None => {}
        }
        let deadline = call.deadline().or(timeout);
        match slot.wait(deadline, &|| call.is_cancelled()) {
            Some(Outcome::Settled(answer)) => answer,
            // Not a fetch that panicked, which settles its flight: the job was thrown away
            // unfetched.
            Some(Outcome::Abandoned) => {
                let message = "the threads for recalls have ended".into();
                Err(SharedError { kind: ErrorKind::Failed, message })
            }
            // The fetch goes on if others wait for it.
            None if call.is_cancelled() => {
                let message = format!("the recall of inode {} is not wanted any more", request.ino);
                Err(SharedError { kind: ErrorKind::Cancelled, message })
            }
            // A reader that asks again joins the fetch, or finds its frame in the cache.
            None => {
                let (ino, seconds) = (request.ino, began.elapsed().as_secs());
                let message =
                    format!("the data of inode {ino} did not come within {seconds} seconds");
                Err(SharedError { kind: ErrorKind::Away, message })
            }
        }
    }
}

impl Drop for Recaller {
    fn drop(&mut self) {
        // What is still queued has no reader: each borrows the recaller while it waits.
        self.queue.close();
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
    fn recall_with(
        &self,
        call: &Call<'_>,
        hint: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        loop {
            match self.recall_once(call, hint, request) {
                Err(error) if self.awaits_thaw(call, error.kind()) => {}
                answer => return answer,
            }
        }
    }
}

impl Recaller {
    /// Waits a while for frozen data. Whether it is to be asked for again.
    fn awaits_thaw(&self, call: &Call<'_>, kind: ErrorKind) -> bool {
        let FrozenReads::Wait { interval } = self.frozen else { return false };
        // What is wanted in bulk is wanted later as well as now.
        if !matches!(kind, ErrorKind::Frozen { .. }) || call.class() == CallClass::Bulk {
            return false;
        }
        let end = Instant::now() + interval;
        while Instant::now() < end {
            if call.check(&"a recall").is_err() {
                return false;
            }
            thread::park_timeout(interval.min(CANCEL_INTERVAL));
        }
        true
    }

    fn recall_once(
        &self,
        call: &Call<'_>,
        hint: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        let RecallRequest { ino, chunks, data_xid } = *request;
        let start = Instant::now();
        let answer = self.answer(call, hint, request);
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

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;
