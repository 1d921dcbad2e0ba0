//! Threads for jobs that wait: as many as there are jobs, up to a limit, and few of them when few
//! are enough.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Waiting takes a thread, but no more than its stack.
const STACK_BYTES: usize = 512 << 10;
/// A thread that nobody needed for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads. When it is dropped, all jobs are done first.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    n_threads_max: usize,
    state: Mutex<State>,
    /// A thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads without a job. The last one is the first to be woken: what it used is still at hand,
    /// and those below it come to an end.
    idle: Vec<Arc<Condvar>>,
    n_threads: usize,
    to_end: bool,
}

impl Pool {
    /// The first thread is started at once: without one no job would ever be done.
    pub(super) fn start(n_threads_max: usize) -> io::Result<Self> {
        let shared = Shared {
            n_threads_max: n_threads_max.max(1),
            state: Mutex::default(),
            ended: Condvar::new(),
        };
        let pool = Self { shared: Arc::new(shared) };
        pool.start_thread(&mut pool.shared.state.lock())?;
        Ok(pool)
    }

    pub(super) fn submit(&self, job: Job) {
        let mut state = self.shared.state.lock();
        state.jobs.push_back(job);
        if let Some(thread) = state.idle.pop() {
            thread.notify_one();
        } else if state.n_threads < self.shared.n_threads_max
            && let Err(error) = self.start_thread(&mut state)
        {
            // Those that are there do it later.
            tracing::warn!(%error, "cannot start one more thread for requests that wait");
        }
    }

    fn start_thread(&self, state: &mut State) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().stack_size(STACK_BYTES).name("kvfs-wait".into());
        thread.spawn(move || work(&shared))?;
        state.n_threads += 1;
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.to_end = true;
        for thread in state.idle.drain(..) {
            thread.notify_one();
        }
        while state.n_threads > 0 {
            self.shared.ended.wait(&mut state);
        }
    }
}

/// One thread.
fn work(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            MutexGuard::unlocked(&mut state, || {
                // Who panics has said so, and the next job is none the worse for it.
                let _ = panic::catch_unwind(AssertUnwindSafe(job));
            });
        } else if state.to_end || !rest(&mut state) {
            state.n_threads -= 1;
            shared.ended.notify_all();
            return;
        }
    }
}

/// Waits for a job. False if there was none for long, and another thread waits for one.
fn rest(state: &mut MutexGuard<'_, State>) -> bool {
    let wake = Arc::new(Condvar::new());
    let is_alone = state.idle.is_empty();
    state.idle.push(Arc::clone(&wake));
    let timed_out = if is_alone {
        wake.wait(state);
        false
    } else {
        wake.wait_for(state, IDLE_MAX).timed_out()
    };
    // Whoever wakes a thread takes it off the list.
    let n_idle = state.idle.len();
    state.idle.retain(|thread| !Arc::ptr_eq(thread, &wake));
    let unwanted = state.idle.len() < n_idle;
    !(timed_out && unwanted && !state.idle.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn there_are_no_more_threads_than_jobs_and_never_more_than_the_limit() {
        let pool = Pool::start(3).unwrap();
        let n_threads = || pool.shared.state.lock().n_threads;
        let all_rest = || {
            let state = pool.shared.state.lock();
            state.idle.len() == state.n_threads
        };
        let wait_for_rest = || {
            while !all_rest() {
                thread::yield_now();
            }
        };
        wait_for_rest();
        for number in 0..100 {
            let (sender, receiver) = channel();
            pool.submit(Box::new(move || sender.send(number).unwrap()));
            assert_eq!(receiver.recv().unwrap(), number);
            // The next job comes when this one's thread rests again.
            wait_for_rest();
        }
        assert_eq!(n_threads(), 1);
        let (release, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (done, count) = channel();
        for _ in 0..10 {
            let (gate, done) = (Arc::clone(&gate), done.clone());
            pool.submit(Box::new(move || {
                let _ = gate.lock().recv();
                done.send(()).unwrap();
            }));
        }
        assert_eq!(n_threads(), 3);
        drop(release);
        drop(pool);
        assert_eq!(count.try_iter().count(), 10, "all were done before the end");
    }

    #[test]
    fn a_job_that_panics_keeps_no_other_from_being_done() {
        let pool = Pool::start(1).unwrap();
        let (sender, receiver) = channel();
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock();
        let waits = Arc::clone(&gate);
        pool.submit(Box::new(move || {
            drop(waits.lock());
            panic!("on purpose");
        }));
        pool.submit(Box::new(move || sender.send(()).unwrap()));
        drop(held);
        receiver.recv().unwrap();
    }
}
