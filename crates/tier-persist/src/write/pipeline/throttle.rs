//! The throttle of a worker: how persisting yields to foreground activity.
//!
//! A snapshot is persisted by the process that serves the filesystem, on the same cores. With all
//! of them at work a request takes twice as long as without; yet a snapshot must come to its end,
//! or the log grows for ever. So workers yield, but never stop. Three means work together, each of
//! which can be set (`docs/adr/0013-persisting-yields.md`): the threads' priority, which the
//! caller sets; the [rate limiter](super::rate_limiter), which is for disks; and this throttle,
//! which is for cores.
//!
//! The mounted snapshot says whether there is foreground activity. While there is,
//!
//! - half of the workers (the later half, rounded down) take no jobs at all, and only seal: a
//!   thread that wakes up to serve a request finds a core that is free, instead of waiting for the
//!   end of a time slice;
//! - each of the others keeps a duty cycle: after a job that took a time *t* it rests for
//!   *t* · (100 − busy) / busy, so that it works at most `busy_percent` of the time.
//!
//! Both are asked for anew each time a worker could take a job, and at least every
//! [`LOOK_INTERVAL`] while it yields: when the activity ends, or the filesystem says that it has
//! none because space is low and only what is persisted can be evicted, all workers go on at once,
//! and the rest that is left does not count.
//!
//! Sealing is never throttled. It is a small part of the work, it is what frees the memory of what
//! is under way, and the sequencer waits for it: a worker that held back a run would hold back
//! everything behind it, and throttle the whole pipeline in place of itself. For the same reason a
//! worker rests between jobs and not within one: the jobs behind it in the order wait for the one
//! that it holds. And once there is nothing left to seal there are no jobs either; a worker that
//! yields must see that, so from then on it yields no more.
//!
//! The throttle is pure: the caller says what time it is and whether there is activity, and does
//! the waiting, so that a worker that rests still takes what is to be sealed.

use std::time::{Duration, Instant};

/// How often a worker that yields looks whether it still has to.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The throttle of one worker.
#[derive(Debug)]
pub(super) struct Throttle {
    /// While there is activity it takes no jobs.
    seals_only: bool,
    /// How much of its time it works otherwise while there is activity.
    busy_percent: u32,
    rest_until: Instant,
}

impl Throttle {
    /// For one of so many workers, which are numbered from 0.
    pub(super) fn of_worker(
        number: usize,
        n_workers: usize,
        busy_percent: u32,
        now: Instant,
    ) -> Self {
        assert!(number < n_workers, "workers are numbered from 0");
        // The first worker always builds: a snapshot goes on, however busy the filesystem is.
        let seals_only = number >= n_workers.div_ceil(2);
        Self { seals_only, busy_percent: busy_percent.clamp(1, 100), rest_until: now }
    }

    /// A job took this time: as much rest follows as the duty cycle asks for.
    pub(super) fn worked(&mut self, started: Instant, ended: Instant) {
        // After the work, when its length is known, and counted from its end.
        let idle_percent = 100 - self.busy_percent;
        self.rest_until = ended + (ended - started) * idle_percent / self.busy_percent;
    }

    /// Whether the worker takes no job now. `foreground_active` is asked only if it matters.
    pub(super) fn yields(&self, now: Instant, foreground_active: impl FnOnce() -> bool) -> bool {
        (self.seals_only || !self.rest(now).is_zero()) && foreground_active()
    }

    /// After what time at most it is to be asked again.
    pub(super) fn look_again_after(&self, now: Instant) -> Duration {
        let rest = self.rest(now);
        // A worker that rests wakes up when the rest is over, and before that to see whether it is
        // still needed.
        if rest.is_zero() { LOOK_INTERVAL } else { rest.min(LOOK_INTERVAL) }
    }

    fn rest(&self, now: Instant) -> Duration {
        self.rest_until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKED: Duration = Duration::from_millis(40);

    /// How long a worker rests after a job.
    fn rest_after_work(busy_percent: u32) -> Duration {
        let start = Instant::now();
        let mut throttle = Throttle::of_worker(0, 1, busy_percent, start);
        throttle.worked(start, start + WORKED);
        throttle.rest(start + WORKED)
    }

    #[test]
    fn rest_and_work_have_their_shares_of_the_time() {
        assert_eq!(rest_after_work(40), Duration::from_millis(60));
        assert_eq!(rest_after_work(10), Duration::from_millis(360));
        assert_eq!(rest_after_work(100), Duration::ZERO);
    }

    #[test]
    fn half_of_the_workers_only_seal_while_there_is_activity() {
        let now = Instant::now();
        for (n_workers, n_building) in [(1, 1), (2, 1), (3, 2), (8, 4)] {
            let workers = 0..n_workers;
            let throttles = workers.map(|number| Throttle::of_worker(number, n_workers, 80, now));
            let building = throttles.filter(|throttle| !throttle.yields(now, || true));
            assert_eq!(building.count(), n_building, "of {n_workers}");
        }
        let last = Throttle::of_worker(1, 2, 80, now);
        assert!(!last.yields(now, || false));
    }

    #[test]
    fn a_rest_ends_with_the_activity_or_its_time() {
        let start = Instant::now();
        let mut throttle = Throttle::of_worker(0, 1, 50, start);
        throttle.worked(start, start + WORKED);
        let now = start + WORKED;
        assert!(throttle.yields(now, || true));
        assert!(!throttle.yields(now, || false));
        assert_eq!(throttle.look_again_after(now), LOOK_INTERVAL);
        let soon = now + Duration::from_millis(35);
        assert_eq!(throttle.look_again_after(soon), Duration::from_millis(5));
        assert!(!throttle.yields(now + WORKED, || unreachable!("it does not matter")));
    }
}
