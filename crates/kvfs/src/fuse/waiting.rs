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

use fuser::Errno;
use parking_lot::{Condvar, Mutex};

use super::pool::Pool;

/// How often the signals of those who wait are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

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

/// Those who wait.
pub(super) struct Waiting {
    /// There are never more jobs than requests that the kernel has under way.
    pool: Pool,
    watch: Arc<Watch>,
    watching: Option<JoinHandle<()>>,
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
    interrupt: Box<dyn Fn() + Send>,
    /// He has been answered, or will be whatever happens.
    is_settled: Box<dyn Fn() -> bool + Send>,
}

impl Waiting {
    pub(super) fn start(n_threads_max: usize) -> io::Result<Self> {
        let pool = Pool::start(n_threads_max)?;
        let watch = Arc::new(Watch::default());
        let seen = Arc::clone(&watch);
        let thread = thread::Builder::new().name("kvfs-signals".into());
        let watching = Some(thread.spawn(move || seen.run())?);
        Ok(Self { pool, watch, watching })
    }

    /// Has `work` done, which may take long, and `answer` called with what came of it, unless the
    /// thread that waits is killed before. `work` is given the question whether it is still wanted;
    /// once it has asked, it is waited for.
    pub(super) fn submit<R: Reply, T: 'static>(
        &self,
        thread_id: u32,
        reply: R,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        let place = Arc::new(Mutex::new(Place::Waiting(reply)));
        let (interrupted, seen) = (Arc::clone(&place), Arc::clone(&place));
        self.watch.add(Waiter {
            thread_id,
            interrupt: Box::new(move || interrupted.lock().interrupt()),
            is_settled: Box::new(move || !matches!(*seen.lock(), Place::Waiting(_))),
        });
        self.pool.submit(Box::new(move || {
            if matches!(*place.lock(), Place::Left) {
                return;
            }
            let done = work(&|| place.lock().claim());
            let reply = place.lock().take();
            if let Some(reply) = reply {
                answer(reply, done);
            }
        }));
    }
}

/// Where the answer goes of somebody who waits.
enum Place<R> {
    /// He can be interrupted.
    Waiting(R),
    /// What he wants is about to happen: he must hear of it.
    Claimed(R),
    /// He is gone, or answered.
    Left,
}

impl<R: Reply> Place<R> {
    fn take(&mut self) -> Option<R> {
        match std::mem::replace(self, Self::Left) {
            Self::Waiting(reply) | Self::Claimed(reply) => Some(reply),
            Self::Left => None,
        }
    }

    /// Whether he still waits; from now on he cannot be interrupted.
    fn claim(&mut self) -> bool {
        let reply = self.take();
        let waits = reply.is_some();
        *self = reply.map_or(Self::Left, Self::Claimed);
        waits
    }

    /// Answers him that he was interrupted, if he still can be.
    fn interrupt(&mut self) {
        if matches!(self, Self::Waiting(_))
            && let Some(reply) = self.take()
        {
            reply.fail(Errno::EINTR);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.watch.state.lock().ended = true;
        self.watch.changed.notify_all();
        if let Some(thread) = self.watching.take() {
            let _ = thread.join();
        }
    }
}

impl Watch {
    /// Wakes the thread that looks only if it rests: it forgets nobody before it has looked again.
    fn add(&self, waiter: Waiter) {
        let mut state = self.state.lock();
        state.waiters.push(waiter);
        if state.waiters.len() == 1 {
            self.changed.notify_all();
        }
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
                if !(waiter.is_settled)() && is_killed(waiter.thread_id) {
                    (waiter.interrupt)();
                }
                !(waiter.is_settled)()
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

    struct Answers(Arc<Mutex<Vec<&'static str>>>);

    impl Reply for Answers {
        fn fail(self, _: Errno) {
            self.0.lock().push("interrupted");
        }
    }

    #[test]
    fn whoever_is_interrupted_gets_nothing_done_and_whoever_gets_it_done_hears_of_it() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut place = Place::Waiting(Answers(Arc::clone(&said)));
        place.interrupt();
        assert_eq!(*said.lock(), ["interrupted"]);
        assert!(!place.claim(), "nothing may change any more");
        assert!(place.take().is_none());

        said.lock().clear();
        let mut place = Place::Waiting(Answers(Arc::clone(&said)));
        assert!(place.claim());
        place.interrupt();
        assert!(said.lock().is_empty(), "too late");
        assert!(place.take().is_some());
    }

    #[test]
    fn work_is_done_and_answered() {
        let waiting = Waiting::start(2).unwrap();
        let (answers, answered) = std::sync::mpsc::channel();
        for number in 0..10 {
            let answers = answers.clone();
            let reply = Answers(Arc::default());
            let work = move |is_wanted: &dyn Fn() -> bool| (number, is_wanted());
            waiting.submit(0, reply, work, move |_, done| answers.send(done).unwrap());
        }
        let mut done: Vec<_> = answered.iter().take(10).collect();
        done.sort_unstable();
        assert_eq!(done, (0..10).map(|number| (number, true)).collect::<Vec<_>>());
    }
}
