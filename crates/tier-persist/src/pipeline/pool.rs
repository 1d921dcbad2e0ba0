//! Worker threads that compress and seal.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, select_biased, unbounded};

use crate::PersistError;

/// What a worker keeps between jobs.
pub(crate) struct Worker {
    pub(crate) compressor: zstd::bulk::Compressor<'static>,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// Threads that run jobs. Sealing goes first: it is what frees memory.
pub(crate) struct WorkerPool {
    compress: Sender<Job>,
    seal: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl WorkerPool {
    pub(crate) fn new(n_workers: usize, level: i32) -> Result<Self, PersistError> {
        let failed = |operation| {
            move |source| PersistError::Io { operation, object: "compression".into(), source }
        };
        // The queues are bounded by the permits of those who send.
        let (compress, compress_jobs) = unbounded();
        let (seal, seal_jobs) = unbounded();
        let mut threads = Vec::new();
        for number in 0..n_workers.max(1) {
            let compressor = zstd::bulk::Compressor::new(level).map_err(failed("start"))?;
            let (compress_jobs, seal_jobs) = (compress_jobs.clone(), seal_jobs.clone());
            let thread = thread::Builder::new()
                .name(format!("tier-worker-{number}"))
                .spawn(move || work(Worker { compressor }, &compress_jobs, &seal_jobs));
            threads.push(thread.map_err(failed("start a thread for"))?);
        }
        Ok(Self { compress, seal, threads })
    }

    pub(crate) fn compress(&self, job: impl FnOnce(&mut Worker) + Send + 'static) {
        // Fails only when all workers are gone; whoever waits for the result then sees it.
        let _ = self.compress.send(Box::new(job));
    }

    /// A way to submit sealing jobs from another thread.
    pub(crate) fn sealer(&self) -> Sealer {
        Sealer(self.seal.clone())
    }

    pub(crate) fn n_workers(&self) -> usize {
        self.threads.len()
    }
}

/// Submits sealing jobs.
pub(crate) struct Sealer(Sender<Job>);

impl Sealer {
    pub(crate) fn seal(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.0.send(Box::new(move |_| job()));
    }
}

fn work(mut worker: Worker, compress: &Receiver<Job>, seal: &Receiver<Job>) {
    loop {
        let job = select_biased! {
            recv(seal) -> job => job,
            recv(compress) -> job => job,
        };
        match job {
            Ok(job) => {
                // Whoever waits for the result hears of a panic through what the job held.
                let _ = catch_unwind(AssertUnwindSafe(|| job(&mut worker)));
            }
            Err(_) => return,
        }
    }
}

impl std::fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerPool").field("n_workers", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        let (closed, _) = unbounded();
        self.compress = closed.clone();
        self.seal = closed;
        for thread in self.threads.drain(..) {
            // A worker that panicked was noticed by whoever waited for its result.
            let _ = thread.join();
        }
    }
}
