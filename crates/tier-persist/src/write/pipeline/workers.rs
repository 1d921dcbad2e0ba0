//! Worker threads: they build frames and seal runs.
//!
//! Sealing goes first: it is what frees memory, and the writer of a tarball waits for it. A panic
//! in a job or a seal costs the snapshot and not the worker's thread: what the job held (its reply,
//! its slot in the order) reports the loss when it is dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crossbeam_channel::{Receiver, never, select_biased};
use tier_types::{MountedSnapshot, SnapshotReader};

use super::jobs::Job;
use super::payload::SealJob;
use super::throttle::Throttle;
use crate::format::tarball::mark::FrameMark;
use crate::write::frame_builder::FrameBuilder;

/// One worker.
pub(super) struct Worker<'a> {
    pub(super) builder: FrameBuilder,
    pub(super) mounted: &'a dyn MountedSnapshot,
    pub(super) mark: FrameMark,
    pub(super) throttle: Throttle,
}

/// Where a worker's work comes from. A queue that has ended is never ready again.
pub(super) struct WorkQueues {
    pub(super) jobs: Receiver<Job>,
    pub(super) seals: Receiver<SealJob>,
}

impl Worker<'_> {
    /// Works until there is nothing left to do.
    pub(super) fn run(mut self, queues: WorkQueues) {
        let WorkQueues { mut jobs, mut seals } = queues;
        // A reader for each worker: it keeps its place in the snapshot and reads ahead.
        let mut reader = self.mounted.reader();
        let (mut jobs_ended, mut seals_ended) = (false, false);
        let no_jobs = never();
        while !(jobs_ended && seals_ended) {
            let now = Instant::now();
            // When there is nothing left to seal, there are no jobs either, and that must be seen.
            let may_yield = !jobs_ended && !seals_ended;
            let yields =
                may_yield && self.throttle.yields(now, || self.mounted.foreground_active());
            let jobs_now = if yields { &no_jobs } else { &jobs };
            // Noted here and acted on below, because the selection borrows the queues.
            let (mut no_more_jobs, mut no_more_seals) = (false, false);
            select_biased! {
                recv(seals) -> seal => match seal {
                    // The writer that waits for the run hears of a panic through the run's slot.
                    Ok(seal) => drop(catch_unwind(AssertUnwindSafe(|| seal.run()))),
                    Err(_) => no_more_seals = true,
                },
                recv(jobs_now) -> job => match job {
                    Ok(job) => self.build(job, reader.as_mut()),
                    Err(_) => no_more_jobs = true,
                },
                default(self.throttle.look_again_after(now)) => {}
            }
            if no_more_seals {
                (seals, seals_ended) = (never(), true);
            }
            if no_more_jobs {
                (jobs, jobs_ended) = (never(), true);
            }
        }
    }

    fn build(&mut self, job: Job, reader: &mut dyn SnapshotReader) {
        let started = Instant::now();
        // The sequencer hears of a panic through the job's reply.
        drop(catch_unwind(AssertUnwindSafe(|| {
            let built = self.builder.build(&job.members, &self.mark, reader);
            job.reply.send(built);
        })));
        self.throttle.worked(started, Instant::now());
    }
}
