//! Threads that copy what one walk finds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Sender, bounded};

/// Jobs that wait for a thread.
const N_AHEAD: usize = 16;

/// The threads, as the walk sees them.
pub(super) struct Crew<'a, J> {
    jobs: Sender<J>,
    failed: &'a AtomicBool,
}

impl<J> Crew<'_, J> {
    /// An error if a thread met one: the walk need not go on.
    pub(super) fn check(&self) -> Result<()> {
        match self.failed.load(Ordering::Relaxed) {
            true => bail!("a thread that copies has failed"),
            false => Ok(()),
        }
    }

    /// Has a job done by one of them.
    pub(super) fn hand_on(&self, job: J) -> Result<()> {
        self.check()?;
        self.jobs.send(job).map_err(|_| anyhow!("the threads that copy have ended"))
    }
}

/// Walks on this thread, and has what it hands on done on others; each makes its own `worker`.
/// After an error in any of them nothing new is begun.
pub(super) fn with_crew<J: Send, W: FnMut(J) -> Result<()>, T>(
    n_threads: usize,
    worker: impl Fn() -> W + Sync,
    walk: impl FnOnce(&Crew<'_, J>) -> Result<T>,
) -> Result<T> {
    let failed = AtomicBool::new(false);
    let (jobs, queue) = bounded::<J>(N_AHEAD);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..n_threads.max(1) {
            let (queue, worker, failed) = (queue.clone(), &worker, &failed);
            let work = move || {
                let mut work = worker();
                queue.iter().try_for_each(|job| {
                    if failed.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    work(job).inspect_err(|_| failed.store(true, Ordering::Relaxed))
                })
            };
            let thread = thread::Builder::new().name("tier-copy".into());
            threads.push(thread.spawn_scoped(scope, work).context("cannot start a thread")?);
        }
        drop(queue);
        let crew = Crew { jobs, failed: &failed };
        let walked = walk(&crew);
        drop(crew);
        let mut copied = Ok(());
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")));
            copied = copied.and(ended);
        }
        // Where a copy failed, the walk ends because of it: the copy says why.
        copied.and(walked)
    })
}
