//! The kernel of the worker pool: a queue of jobs, and threads that come and go with them.
//!
//! It starts no threads itself, so that a model checker can run it: `submit` is given a way to
//! start one, and a thread runs [`work`](JobQueue::work) until it is not needed any more.
//!
//! Threads without a job are a stack. The one that rested last is woken first: what it used is
//! still at hand, and those below it rest undisturbed until their time is up and they end. One
//! always rests on, so that a queue never has jobs and no thread. A thread is woken by taking it
//! off the stack, so that two jobs never wake the same one; a woken thread that finds the queue
//! empty (a busy one was faster) rests again.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard};

/// A thread that was not needed for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Jobs of one kind and the threads that do them.
pub(super) struct JobQueue<J> {
    n_threads_max: usize,
    state: Mutex<State<J>>,
    /// A thread has ended.
    ended: Condvar,
}

struct State<J> {
    jobs: VecDeque<J>,
    /// Threads without a job, the one that rested last on top.
    idle: Vec<Arc<Condvar>>,
    n_threads: usize,
    is_ending: bool,
}

/// Whether a thread goes on after a rest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rested {
    Wanted,
    Unwanted,
}

impl<J> JobQueue<J> {
    pub(super) fn new(n_threads_max: usize) -> Self {
        assert!(n_threads_max > 0, "without threads no job would ever be done");
        let state =
            State { jobs: VecDeque::new(), idle: Vec::new(), n_threads: 0, is_ending: false };
        Self { n_threads_max, state: Mutex::new(state), ended: Condvar::new() }
    }

    /// Starts the first thread.
    pub(super) fn start(&self, start_thread: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock();
        // With the lock held: the new thread cannot look for a job, or end, before it is counted.
        start_thread()?;
        state.n_threads += 1;
        Ok(())
    }

    /// Adds a job. `start_thread` starts one more thread, if one is needed and allowed; if it
    /// cannot, the job waits for one that is there.
    pub(super) fn submit(&self, job: J, start_thread: impl FnOnce() -> io::Result<()>) {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        if let Some(thread) = state.idle.pop() {
            thread.notify_one();
        } else if state.n_threads < self.n_threads_max {
            match start_thread() {
                Ok(()) => state.n_threads += 1,
                Err(error) => {
                    tracing::warn!(%error, "cannot start one more thread for requests that wait");
                }
            }
        }
    }

    /// One thread: does jobs until it is not needed any more.
    pub(super) fn work(&self, run: impl Fn(J)) {
        while let Some(job) = self.next() {
            run(job);
        }
    }

    /// The next job; `None` if this thread is to end.
    fn next(&self) -> Option<J> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.is_ending || rest(&mut state) == Rested::Unwanted {
                assert!(state.n_threads > 0, "this thread is one of them");
                state.n_threads -= 1;
                self.ended.notify_all();
                return None;
            }
        }
    }

    /// Waits until all jobs are done and all threads have ended.
    pub(super) fn finish(&self) {
        let mut state = self.state.lock();
        state.is_ending = true;
        for thread in state.idle.drain(..) {
            thread.notify_one();
        }
        while state.n_threads > 0 {
            self.ended.wait(&mut state);
        }
        assert!(state.jobs.is_empty(), "a thread ends when there are no jobs");
    }

    #[cfg(test)]
    fn n_threads(&self) -> usize {
        self.state.lock().n_threads
    }

    /// Whether every thread rests.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.jobs.is_empty() && state.idle.len() == state.n_threads
    }
}

