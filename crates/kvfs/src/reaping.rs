//! The state of the reaper: where its rounds through the tables are, and the signal that wakes its
//! thread.
//!
//! The tables that it works off are queues: rows are added anywhere, and deleted where they are
//! done. A round that began at the start of a table each time would go over everything that was
//! deleted since the last compaction; so each table has a place from which the next step goes on,
//! and which comes round. The places are in memory only: after a restart each round starts anew.
//!
//! Steps take turns, whichever thread makes them: a step that has begun ends before the next one
//! looks at what is left.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tier_types::Ino;

/// Orphans that are remembered. With more, the reaper goes through their table.
const N_ORPHANS_MAX: usize = 1 << 20;

/// What the reaper remembers between steps.
#[derive(Debug, Default)]
pub(crate) struct Reaping {
    rounds: Mutex<Rounds>,
    orphans: Mutex<Orphans>,
    signal: Mutex<Signal>,
    woken: Condvar,
}

/// Where the rounds through the tables are: the last inode that was looked at.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) dying: Ino,
    pub(crate) cut: Ino,
    pub(crate) orphans: Ino,
    /// All orphans that were there when the filesystem was opened were looked at: from then on the
    /// last reference of each tells of it.
    pub(crate) orphans_are_done: bool,
}

/// Orphans whose last reference went.
#[derive(Debug, Default)]
struct Orphans {
    queue: VecDeque<Ino>,
    /// There were too many to remember.
    are_lost: bool,
}

#[derive(Debug, Default)]
struct Signal {
    is_wanted: bool,
    is_stopped: bool,
}

impl Reaping {
    /// The turn of one step.
    pub(crate) fn turn(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock()
    }

    /// These may be orphans to which nothing refers any more.
    pub(crate) fn add_orphans(&self, inodes: impl IntoIterator<Item = Ino>) {
        {
            let mut orphans = self.orphans.lock();
            orphans.queue.extend(inodes);
            if orphans.queue.len() > N_ORPHANS_MAX {
                *orphans = Orphans { are_lost: true, ..Orphans::default() };
            }
        }
        self.wake();
    }

    /// The first of them, so many at most. Of those that were too many to remember a new round
    /// through their table begins.
    pub(crate) fn next_orphans(&self, rounds: &mut Rounds, n_max: usize) -> Vec<Ino> {
        let mut orphans = self.orphans.lock();
        if mem::take(&mut orphans.are_lost) {
            rounds.orphans = Ino::default();
            rounds.orphans_are_done = false;
        }
        let n = orphans.queue.len().min(n_max);
        orphans.queue.drain(..n).collect()
    }

    /// They could not be deleted.
    pub(crate) fn put_back_orphans(&self, inodes: &[Ino]) {
        self.orphans.lock().queue.extend(inodes);
    }

    /// Whether there are any.
    pub(crate) fn has_orphans(&self) -> bool {
        let orphans = self.orphans.lock();
        orphans.are_lost || !orphans.queue.is_empty()
    }

    /// The thread begins, and looks for what an earlier opening left.
    pub(crate) fn start(&self) {
        *self.signal.lock() = Signal { is_wanted: true, is_stopped: false };
    }

    /// There is something to do.
    pub(crate) fn wake(&self) {
        let mut signal = self.signal.lock();
        // A thread that has not yet looked at the last signal needs no second one.
        if !mem::replace(&mut signal.is_wanted, true) {
            self.woken.notify_all();
        }
    }

    /// The thread is to end.
    pub(crate) fn stop(&self) {
        self.signal.lock().is_stopped = true;
        self.woken.notify_all();
    }

    /// Waits until there is something to do, at most so long. Whether the thread goes on.
    pub(crate) fn wait(&self, at_most: Option<Duration>) -> bool {
        let mut signal = self.signal.lock();
        let mut is_time = false;
        while !signal.is_wanted && !signal.is_stopped && !is_time {
            match at_most {
                Some(at_most) => is_time = self.woken.wait_for(&mut signal, at_most).timed_out(),
                None => self.woken.wait(&mut signal),
            }
        }
        // Before the work and not after it, so that a signal that comes meanwhile is not lost.
        signal.is_wanted = false;
        !signal.is_stopped
    }

    /// Waits a while between two steps. Whether the thread goes on.
    pub(crate) fn pause(&self, pause: Duration) -> bool {
        let mut signal = self.signal.lock();
        if !pause.is_zero() {
            let goes_on = |signal: &mut Signal| !signal.is_stopped;
            // Only a stop ends the pause early: the work of a signal is found by the next step
            // anyway.
            let _ = self.woken.wait_while_for(&mut signal, goes_on, pause);
        }
        !signal.is_stopped
    }
}
