//! Deferred replies: requests that wait for evicted data or for room, and what happens if their
//! caller is killed meanwhile.
//!
//! A read of evicted data can take minutes. The threads that answer the kernel must not: there are
//! few, and requests that need no waiting come through them. So a request is first tried without
//! waiting; if it finds cold data, or no room, its reply is put aside ([`Deferred`]) and the work
//! goes to a pool of threads that may wait. The kernel can have as many requests under way as there
//! are threads in the system; a pool grows with them up to a limit, and what is beyond that waits
//! in its queue. There is a pool for each thing that is waited for ([`WaitsFor`]), so that what
//! waits for one never queues behind what waits for another.
//!
//! # Interrupts
//! A process that is killed while it waits must get away, or `kill -9` would have to wait for the
//! cloud. The kernel says so with a request of its own (`FUSE_INTERRUPT`), but the library (fuser
//! 0.18) answers the first one it sees with `ENOSYS`, and the kernel sends no other for as long as
//! the mount lives. So as long as requests wait, one thread looks ten times a second at the signals
//! that are pending for their callers, in `/proc/THREAD/status`, and answers `EINTR` for those that
//! are about to die. Signals that the caller blocks, ignores or catches do not count, nor do those
//! that only stop or wake it: an interrupted read of a file would surprise programs that were never
//! written for it. A caller in another PID namespace has the number 0 and cannot be looked at; it
//! waits to the end.
//!
//! # Which thread answers
//! Either the thread that works or the one that looks; [`Deferred`] lets only one of them have the
//! reply. The work hears of an interruption: a recall is not waited for any longer, and is dropped
//! if nothing else wants it. Whatever else is under way changes nothing of the file: just before it
//! would, it claims the reply, and gives up if that is gone. From the claim on the caller waits for
//! the answer, which is then a matter of one commit.
//!
//! # The end
//! Dropping [`Waiting`] stops the looking first and then waits for all jobs: a recall ends by its
//! own timeout at the latest, and what waits for room or for an archive that is away when its time
//! is up. A job that panics drops its reply, which answers the kernel with `EIO`.

use std::fs;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fuser::Errno;
use parking_lot::{Condvar, Mutex};

pub(super) use super::deferred::Reply;
pub(super) use crate::ops::WaitingCaller;

use super::deferred::{Deferred, Owed};
use super::pool::Pool;

/// How often the signals of callers that wait are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Programs that look for holes in a file while they write it are few.
const N_THREADS_FOR_PAGES: usize = 2;

macro_rules! replies {
    ($($reply:ty),*) => {$(
        impl Reply for $reply {
            fn interrupted(self) {
                self.error(Errno::EINTR);
            }
        }
    )*};
}

replies!(
    fuser::ReplyAttr,
    fuser::ReplyCreate,
    fuser::ReplyData,
    fuser::ReplyEmpty,
    fuser::ReplyEntry,
    fuser::ReplyLseek,
    fuser::ReplyWrite
);

/// What a request waits for.
#[derive(Clone, Copy)]
pub(super) enum WaitsFor {
    /// Evicted data that is read.
    Data,
    /// Evicted data that is changed, which may take room as well.
    ChangedData,
    /// Room. Reads, and changes that may make some, go on meanwhile.
    Room,
    /// That the kernel writes what it holds back, which may itself wait for any of the others.
    Pages,
}

/// The requests that wait.
pub(super) struct Waiting {
    data: WaitingQueue,
    changed_data: WaitingQueue,
    room: WaitingQueue,
    /// The answers of the others may go on to this one, which is therefore dropped after them.
    pages: Arc<WaitingQueue>,
    watch: Arc<Watch>,
    watching: Option<JoinHandle<()>>,
}

/// The requests that wait for one thing.
pub(super) struct WaitingQueue {
    /// There are never more jobs than requests that the kernel has under way.
    pool: Pool,
    watch: Arc<Watch>,
}

#[derive(Default)]
struct Watch {
    state: Mutex<WatchState>,
    changed: Condvar,
}

#[derive(Default)]
struct WatchState {
    callers: Vec<Caller>,
    has_ended: bool,
}

/// A thread that waits for an answer.
struct Caller {
    thread_id: u32,
    reply: Arc<dyn Interruptible>,
}

/// A deferred reply of any kind.
trait Interruptible: Send + Sync {
    fn interrupt(&self);
    fn is_settled(&self) -> bool;
}

impl<R: Reply> Interruptible for Deferred<R> {
    fn interrupt(&self) {
        self.interrupt();
    }

    fn is_settled(&self) -> bool {
        self.is_settled()
    }
}

impl Waiting {
    /// `n_threads_max` for each thing that is waited for.
    pub(super) fn start(n_threads_max: usize) -> io::Result<Self> {
        let watch = Arc::new(Watch::default());
        let seen = Arc::clone(&watch);
        let thread = thread::Builder::new().name("kvfs-signals".into());
        let watching = Some(thread.spawn(move || seen.run())?);
        let queue = |n_threads_max| -> io::Result<WaitingQueue> {
            Ok(WaitingQueue { pool: Pool::start(n_threads_max)?, watch: Arc::clone(&watch) })
        };
        Ok(Self {
            data: queue(n_threads_max)?,
            changed_data: queue(n_threads_max)?,
            room: queue(n_threads_max)?,
            pages: Arc::new(queue(N_THREADS_FOR_PAGES)?),
            watch,
            watching,
        })
    }

