//! Requests that wait for evicted data. They do so on threads of their own, so that those that
//! answer the kernel stay free, and whoever is killed while he waits gets away.
//!
//! The kernel asks for the latter with a request of its own, which the library (fuser 0.18) refuses
//! for all times when it sees the first. So as long as somebody waits, one thread looks at the
//! signals that are pending for him.

use std::fs;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use fuser::Errno;
use parking_lot::{Condvar, Mutex};

/// How often the signals of those who wait are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Waiting takes a thread, but no more than its stack.
const STACK_BYTES: usize = 512 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// A way to answer the kernel, with an error if need be.
pub(super) trait Reply: Send + 'static {
    fn fail(self, errno: Errno);
}

macro_rules! replies {
    ($($reply:ty),*) => {$(
        impl Reply for $reply {
            fn fail(self, errno: Errno) {
                self.error(errno);
            }
        }
    )*};
}

replies!(
    fuser::ReplyAttr,
    fuser::ReplyData,
    fuser::ReplyEmpty,
    fuser::ReplyLseek,
    fuser::ReplyWrite
);

/// The threads.
pub(super) struct Waiting {
    /// There are never more jobs than processes that wait for an answer. Gone when the threads are
    /// to end.
    jobs: Option<Sender<Job>>,
    watch: Arc<Watch>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Watch {
    state: Mutex<WatchState>,
    changed: Condvar,
}

#[derive(Default)]
struct WatchState {
    waiters: Vec<Waiter>,
    ended: bool,
}

/// Somebody who waits.
struct Waiter {
    thread_id: u32,
    /// Answers him that he was interrupted; false if he has been answered already.
    interrupt: Box<dyn Fn() -> bool + Send>,
    is_answered: Box<dyn Fn() -> bool + Send>,
}

impl Waiting {
    pub(super) fn start(n_threads: usize) -> io::Result<Self> {
        let (jobs, queue) = unbounded::<Job>();
        let watch = Arc::new(Watch::default());
        let mut threads = Vec::new();
        for number in 0..n_threads.max(1) {
            let queue: Receiver<Job> = queue.clone();
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread.name(format!("kvfs-wait-{number}"));
            threads.push(thread.spawn(move || queue.iter().for_each(|job| job()))?);
        }
        let seen = Arc::clone(&watch);
        let thread = thread::Builder::new().stack_size(STACK_BYTES).name("kvfs-signals".into());
        threads.push(thread.spawn(move || seen.run())?);
        Ok(Self { jobs: Some(jobs), watch, threads })
    }

    /// Has `work` done, which may take long, and `answer` called with what came of it, unless the
    /// thread that waits is killed before.
    pub(super) fn submit<R: Reply, T: 'static>(
        &self,
        thread_id: u32,
        reply: R,
        work: impl FnOnce() -> T + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        let reply = Arc::new(Mutex::new(Some(reply)));
        let (interrupted, seen) = (Arc::clone(&reply), Arc::clone(&reply));
        self.watch.add(Waiter {
            thread_id,
            interrupt: Box::new(move || {
                let reply = interrupted.lock().take();
                reply.map(|reply| reply.fail(Errno::EINTR)).is_some()
            }),
            is_answered: Box::new(move || seen.lock().is_none()),
        });
        let job = Box::new(move || {
            let done = work();
            let reply = reply.lock().take();
            if let Some(reply) = reply {
                answer(reply, done);
            }
        });
        // The threads end only with this value.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.jobs = None;
        self.watch.state.lock().ended = true;
        self.watch.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Watch {
    fn add(&self, waiter: Waiter) {
        self.state.lock().waiters.push(waiter);
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while !state.ended {
            if state.waiters.is_empty() {
                self.changed.wait(&mut state);
                continue;
            }
            self.changed.wait_for(&mut state, LOOK_INTERVAL);
            state.waiters.retain(|waiter| {
                let killed = || is_killed(waiter.thread_id) && (waiter.interrupt)();
                !(waiter.is_answered)() && !killed()
            });
        }
    }
}

/// Whether a signal is pending for the thread that ends it.
fn is_killed(thread_id: u32) -> bool {
    // Zero is somebody whom we cannot see. Who is gone needs no answer, but a request wants one.
    thread_id != 0
        && match fs::read_to_string(format!("/proc/{thread_id}/status")) {
            Ok(status) => fatal_signals(&status) != 0,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
}

/// The pending signals of a thread, a bit for each, that are neither blocked, ignored nor caught,
/// and that do more than stop or wake it (proc(5), signal(7)).
fn fatal_signals(status: &str) -> u64 {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap_or(0)
    };
    let bit = |signal: u32| 1_u64 << (signal - 1);
    // SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH.
    let harmless = [17, 18, 19, 20, 21, 22, 23, 28].map(bit).iter().sum::<u64>();
    let pending = mask("SigPnd") | mask("ShdPnd");
    pending & !(mask("SigBlk") | mask("SigIgn") | mask("SigCgt") | harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signals_that_end_a_thread_count() {
        let status = |pending: &str, shared: &str, caught: &str| {
            fatal_signals(&format!(
                "Name:\tcat\nSigPnd:\t{pending}\nShdPnd:\t{shared}\nSigBlk:\t0000000000000000\n\
                 SigIgn:\t0000000000000000\nSigCgt:\t{caught}\n"
            ))
        };
        assert_eq!(status("0", "0", "0"), 0);
        assert_eq!(status("0000000000000100", "0", "0"), 1 << 8, "killed");
        assert_eq!(status("0", "0000000000000002", "0"), 1 << 1, "SIGINT");
        assert_eq!(status("0", "0000000000000002", "0000000000000002"), 0, "caught");
        assert_eq!(status("0", "0000000000010000", "0"), 0, "SIGCHLD");
    }

    #[test]
    fn the_dead_are_not_waited_for() {
        assert!(!is_killed(std::process::id()));
        assert!(!is_killed(0));
        assert!(is_killed(u32::MAX));
    }
}
