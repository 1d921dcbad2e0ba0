//! A pool of worker threads for one walk of a tree.
//!
//! The calling thread walks and submits jobs; the workers do them, each with a state of its own,
//! such as a buffer. The pool lives as long as [`run`]: when that returns, every thread has ended.
//!
//! **Bound.** At most [`N_AHEAD`] jobs wait for a worker, then [`Submitter::submit`] waits: a walk,
//! which is faster than copying, must not pile up the names of a large tree in memory.
//!
//! **Errors.** The first error of the walk or of any worker, or its panic, is kept, and is what
//! `run` returns. From then on no job is begun: the jobs that wait are dropped, and `submit` and
//! [`Submitter::check`] fail, so that the walk ends soon. The jobs that are under way end first: no
//! job is cut off half way, but one that waits, for room for instance, sees the failure.
//!
//! **Order.** With several workers there is none. With one, jobs are done on the walking thread
//! where they are submitted, so that two runs over one tree make the same inodes in the same order.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Error, Result, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

/// Jobs that wait for a worker.
const N_AHEAD: usize = 16;

/// Walks on this thread, and has the jobs that the walk submits done by workers.
///
/// Each worker makes its own `state`, and does its jobs by `work`. Returns what `walk` does, when
/// all jobs are done. Whether one of them failed, `failure` says meanwhile: what waits for long has
/// a reason to end then.
pub(crate) fn run<J: Send, S, T>(
    n_threads: NonZeroUsize,
    failure: &Failure,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, J) -> Result<()> + Sync,
    walk: impl FnOnce(&mut Submitter<'_, J>) -> Result<T>,
) -> Result<T> {
    if n_threads == NonZeroUsize::MIN {
        let mut state = state();
        return walk(&mut Submitter::Inline(&mut |job| work(&mut state, job)));
    }
    let shared = Shared { failure, n_pending: AtomicU64::new(0) };
    let walked: Result<Option<T>> = thread::scope(|scope| {
        // Bounded, so that a walk that is faster than the copying does not gather the names of the
        // whole tree in memory.
        let (jobs, queue) = bounded::<J>(N_AHEAD);
        let mut threads = Vec::new();
        for _ in 0..n_threads.get() {
            let (queue, state, work, shared) = (queue.clone(), &state, &work, &shared);
            let worker = move || {
                let mut state = state();
                shared.do_jobs(&queue, |job| work(&mut state, job));
            };
            let thread = thread::Builder::new().name("tier-copy".into());
            // A thread that does not start ends this closure, and with the sender the threads that
            // did.
            threads.push(thread.spawn_scoped(scope, worker).context("cannot start a thread")?);
        }
        // Without a worker left there is nothing to wait for: a submission fails then.
        drop(queue);
        let mut submitter = Submitter::Threads { jobs, shared: &shared };
        let walked = {
            let _guard = FailOnPanic(failure);
            walk(&mut submitter)
        };
        // The end of the queue is what ends the workers. A consequence of their error is not kept.
        drop(submitter);
        let walked = walked.map_err(|error| failure.keep(error)).ok();
        for thread in threads {
            // A panic is kept as the failure.
            drop(thread.join());
        }
        Ok(walked)
    });
    if let Some(error) = failure.take() {
        return Err(error);
    }
    let walked = walked?;
    assert_eq!(shared.n_pending.into_inner(), 0, "without a failure, each job was done");
    walked.context("the walk has failed")
}

/// The first error of a walk or its workers, or a panic of one.
#[derive(Default)]
pub(crate) struct Failure {
    has_failed: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Failure {
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    fn keep(&self, error: Error) {
        let mut first = self.first.lock();
        // Later ones may be consequences of the first.
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            *first = Some(error);
        }
    }

    fn take(&self) -> Option<Error> {
        self.first.lock().take()
    }
}

/// The workers, as the walk sees them.
pub(crate) enum Submitter<'a, J> {
    /// Jobs are done where they are submitted.
    Inline(&'a mut dyn FnMut(J) -> Result<()>),
    Threads {
        jobs: Sender<J>,
        shared: &'a Shared<'a>,
    },
}

impl<J> Submitter<'_, J> {
    /// Has a job done. Waits while too many others wait. An error says that it will not be done.
    pub(crate) fn submit(&mut self, job: J) -> Result<()> {
        self.check()?;
        match self {
            Self::Inline(work) => work(job),
            Self::Threads { jobs, shared } => {
                // Counted before it is sent, so that the count never falls below what is done.
                shared.n_pending.fetch_add(1, Ordering::Relaxed);
                jobs.send(job).map_err(|_| anyhow!("the worker threads have ended"))
            }
        }
    }

    /// An error if a worker has failed: then the walk need not go on.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Threads { shared, .. } if shared.failure.has_failed() => {
                bail!("a worker has failed")
            }
            Self::Threads { .. } | Self::Inline(_) => Ok(()),
        }
    }
}

