//! The pipeline: from members to tarballs, on all cores and in bounded memory.
//!
//! Five kinds of threads work on a snapshot. The **planner** (the caller's thread) hands out jobs,
//! each some members that become one frame. **Workers** read the members' data, build the frame and
//! compress it. The **sequencer** takes the frames in the order of the jobs, joins them into runs
//! of 1 MiB, and decides where a tarball ends. Workers also seal the runs. Each tarball has a
//! **writer**, which writes its runs in order, and a **flusher**, which sends on to the disk what
//! was written.
//!
//! ```text
//! planner ──jobs──▶ workers ──frames──▶ sequencer ──runs──▶ workers ──sealed──▶ writer ──▶ flusher
//!    ▲                                   │     ▲                                 │
//!    └────────────── done ───────────────┘     └───────── room, durable ─────────┘
//! ```
//!
//! **Bounds** ([`crate::write::limits`]). Nothing but the tarballs' rows, 32 bytes for each frame,
//! grows with the snapshot. Jobs are under way from the planner to the end of their turn in the
//! sequencer; when there are `jobs_under_way_max`, the planner waits for one to be done. Those that
//! are built and wait for their turn count, because one that takes long holds up all behind it, and
//! their frames lie in memory meanwhile. For room among the runs of a tarball, sealed or not
//! (`RUNS_UNDER_WAY_MAX`), the sequencer waits, and for the oldest of the tarballs that are
//! complete but not durable (`TARBALLS_PENDING_MAX`). The channels themselves are unbounded: these
//! counts are what bounds them. So a slow disk holds back the writer, that the sequencer, that the
//! planner, and reading stops.
//!
//! **Why it cannot stand still.** The planner waits for the sequencer; the sequencer for workers
//! and writers; a writer for workers and its flusher. A worker waits for work and for nothing else:
//! what it sends is never refused. So there is no circle of waits. A worker may be
//! [throttled](throttle) or may be building while a run waits to be sealed, but sealing goes first
//! and is never throttled, and every job ends.
//!
//! **How it ends.** When the planner is done it says how many jobs there were, and drops its end of
//! the jobs. Every job holds an end of the frames' channel, so that the sequencer sees the end when
//! each job was answered, and not before. It ends the last tarball, for which workers are still
//! there to seal; they go when the sequencer and with it the last end of the seals is gone. If the
//! planner gives up, it never says a number, and the sequencer discards the open tarball.
//!
//! **When something fails.** A stage that fails drops its ends, and its neighbours notice: the
//! planner that waits hears that the sequencer is gone, and the writer that its runs end without an
//! end. A lost job or run (a worker panicked) is reported by what stood for it in the order when
//! that is dropped. The first error that says why is the one that is returned, and no object is
//! left visible that was not written to its end; a tarball that was is removed by the next attempt.

mod assembler;
pub(crate) mod context;
pub(crate) mod jobs;
mod payload;
mod rate_limiter;
mod reorder;
pub(crate) mod sequencer;
mod sink;
mod throttle;
mod workers;

use std::thread::{Builder, Scope, ScopedJoinHandle, scope};
use std::time::Instant;

use crossbeam_channel::{bounded, unbounded};

use self::context::Context;
use self::jobs::{JobQueue, QueueEnds};
use self::rate_limiter::RateLimiter;
use self::sequencer::{Sequenced, SequencerEnds};
use self::throttle::Throttle;
use self::workers::{WorkQueues, Worker};
use crate::error::PersistError;
use crate::write::frame_builder::FrameBuilder;
use crate::write::limits::jobs_under_way_max;

/// Starts the threads, lets `plan` hand out jobs, and waits for the tarballs to be durable. Returns
/// what `plan` did as well.
pub(crate) fn run<T>(
    context: &Context<'_>,
    plan: impl FnOnce(&mut JobQueue) -> Result<T, PersistError>,
) -> Result<(T, Sequenced), PersistError> {
    let n_workers = context.options.n_workers;
    let (queue, job_queue) = unbounded();
    let (sealer, seal_queue) = unbounded();
    let (finished, arrived) = unbounded();
    let (done, jobs_done) = unbounded();
    let (total, n_jobs) = bounded(1);
    // Before any thread is started: what fails here needs no thread to be ended.
    let sequencer_builder = context.frame_builder()?;
    let builders: Vec<FrameBuilder> =
        (0..n_workers).map(|_| context.frame_builder()).collect::<Result<_, _>>()?;
    scope(|scope| {
        let ends = SequencerEnds { finished: arrived, done, total: n_jobs, sealer };
        let sequence = move || sequencer::run(context, sequencer_builder, ends);
        let sequencer = start(scope, "tier-sequencer", sequence)?;
        for (number, builder) in builders.into_iter().enumerate() {
            let busy_percent = context.options.busy_percent;
            let throttle = Throttle::of_worker(number, n_workers, busy_percent, Instant::now());
            let mark = context.identity.mark();
            let worker = Worker { builder, mounted: context.mounted, mark, throttle };
            let queues = WorkQueues { jobs: job_queue.clone(), seals: seal_queue.clone() };
            start(scope, "tier-worker", move || worker.run(queues))?;
        }
        // The workers have the only ends: when they are gone, sending fails.
        drop((job_queue, seal_queue));
        let limiter = RateLimiter::new(context.options.bytes_per_second_max, Instant::now());
        let ends = QueueEnds { queue, finished, done: jobs_done };
        let mut jobs = JobQueue::new(ends, limiter, jobs_under_way_max(n_workers));
        let planned = plan(&mut jobs);
        if planned.is_ok() {
            // A sequencer that is gone has failed, which is seen below.
            let _ = total.send(jobs.n_pushed());
        }
        // The workers see that there are no more jobs, and after them the sequencer.
        drop((jobs, total));
        // A sequencer that panicked says no more than that.
        let sequenced = sequencer.join().unwrap_or(Err(PersistError::Pipeline));
        match (planned, sequenced) {
            (Ok(planned), sequenced) => Ok((planned, sequenced?)),
            // What stopped the sequencer stopped the planner, and not the other way round.
            (Err(PersistError::Pipeline), Err(cause)) => Err(cause),
            (Err(error), _) => Err(error),
        }
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, PersistError> {
    let started = Builder::new().name(name.into()).spawn_scoped(scope, work);
    started.map_err(|source| PersistError::Io {
        operation: "start thread",
        object: name.into(),
        source,
    })
}