/// Waits for a job. Unwanted is a thread that waited for long and is not the last one to rest.
fn rest<J>(state: &mut MutexGuard<'_, State<J>>) -> Rested {
    let wake = Arc::new(Condvar::new());
    let is_alone = state.idle.is_empty();
    state.idle.push(Arc::clone(&wake));
    assert!(state.idle.len() <= state.n_threads, "only threads of the pool rest");
    let timed_out = if is_alone {
        wake.wait(state);
        false
    } else {
        wake.wait_for(state, IDLE_MAX).timed_out()
    };
    // A thread that was woken was taken off the stack.
    let n_idle = state.idle.len();
    state.idle.retain(|thread| !Arc::ptr_eq(thread, &wake));
    let was_woken = state.idle.len() == n_idle;
    // A job may come just as the time runs out. The thread was taken off the stack for it then, and
    // if it ended, the job would wait for another one.
    if timed_out && !was_woken && !state.idle.is_empty() {
        Rested::Unwanted
    } else {
        Rested::Wanted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    type Job = Box<dyn FnOnce() + Send>;

    fn submit(queue: &Arc<JobQueue<Job>>, job: impl FnOnce() + Send + 'static) {
        queue.submit(Box::new(job), || start(queue));
    }

    fn start(queue: &Arc<JobQueue<Job>>) -> io::Result<()> {
        let queue = Arc::clone(queue);
        thread::Builder::new().spawn(move || queue.work(|job| job())).map(drop)
    }

    #[test]
    fn there_are_no_more_threads_than_jobs_and_never_more_than_the_limit() {
        let queue = Arc::new(JobQueue::new(3));
        queue.start(|| start(&queue)).unwrap();
        let wait_for_rest = || {
            while !queue.is_idle() {
                thread::yield_now();
            }
        };
        wait_for_rest();
        for number in 0..100 {
            let (sender, receiver) = channel();
            submit(&queue, move || sender.send(number).unwrap());
            assert_eq!(receiver.recv().unwrap(), number);
            // The next job comes when this one's thread rests again.
            wait_for_rest();
        }
        assert_eq!(queue.n_threads(), 1);
        let (release, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (done, count) = channel();
        for _ in 0..10 {
            let (gate, done) = (Arc::clone(&gate), done.clone());
            submit(&queue, move || {
                let _ = gate.lock().recv();
                done.send(()).unwrap();
            });
        }
        assert_eq!(queue.n_threads(), 3);
        drop(release);
        queue.finish();
        assert_eq!(count.try_iter().count(), 10, "all were done before the end");
    }

    #[test]
    fn a_thread_that_cannot_be_started_leaves_the_job_to_another() {
        let queue = Arc::new(JobQueue::new(2));
        queue.start(|| start(&queue)).unwrap();
        let (sender, receiver) = channel();
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock();
        let waits = Arc::clone(&gate);
        submit(&queue, move || drop(waits.lock()));
        let job: Job = Box::new(move || sender.send(()).unwrap());
        queue.submit(job, || Err(io::Error::other("no threads")));
        drop(held);
        receiver.recv().unwrap();
        queue.finish();
    }

    #[cfg(feature = "shuttle")]
    mod shuttle_tests {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};

        use super::*;

        fn every_job_is_done_once_before_the_end() {
            let queue = Arc::new(JobQueue::new(2));
            let done: Arc<[AtomicUsize; 4]> = Arc::default();
            let start = || {
                let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
                shuttle::thread::spawn(move || {
                    queue.work(|job: usize| {
                        done[job].fetch_add(1, Ordering::Relaxed);
                    });
                });
                Ok(())
            };
            queue.start(start).unwrap();
            let other = {
                let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
                shuttle::thread::spawn(move || {
                    let start = || {
                        let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
                        shuttle::thread::spawn(move || {
                            queue.work(|job: usize| {
                                done[job].fetch_add(1, Ordering::Relaxed);
                            });
                        });
                        Ok(())
                    };
                    queue.submit(2, start);
                    queue.submit(3, start);
                })
            };
            queue.submit(0, start);
            queue.submit(1, start);
            other.join().unwrap();
            queue.finish();
            assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{done:?}");
            assert_eq!(queue.n_threads(), 0);
        }

        #[test]
        fn shuttle_every_job_is_done_once() {
            shuttle::check_random(every_job_is_done_once_before_the_end, 2000);
            shuttle::check_pct(every_job_is_done_once_before_the_end, 2000, 3);
        }
    }
}
