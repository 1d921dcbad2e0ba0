//! A worker pool for jobs that wait: as many threads as there are jobs, up to a limit, and few of
//! them when few are enough.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use super::queue::JobQueue;

/// Waiting takes a thread, but no more than its stack.
const STACK_BYTES: usize = 512 << 10;

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads. When it is dropped, all jobs are done first.
pub(super) struct Pool {
    queue: Arc<JobQueue<Job>>,
}

impl Pool {
    /// The first thread is started at once: without one no job would ever be done.
    pub(super) fn start(n_threads_max: usize) -> io::Result<Self> {
        let queue = Arc::new(JobQueue::new(n_threads_max.max(1)));
        queue.start(|| start_thread(&queue))?;
        Ok(Self { queue })
    }

    pub(super) fn submit(&self, job: Job) {
        self.queue.submit(job, || start_thread(&self.queue));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.finish();
    }
}

fn start_thread(queue: &Arc<JobQueue<Job>>) -> io::Result<()> {
    let queue = Arc::clone(queue);
    let thread = thread::Builder::new().stack_size(STACK_BYTES).name("kvfs-wait".into());
    let work = move || {
        queue.work(|job| {
            // The panic was reported when it happened, and the next job is none the worse for it.
            let _ = panic::catch_unwind(AssertUnwindSafe(job));
        });
    };
    thread.spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use parking_lot::Mutex;

    use super::*;

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
