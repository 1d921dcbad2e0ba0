//! Worker threads: they build frames and seal runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select_biased};
use tier_types::MountedSnapshot;

use crate::format::tarball::mark::FrameMark;
use crate::write::frame_builder::FrameBuilder;
use crate::write::pipeline::jobs::Job;
use crate::write::pipeline::payload::SealJob;

/// How a worker behaves while the filesystem is in demand.
#[derive(Clone, Copy)]
pub(super) struct Manners {
    /// It only seals: half of the workers do, so that whoever uses the filesystem finds a core.
    pub(super) steps_back: bool,
    /// How much of its time it works otherwise.
    pub(super) busy_percent: u32,
}

/// One worker, until there is nothing left to do. Sealing goes first: it is what frees memory.
pub(super) fn work(
    mut builder: FrameBuilder,
    (mounted, manners): (&dyn MountedSnapshot, Manners),
    mark: FrameMark,
    mut jobs: Receiver<Job>,
    mut seals: Receiver<SealJob>,
) {
    let mut reader = mounted.reader();
    let mut rest_until = Instant::now();
    let (mut n_ended, mut jobs_ended, mut seals_ended) = (0, false, false);
    let no_jobs = never();
    while n_ended < 2 {
        let rest = rest_until.saturating_duration_since(Instant::now());
        // When there is nothing left to seal, there are no jobs either, and that must be seen.
        let gives_way =
            (manners.steps_back || !rest.is_zero()) && n_ended == 0 && mounted.foreground_active();
        let jobs_now = if gives_way { &no_jobs } else { &jobs };
        let look_again = if rest.is_zero() { LOOK_INTERVAL } else { rest.min(LOOK_INTERVAL) };
        select_biased! {
            recv(seals) -> seal => match seal {
                // Whoever waits for the result hears of a panic through what the job held.
                Ok(seal) => drop(catch_unwind(AssertUnwindSafe(|| seal.run()))),
                Err(_) => seals_ended = true,
            },
            recv(jobs_now) -> job => match job {
                Ok(job) => {
                    let started = Instant::now();
                    drop(catch_unwind(AssertUnwindSafe(|| {
                        let built = builder.build(&job.members, &mark, reader.as_mut());
                        job.reply.send(built);
                    })));
                    let ended = Instant::now();
                    rest_until = ended + rest_after(ended - started, manners.busy_percent);
                }
                Err(_) => jobs_ended = true,
            },
            default(look_again) => {}
        }
        if seals_ended {
            (seals, seals_ended, n_ended) = (never(), false, n_ended + 1);
        }
        if jobs_ended {
            (jobs, jobs_ended, n_ended) = (never(), false, n_ended + 1);
        }
    }
}

/// How long to rest after work, so that the work takes only so much of the time.
fn rest_after(worked: Duration, busy_percent: u32) -> Duration {
    let busy = busy_percent.clamp(1, 100);
    worked * (100 - busy) / busy
}

/// How often somebody who gives way looks whether he still has to.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_and_work_have_their_shares_of_the_time() {
        let worked = Duration::from_millis(40);
        assert_eq!(rest_after(worked, 40), Duration::from_millis(60));
        assert_eq!(rest_after(worked, 10), Duration::from_millis(360));
        assert_eq!(rest_after(worked, 100), Duration::ZERO);
    }
}
