//! The queue of the recall threads: what readers wait for, what is read ahead for them, and what is
//! brought back in bulk.
//!
//! A thread takes what a reader waits for if there is any, else a frame that is read ahead, else
//! what is wanted in bulk; and of the last two there are never so many under way that no thread is
//! left for a reader that comes. Readers are served in turn, but under a backlog the newest one
//! goes first: the oldest ones have waited so long that most of them will be gone before their
//! turn.
//!
//! A reader that joins a request that is wanted in bulk, and not taken yet, takes it over to its
//! own side.

use std::collections::VecDeque;

use crate::sync::{Condvar, Mutex};

/// Requests of readers for each thread, from which on there is a backlog.
const N_BACKLOG_OF_THREAD: usize = 8;

/// Frames that wait to be read ahead: a reader that has so many of them before it does not miss
/// those that were wanted first.
const N_AHEAD_MAX: usize = 64;

/// Which side of the queue a job waits on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// A reader waits for it.
    Reader,
    /// A reader will ask for it.
    Ahead,
    /// None of both.
    Bulk,
}

/// Jobs that wait for a thread.
pub(super) struct Queue<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
    n_threads: usize,
}

struct State<J> {
    readers: VecDeque<J>,
    ahead: VecDeque<J>,
    bulk: VecDeque<J>,
    /// Jobs under way for which no reader waits.
    n_behind: usize,
    is_closed: bool,
}

impl<J> State<J> {
    fn side(&mut self, side: Side) -> &mut VecDeque<J> {
        match side {
            Side::Reader => &mut self.readers,
            Side::Ahead => &mut self.ahead,
            Side::Bulk => &mut self.bulk,
        }
    }

    /// The next job, with whether it is one for which no reader waits.
    fn take(&mut self, n_threads: usize) -> Option<(J, bool)> {
        let has_backlog = self.readers.len() > n_threads * N_BACKLOG_OF_THREAD;
        let next = if has_backlog { self.readers.pop_back() } else { self.readers.pop_front() };
        if let Some(job) = next {
            return Some((job, false));
        }
        // One thread is left for a reader, if there is another.
        if self.n_behind >= n_threads.saturating_sub(1).max(1) {
            return None;
        }
        let job = self.ahead.pop_front().or_else(|| self.bulk.pop_front())?;
        self.n_behind += 1;
        Some((job, true))
    }
}

/// A job that a thread has taken.
pub(super) struct Taken<'a, J> {
    pub(super) job: J,
    pub(super) under_way: UnderWay<'a, J>,
}

/// A job counts as under way until this is dropped.
pub(super) struct UnderWay<'a, J> {
    /// The queue that is told when it ends, if no reader waits for it.
    behind: Option<&'a Queue<J>>,
}

impl<J> Drop for UnderWay<'_, J> {
    fn drop(&mut self) {
        if let Some(queue) = self.behind {
            let mut state = queue.state.lock();
            assert!(state.n_behind > 0, "what is taken is counted until it ends");
            state.n_behind -= 1;
            let has_more = !(state.ahead.is_empty() && state.bulk.is_empty());
            drop(state);
            if has_more {
                queue.changed.notify_one();
            }
        }
    }
}

impl<J> Queue<J> {
    /// For so many threads.
    pub(super) fn new(n_threads: usize) -> Self {
        let (readers, ahead, bulk) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let state = State { readers, ahead, bulk, n_behind: 0, is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::default(), n_threads }
    }

    /// Adds a job; one that comes after the end is dropped.
    pub(super) fn push(&self, side: Side, job: J) {
        self.push_where(|_| side, job);
    }

    /// The same where its side is asked for under the lock, under which requests are taken over:
    /// what is said of the job before that counts.
    pub(super) fn push_where(&self, side: impl FnOnce(&J) -> Side, job: J) {
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        let side = side(&job);
        state.side(side).push_back(job);
        let dropped = if state.ahead.len() > N_AHEAD_MAX { state.ahead.pop_front() } else { None };
        drop(state);
        drop(dropped);
        // Any thread that waits can take it.
        self.changed.notify_one();
    }

    /// Puts a job that a reader wants now on the readers' side; under a backlog it is the newest
    /// there.
    pub(super) fn promote(&self, is_wanted: impl Fn(&J) -> bool) {
        let mut state = self.state.lock();
        let in_bulk = state.bulk.iter().position(&is_wanted);
        let wanted = in_bulk.and_then(|place| state.bulk.remove(place));
        // In turn it comes as soon as it did; under a backlog it must not be one of the oldest.
        let has_backlog = state.readers.len() > self.n_threads * N_BACKLOG_OF_THREAD;
        let wanted = wanted.or_else(|| {
            let place = state.readers.iter().position(&is_wanted).filter(|_| has_backlog);
            place.and_then(|place| state.readers.remove(place))
        });
        let has_moved = wanted.is_some();
        state.readers.extend(wanted);
        drop(state);
        if has_moved {
            self.changed.notify_one();
        }
    }

