//! What is remembered of a lane, and how long it rests after a failure.
//!
//! A lane that failed tries again after a second, and then after twice as long each time, up to a
//! limit. How soon a failure may pass depends on its kind: room is made all the time, a cloud comes
//! back within minutes, and what only an operator can put right is not asked every minute. The rest
//! is shortened by chance by up to a half, so that the machines of a fleet whose cloud was away do
//! not all come back at the same moment.

use std::time::Duration;

use tier_types::ErrorKind;

/// The rest after a first failure.
const REST_MIN: Duration = Duration::from_secs(1);
/// Where room is missing no rest is longer.
const REST_NO_SPACE_MAX: Duration = Duration::from_secs(5);
/// What waits for an operator rests so many times the usual limit.
const OPERATOR_FACTOR: u32 = 10;

/// What is remembered of a lane. Times count from the start of the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneMemory {
    /// It was given a task that is not done.
    pub is_busy: bool,
    /// When it was last given one.
    pub last_begun: Option<Duration>,
    /// Failures since it last succeeded.
    pub n_failures: u32,
    /// What could be done about the last of them.
    pub last_failure: Option<ErrorKind>,
    /// It is given nothing before.
    pub rests_until: Duration,
}

impl LaneMemory {
    /// Whether it can be given a task.
    pub fn is_ready(&self, now: Duration) -> bool {
        !self.is_busy && now >= self.rests_until
    }

    /// Time since it was last given a task; since the start, if it never was.
    pub fn since_begun(&self, now: Duration) -> Duration {
        // What was never begun is as old as the scheduler.
        let Some(last) = self.last_begun else { return now };
        assert!(last <= now, "what was begun lies in the past");
        now.saturating_sub(last)
    }

    /// Whether it failed because the cloud is away, or for a reason that may be that.
    pub fn awaits_cloud(&self) -> bool {
        self.last_failure.is_some_and(may_be_away)
    }

    /// It was given a task.
    pub fn begin(&mut self, now: Duration) {
        assert!(!self.is_busy, "a lane has one task of the schedule at a time");
        *self = Self { is_busy: true, last_begun: Some(now), ..*self };
    }

    /// The task was done, or stopped on request.
    pub fn done(&mut self) {
        *self = Self { is_busy: false, n_failures: 0, last_failure: None, ..*self };
    }

    /// The task failed.
    pub fn failed(&mut self, now: Duration, failure: &Failure, retry_interval: Duration) {
        let n_failures = self.n_failures.saturating_add(1);
        let rest = rest_after(failure, n_failures, retry_interval);
        *self = Self {
            is_busy: false,
            n_failures,
            last_failure: Some(failure.kind),
            rests_until: now + rest,
            ..*self
        };
    }
}

/// Whether an error of this kind may be that of a cloud that is away, and comes back by itself.
pub(crate) fn may_be_away(kind: ErrorKind) -> bool {
    kind.may_pass() || kind == ErrorKind::Failed
}

/// A failure of a lane, and a number by chance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What can be done about it.
    pub kind: ErrorKind,
    /// Any number.
    pub jitter: u16,
}

/// How long a lane rests after so many failures in turn.
///
/// ```
/// use std::time::Duration;
///
/// use tier_agent::decide::{Failure, rest_after};
/// use tier_types::ErrorKind;
///
/// let (minute, seconds) = (Duration::from_secs(60), Duration::from_secs);
/// let away = Failure { kind: ErrorKind::Away, jitter: u16::MAX };
/// let rests = [1, 2, 3, 4, 40].map(|n_failures| rest_after(&away, n_failures, minute));
/// assert_eq!(rests, [1, 2, 4, 8, 60].map(seconds));
/// let by_chance = rest_after(&Failure { jitter: 0, ..away }, 4, minute);
/// assert_eq!(by_chance, seconds(4));
/// ```
pub fn rest_after(failure: &Failure, n_failures: u32, retry_interval: Duration) -> Duration {
    let (first, most) = match failure.kind {
        ErrorKind::NoSpace => (REST_MIN, REST_NO_SPACE_MAX.min(retry_interval)),
        ErrorKind::Away | ErrorKind::Busy | ErrorKind::Failed | ErrorKind::Cancelled => {
            (REST_MIN, retry_interval)
        }
        ErrorKind::Throttled { after } => {
            let asked = after.unwrap_or(REST_MIN);
            (asked, retry_interval.max(asked))
        }
        ErrorKind::Damaged
        | ErrorKind::Missing
        | ErrorKind::WrongKey
        | ErrorKind::Frozen { .. }
        | ErrorKind::Denied
        | ErrorKind::Conflict => {
            let rest = retry_interval.saturating_mul(OPERATOR_FACTOR);
            (rest, rest)
        }
    };
    // Far enough for any limit that a person sets.
    let doubled = first.saturating_mul(1 << n_failures.saturating_sub(1).min(20));
    let rest = doubled.min(most);
    let half = rest / 2;
    half + half * u32::from(failure.jitter) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn rest(kind: ErrorKind, n_failures: u32) -> Duration {
        rest_after(&Failure { kind, jitter: u16::MAX }, n_failures, MINUTE)
    }

    #[test]
    fn a_rest_depends_on_what_can_be_done() {
        assert_eq!(rest(ErrorKind::NoSpace, 9), REST_NO_SPACE_MAX);
        assert_eq!(rest(ErrorKind::Denied, 1), MINUTE * OPERATOR_FACTOR);
        let after = Some(Duration::from_mins(5));
        assert_eq!(rest(ErrorKind::Throttled { after }, 3), Duration::from_mins(5));
        assert_eq!(rest(ErrorKind::Failed, u32::MAX), MINUTE);
    }

    #[test]
    fn a_lane_is_given_one_task_at_a_time_and_none_while_it_rests() {
        let mut lane = LaneMemory::default();
        let at = Duration::from_secs;
        assert!(lane.is_ready(at(0)));
        lane.begin(at(0));
        assert!(!lane.is_ready(at(100)));
        let failure = Failure { kind: ErrorKind::Away, jitter: u16::MAX };
        lane.failed(at(100), &failure, MINUTE);
        assert!(!lane.is_ready(at(100)) && lane.is_ready(at(101)));
        lane.begin(at(101));
        lane.failed(at(102), &failure, MINUTE);
        assert!(!lane.is_ready(at(103)) && lane.is_ready(at(104)));
        lane.begin(at(104));
        lane.done();
        assert_eq!((lane.n_failures, lane.since_begun(at(110))), (0, at(6)));
    }
}