/// What the workers have in common.
pub(crate) struct Shared<'a> {
    failure: &'a Failure,
    /// Jobs that were submitted and are not done.
    n_pending: AtomicU64,
}

impl Shared<'_> {
    /// Does the jobs of a queue to its end, or none after a failure.
    fn do_jobs<J>(&self, queue: &Receiver<J>, mut work: impl FnMut(J) -> Result<()>) {
        let _guard = FailOnPanic(self.failure);
        for job in queue {
            // The queue is emptied all the same, so that a walk that waits goes on to its end.
            if !self.failure.has_failed() {
                work(job).unwrap_or_else(|error| self.failure.keep(error));
            }
            // Dropped jobs count as done, so that the count says nothing about success.
            self.n_pending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Makes a failure of the panic that drops it: of a worker, which has no other way to tell, or of
/// the walk, for whose end the jobs that wait must not wait.
struct FailOnPanic<'a>(&'a Failure);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.keep(anyhow!("a thread panicked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn threads(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    fn submit_all(jobs: &mut Submitter<'_, usize>, n: usize) -> Result<()> {
        (0..n).try_for_each(|job| jobs.submit(job))
    }

    #[test]
    fn one_worker_does_jobs_in_their_order_and_at_once() {
        let done = Mutex::new(Vec::new());
        let work = |n_before: &mut usize, job| {
            done.lock().push((*n_before, job));
            *n_before += 1;
            Ok(())
        };
        let walk = |jobs: &mut Submitter<'_, usize>| {
            for job in 0..100 {
                jobs.submit(job)?;
                assert_eq!(done.lock().len(), job + 1);
            }
            Ok("walked")
        };
        assert_eq!(run(threads(1), &Failure::default(), || 0, work, walk).unwrap(), "walked");
        assert!(done.into_inner().into_iter().eq((0..100).map(|job| (job, job))));
    }

    #[test]
    fn several_workers_do_each_job_once_with_a_state_for_each_worker() {
        let (n_states, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let state = || n_states.fetch_add(1, Ordering::Relaxed);
        let work = |_: &mut usize, job| {
            done.lock().push(job);
            Ok(())
        };
        run(threads(4), &Failure::default(), state, work, |jobs| submit_all(jobs, 1000)).unwrap();
        let mut done = done.into_inner();
        done.sort_unstable();
        assert!(done.into_iter().eq(0..1000));
        assert_eq!(n_states.into_inner(), 4);
    }

    #[test]
    fn an_error_ends_the_walk_and_is_what_is_said() {
        for n in [1, 3] {
            let work = |(): &mut (), job| match job {
                10 => bail!("job 10 went wrong"),
                _ => Ok(()),
            };
            let n_submitted = AtomicUsize::new(0);
            let walk = |jobs: &mut Submitter<'_, usize>| -> Result<()> {
                for job in 0.. {
                    jobs.submit(job)?;
                    n_submitted.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            };
            let error = run(threads(n), &Failure::default(), || (), work, walk).unwrap_err();
            assert_eq!(error.to_string(), "job 10 went wrong", "{n} threads");
            assert!(n_submitted.into_inner() >= 10);
        }
    }

    #[test]
    fn an_error_of_the_walk_ends_the_job_that_waits_and_is_what_is_said() {
        let (failure, n_ended) = (Failure::default(), AtomicUsize::new(0));
        let (begin, begun) = bounded(1);
        let work = |(): &mut (), _| {
            begin.send(()).unwrap();
            while !failure.has_failed() {
                thread::yield_now();
            }
            n_ended.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let walk = |jobs: &mut Submitter<'_, usize>| -> Result<()> {
            jobs.submit(0)?;
            begun.recv().unwrap();
            bail!("the walk went wrong")
        };
        let error = run(threads(3), &failure, || (), work, walk).unwrap_err();
        assert_eq!(error.to_string(), "the walk went wrong");
        assert_eq!(n_ended.into_inner(), 1, "what is under way ends first");
    }

    #[test]
    fn one_worker_has_done_all_that_was_submitted_before_the_walk_failed() {
        let n_done = AtomicUsize::new(0);
        let work = |(): &mut (), _| {
            n_done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let walk = |jobs: &mut Submitter<'_, usize>| -> Result<()> {
            submit_all(jobs, 10)?;
            bail!("the walk went wrong")
        };
        let error = run(threads(1), &Failure::default(), || (), work, walk).unwrap_err();
        assert_eq!(error.to_string(), "the walk went wrong");
        assert_eq!(n_done.into_inner(), 10);
    }

    #[test]
    fn a_panic_of_a_worker_ends_the_walk_with_an_error() {
        let work = |(): &mut (), job| {
            assert_ne!(job, 10, "a panic that this test wants");
            Ok(())
        };
        let walk = |jobs: &mut Submitter<'_, usize>| -> Result<()> {
            (0..).try_for_each(|job| jobs.submit(job))
        };
        let error = run(threads(3), &Failure::default(), || (), work, walk).unwrap_err();
        assert_eq!(error.to_string(), "a thread panicked");
    }
}