    /// The requests that wait until the kernel has written or dropped pages.
    pub(super) fn pages(&self) -> Arc<WaitingQueue> {
        Arc::clone(&self.pages)
    }

    fn queue(&self, what: WaitsFor) -> &WaitingQueue {
        match what {
            WaitsFor::Data => &self.data,
            WaitsFor::ChangedData => &self.changed_data,
            WaitsFor::Room => &self.room,
            WaitsFor::Pages => &self.pages,
        }
    }

    /// As [`WaitingQueue::submit`], for what a request waits for.
    pub(super) fn submit<R: Reply, T: 'static>(
        &self,
        what: WaitsFor,
        thread_id: u32,
        reply: R,
        work: impl FnOnce(&dyn WaitingCaller) -> T + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        self.queue(what).submit(thread_id, reply, work, answer);
    }
}

impl WaitingQueue {
    /// Has work done whose caller waits for it in any case.
    pub(super) fn submit_owed(&self, work: impl FnOnce() + Send + 'static) {
        self.pool.submit(Box::new(work));
    }

    /// Has `work` done, which may take long, and `answer` called with what came of it, unless the
    /// thread that waits is killed before. `work` is given the caller; once it has claimed the
    /// answer, it is waited for.
    pub(super) fn submit<R: Reply, T: 'static>(
        &self,
        thread_id: u32,
        reply: R,
        work: impl FnOnce(&dyn WaitingCaller) -> T + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        let deferred = Arc::new(Deferred::new(reply));
        self.watch.add(Caller { thread_id, reply: deferred.clone() });
        let owed = Owed(deferred);
        self.pool.submit(Box::new(move || {
            // The caller was killed while the job was in the queue: a recall for it would only keep
            // the thread from others.
            if owed.0.is_answered() {
                return;
            }
            let done = work(owed.0.as_ref());
            if let Some(reply) = owed.0.take() {
                answer(reply, done);
            }
        }));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.watch.state.lock().has_ended = true;
        self.watch.changed.notify_all();
        if let Some(thread) = self.watching.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Watch {
    /// Wakes the thread that looks only if it rests: otherwise it sees the caller at its next look.
    fn add(&self, caller: Caller) {
        let mut state = self.state.lock();
        state.callers.push(caller);
        if state.callers.len() == 1 {
            self.changed.notify_all();
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while !state.has_ended {
            if state.callers.is_empty() {
                self.changed.wait(&mut state);
                continue;
            }
            self.changed.wait_for(&mut state, LOOK_INTERVAL);
            state.callers.retain(|Caller { thread_id, reply }| {
                if !reply.is_settled() && is_killed(*thread_id) {
                    reply.interrupt();
                }
                !reply.is_settled()
            });
        }
    }
}

/// Whether a signal is pending for the thread that ends it.
fn is_killed(thread_id: u32) -> bool {
    // Zero is a caller in another PID namespace. One that is gone needs no answer, but its request
    // wants one.
    thread_id != 0
        && match fs::read_to_string(format!("/proc/{thread_id}/status")) {
            Ok(status) => fatal_signals(&status) != 0,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
}

/// The pending signals of a thread, a bit for each, that are neither blocked, ignored nor caught,
/// and that do more than stop or wake it (proc(5), signal(7)).
fn fatal_signals(status: &str) -> u64 {
    // A kernel that does not say what is pending never interrupts.
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
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
    use crate::fuse::deferred::testing::Said;

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
        assert_eq!(fatal_signals("no status at all"), 0);
    }

    #[test]
    fn the_dead_are_not_waited_for() {
        assert!(!is_killed(std::process::id()));
        assert!(!is_killed(0));
        assert!(is_killed(u32::MAX));
    }

    #[test]
    fn work_is_done_and_answered() {
        let waiting = Waiting::start(2).unwrap();
        let (answers, answered) = std::sync::mpsc::channel();
        for number in 0..10 {
            let answers = answers.clone();
            let work = move |caller: &dyn WaitingCaller| (number, caller.claim());
            waiting.submit(WaitsFor::Data, 0, Said::default(), work, move |_, done| {
                answers.send(done).unwrap();
            });
        }
        let mut done: Vec<_> = answered.iter().take(10).collect();
        done.sort_unstable();
        assert_eq!(done, (0..10).map(|number| (number, true)).collect::<Vec<_>>());
    }

    #[test]
    fn a_caller_that_is_gone_is_answered_while_the_work_goes_on() {
        let waiting = Waiting::start(1).unwrap();
        let said = Arc::default();
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let (claims, claimed) = std::sync::mpsc::channel();
        let work = move |caller: &dyn WaitingCaller| {
            gate.recv().unwrap();
            assert!(caller.is_cancelled());
            claims.send(caller.claim()).unwrap();
        };
        waiting.submit(WaitsFor::Data, u32::MAX, Said(Arc::clone(&said)), work, |_, ()| {
            panic!("it was answered already")
        });
        while said.lock().is_empty() {
            thread::yield_now();
        }
        assert_eq!(*said.lock(), ["interrupted"]);
        go.send(()).unwrap();
        assert!(!claimed.recv().unwrap(), "nothing may change any more");
    }
}
