//! Worker threads: they build frames and seal runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select_biased};
use tier_types::MountedSnapshot;

use super::job::Job;
use super::payload::SealJob;
use crate::tarball::{FrameBuilder, FrameMark};

/// One worker, until there is nothing left to do. Sealing goes first: it is what frees memory.
pub(super) fn work(
    mut builder: FrameBuilder,
    (mounted, busy_percent): (&dyn MountedSnapshot, u32),
    mark: FrameMark,
    mut jobs: Receiver<Job>,
    mut seals: Receiver<SealJob>,
) {
    let mut reader = mounted.reader();
    let (mut n_ended, mut jobs_ended, mut seals_ended) = (0, false, false);
    while n_ended < 2 {
        select_biased! {
            recv(seals) -> seal => match seal {
                // Whoever waits for the result hears of a panic through what the job held.
                Ok(seal) => drop(catch_unwind(AssertUnwindSafe(|| seal.run()))),
                Err(_) => seals_ended = true,
            },
            recv(jobs) -> job => match job {
                Ok(job) => {
                    let started = Instant::now();
                    drop(catch_unwind(AssertUnwindSafe(|| {
                        let built = builder.build(&job.members, &mark, reader.as_mut());
                        job.reply.send(built);
                    })));
                    if mounted.in_demand() {
                        give_way(started.elapsed(), busy_percent);
                    }
                }
                Err(_) => jobs_ended = true,
            },
        }
        if seals_ended {
            (seals, seals_ended, n_ended) = (never(), false, n_ended + 1);
        }
        if jobs_ended {
            (jobs, jobs_ended, n_ended) = (never(), false, n_ended + 1);
        }
    }
}

/// The longest rest: a worker must see soon that nobody wants its work any more.
const REST_MAX: Duration = Duration::from_millis(200);

/// Rests after work, so that the work takes only so much of the time.
#[expect(clippy::disallowed_methods, reason = "a share of the time is kept by letting time pass")]
fn give_way(worked: Duration, busy_percent: u32) {
    let busy = busy_percent.clamp(1, 100);
    std::thread::sleep((worked * (100 - busy) / busy).min(REST_MAX));
}
