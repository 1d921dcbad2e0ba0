//! Jobs, from the planner to the workers, and what they came to, from the workers to the sequencer.
//!
//! Jobs are numbered from 0 without gaps. A job carries a [`Reply`] with its number: whatever
//! becomes of the job (built, failed, lost with a worker that panicked, left in a queue), the
//! sequencer hears exactly once of each number, and need not time out to notice a hole in the
//! order.

use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::rate_limiter::RateLimiter;
use crate::error::PersistError;
use crate::format::tarball::member::Member;
use crate::write::frame_builder::BuiltFrames;

/// Members that become one frame, or one member that becomes several.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) members: Vec<Member>,
    pub(super) reply: Reply,
}

/// What came of a job.
#[derive(Debug)]
pub(super) struct FinishedJob {
    /// The job's number, from 0 without gaps.
    pub(super) number: u64,
    pub(super) built: Result<BuiltFrames, PersistError>,
}

/// The answer to a job. Dropped unsent, it ends the work with an error.
#[derive(Debug)]
pub(super) struct Reply {
    number: u64,
    /// None when it was sent.
    finished: Option<Sender<FinishedJob>>,
}

impl Reply {
    pub(super) fn send(mut self, built: Result<BuiltFrames, PersistError>) {
        self.answer(built);
    }

    fn answer(&mut self, built: Result<BuiltFrames, PersistError>) {
        if let Some(finished) = self.finished.take() {
            // A sequencer that is gone has ended the work already, and said why.
            let _ = finished.send(FinishedJob { number: self.number, built });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Err(PersistError::Pipeline));
    }
}

/// Where a planner puts its jobs.
pub(crate) struct JobQueue {
    queue: Sender<Job>,
    finished: Sender<FinishedJob>,
    /// The sequencer says of each job when its turn was over, and how many bytes it came to.
    done: Receiver<u64>,
    limiter: RateLimiter,
    n_pushed: u64,
    n_under_way: usize,
    n_under_way_max: usize,
}

/// The planner's ends of the channels.
pub(super) struct QueueEnds {
    pub(super) queue: Sender<Job>,
    pub(super) finished: Sender<FinishedJob>,
    pub(super) done: Receiver<u64>,
}

impl JobQueue {
    pub(super) fn new(ends: QueueEnds, limiter: RateLimiter, n_under_way_max: usize) -> Self {
        let QueueEnds { queue, finished, done } = ends;
        Self { queue, finished, done, limiter, n_pushed: 0, n_under_way: 0, n_under_way_max }
    }

    /// Hands out members that are to become one frame; waits while too much is under way, or was
    /// written in too short a time.
    pub(crate) fn push(&mut self, members: Vec<Member>) -> Result<(), PersistError> {
        assert!(!members.is_empty(), "a job has members");
        self.wait_for_turn()?;
        let reply = Reply { number: self.n_pushed, finished: Some(self.finished.clone()) };
        self.n_pushed += 1;
        self.n_under_way += 1;
        // Refused only when all workers are gone; the job's reply then tells the sequencer.
        self.queue.send(Job { members, reply }).map_err(|_| PersistError::Pipeline)
    }

    /// How many jobs there were.
    pub(super) fn n_pushed(&self) -> u64 {
        self.n_pushed
    }

    fn wait_for_turn(&mut self) -> Result<(), PersistError> {
        loop {
            // Room first: while too much is under way, time passes for the rate as well.
            let wait = self.limiter.wait(Instant::now());
            let bytes = if self.n_under_way >= self.n_under_way_max {
                self.done.recv().map_err(|_| PersistError::Pipeline)?
            } else if wait.is_zero() {
                return Ok(());
            } else {
                // Waiting here, and not asleep, so that the end of the sequencer is noticed.
                match self.done.recv_timeout(wait) {
                    Ok(bytes) => bytes,
                    // Jobs that were done meanwhile have made it later again.
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return Err(PersistError::Pipeline),
                }
            };
            assert!(self.n_under_way > 0, "a job is done once");
            self.n_under_way -= 1;
            self.limiter.account(bytes, Instant::now());
        }
    }
}
