//! From members to tarballs, on all cores.
//!
//! The planner's thread hands out jobs, each some members that become one frame; workers read
//! their data, build the frame and compress it; the sequencer joins the frames in order, cuts them
//! into runs, and decides where a tarball ends; workers seal the runs; each tarball has a thread
//! that writes them. There is a bound on everything that is under way: on jobs, on runs, and on
//! tarballs that are not durable yet.

mod assembler;
mod jobs;
mod payload;
mod rate_limiter;
mod sequencer;
mod sink;
mod workers;

use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use tier_status::StatusSink;
use tier_types::{MountedSnapshot, StagingStore};

use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::tarball::identity::TarballIdentity;
use crate::format::tarball::member::Member;
use crate::write::frame_builder::FrameBuilder;
use crate::write::persister::PersistOptions;

pub(crate) use sequencer::Sequenced;

use jobs::{Job, Numbered, Reply};
use rate_limiter::Pace;

/// What all tarballs of a snapshot share.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a dyn StagingStore,
    pub(crate) keys: &'a Keys,
    pub(crate) options: PersistOptions,
    /// Of the first tarball.
    pub(crate) identity: TarballIdentity,
    pub(crate) mounted: &'a dyn MountedSnapshot,
    pub(crate) status: &'a dyn StatusSink,
}

impl Context<'_> {
    fn builder(&self) -> Result<FrameBuilder, PersistError> {
        let PersistOptions { level, frame_bytes, .. } = self.options;
        FrameBuilder::new(level, self.identity.chunk_bytes, frame_bytes)
    }
}

/// Where a planner puts its jobs.
pub(crate) struct Jobs {
    queue: Sender<Job>,
    built: Sender<Numbered>,
    done: Receiver<u64>,
    pace: Pace,
    n_pushed: u64,
    n_under_way: usize,
    n_under_way_max: usize,
}

impl Jobs {
    /// Hands over members that are to become one frame; waits while too much is under way, or was
    /// written in too short a time.
    pub(crate) fn push(&mut self, members: Vec<Member>) -> Result<(), PersistError> {
        self.wait_for_turn()?;
        let reply = Reply { number: self.n_pushed, built: Some(self.built.clone()) };
        self.n_pushed += 1;
        self.n_under_way += 1;
        self.queue.send(Job { members, reply }).map_err(|_| PersistError::Pipeline)
    }

    fn wait_for_turn(&mut self) -> Result<(), PersistError> {
        loop {
            let wait = self.pace.wait(Instant::now());
            let done = if self.n_under_way >= self.n_under_way_max {
                self.done.recv().map_err(|_| PersistError::Pipeline)?
            } else if wait.is_zero() {
                return Ok(());
            } else {
                match self.done.recv_timeout(wait) {
                    Ok(done) => done,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return Err(PersistError::Pipeline),
                }
            };
            self.n_under_way -= 1;
            self.pace.note(done, Instant::now());
        }
    }
}

/// Starts the threads, lets `plan` hand out jobs, and waits for the tarballs to be durable.
pub(crate) fn run(
    context: &Context<'_>,
    plan: impl FnOnce(&mut Jobs) -> Result<(), PersistError>,
) -> Result<Sequenced, PersistError> {
    let n_workers = context.options.n_workers.max(1);
    // The queues are bounded by the number of jobs that may be under way, and by that of runs.
    let (jobs, job_queue) = unbounded();
    let (sealer, seal_queue) = unbounded();
    let (built, arrived) = unbounded();
    let (done, jobs_done) = unbounded();
    let (total, n_jobs) = bounded(1);
    let mut builders = Vec::new();
    for _ in 0..=n_workers {
        builders.push(context.builder()?);
    }
    thread::scope(|scope| {
        let ends = sequencer::Ends { built: arrived, done, total: n_jobs, sealer };
        let mut builders = builders.into_iter();
        let sequencer = builders.next().ok_or(PersistError::Pipeline)?;
        let sequencer =
            start(scope, "tier-sequencer", move || sequencer::run(context, sequencer, ends))?;
        for (number, builder) in builders.enumerate() {
            let (job_queue, seal_queue) = (job_queue.clone(), seal_queue.clone());
            start(scope, "tier-worker", move || {
                let mark = context.identity.mark();
                let steps_back = number >= n_workers.div_ceil(2);
                let busy_percent = context.options.busy_percent;
                let source = (context.mounted, workers::Manners { steps_back, busy_percent });
                workers::work(builder, source, mark, job_queue, seal_queue);
            })?;
        }
        drop((job_queue, seal_queue));
        let n_under_way_max = 3 * n_workers + 1;
        let (queue, done, n_pushed, n_under_way) = (jobs, jobs_done, 0, 0);
        let pace = Pace::new(context.options.bytes_per_second_max, Instant::now());
        let mut jobs = Jobs { queue, built, done, pace, n_pushed, n_under_way, n_under_way_max };
        let planned = plan(&mut jobs);
        if planned.is_ok() {
            let _ = total.send(jobs.n_pushed);
        }
        drop((jobs, total));
        let sequenced = sequencer.join().unwrap_or(Err(PersistError::Pipeline));
        match (planned, sequenced) {
            (Ok(()), sequenced) => sequenced,
            // What stopped the sequencer stopped the planner, and not the other way round.
            (Err(PersistError::Pipeline), Err(cause)) => Err(cause),
            (Err(error), _) => Err(error),
        }
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>, PersistError> {
    let started = thread::Builder::new().name(name.into()).spawn_scoped(scope, work);
    started.map_err(|source| PersistError::Io {
        operation: "start thread",
        object: name.into(),
        source,
    })
}