    /// Whether a job waits for which a reader waits.
    #[cfg(test)]
    #[cfg(not(feature = "shuttle"))]
    pub(super) fn has_readers(&self) -> bool {
        !self.state.lock().readers.is_empty()
    }

    /// Waits for a job; `None` at the end.
    pub(super) fn take(&self) -> Option<Taken<'_, J>> {
        let mut state = self.state.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some((job, is_behind)) = state.take(self.n_threads) {
                let under_way = UnderWay { behind: is_behind.then_some(self) };
                return Some(Taken { job, under_way });
            }
            self.changed.wait(&mut state);
        }
    }

    /// Ends it: jobs that no thread has taken are dropped.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let left =
            [Side::Reader, Side::Ahead, Side::Bulk].map(|side| std::mem::take(state.side(side)));
        drop(state);
        // Without the lock: what is dropped tells those that wait for it.
        drop(left);
        self.changed.notify_all();
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use super::*;

    fn taken(queue: &Queue<u32>, n: usize) -> Vec<u32> {
        (0..n).map(|_| queue.take().unwrap().job).collect()
    }

    #[test]
    fn readers_come_before_what_is_read_ahead_and_that_before_bulk() {
        let queue = Queue::new(4);
        for (side, job) in [(Side::Bulk, 5), (Side::Ahead, 3), (Side::Reader, 1)] {
            queue.push(side, job);
            queue.push(side, job + 1);
        }
        assert_eq!(taken(&queue, 6), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn under_a_backlog_the_newest_reader_goes_first() {
        let queue = Queue::new(1);
        let n_backlog = u32::try_from(N_BACKLOG_OF_THREAD).unwrap();
        (0..n_backlog + 2).for_each(|job| queue.push(Side::Reader, job));
        assert_eq!(taken(&queue, 3), [n_backlog + 1, n_backlog, 0], "and then in turn again");
    }

    #[test]
    fn one_thread_is_left_for_a_reader() {
        let queue = Queue::new(3);
        (0..3).for_each(|job| queue.push(Side::Bulk, job));
        let first = queue.take().unwrap();
        let second = queue.take().unwrap();
        assert_eq!((first.job, second.job), (0, 1));
        assert!(queue.state.lock().take(3).is_none(), "the third thread waits for a reader");
        queue.push(Side::Reader, 9);
        assert_eq!(taken(&queue, 1), [9]);
        drop(first.under_way);
        assert_eq!(taken(&queue, 1), [2], "one that ended makes room for the next");
    }

    #[test]
    fn what_a_reader_wants_as_well_is_taken_over() {
        let queue = Queue::new(2);
        (0..4).for_each(|job| queue.push(Side::Bulk, job));
        queue.promote(|job| *job == 2);
        assert_eq!(taken(&queue, 4), [2, 0, 1, 3]);
    }

    #[test]
    fn a_request_that_a_reader_makes_again_is_a_new_one() {
        let queue = Queue::new(1);
        let n_backlog = u32::try_from(N_BACKLOG_OF_THREAD).unwrap();
        (0..n_backlog + 3).for_each(|job| queue.push(Side::Reader, job));
        queue.promote(|job| *job == 0);
        assert_eq!(taken(&queue, 2), [0, n_backlog + 2]);
        let rest: Vec<_> = (1..n_backlog + 2).collect();
        // The last one of a backlog; then they go in turn.
        taken(&queue, 1);
        queue.promote(|job| *job == n_backlog);
        assert_eq!(taken(&queue, 2), rest[..2], "and keeps its turn where there is one");
    }

    #[test]
    fn frames_that_were_not_come_to_are_forgotten() {
        let queue = Queue::new(2);
        let n = u32::try_from(N_AHEAD_MAX).unwrap();
        (0..n + 3).for_each(|job| queue.push(Side::Ahead, job));
        assert_eq!(taken(&queue, 1), [3]);
    }

    #[test]
    fn a_closed_queue_gives_out_and_takes_in_nothing() {
        let queue = Queue::new(1);
        queue.push(Side::Reader, 1);
        queue.close();
        queue.push(Side::Reader, 2);
        assert!(queue.take().is_none());
    }
}
