//! The limits of what is used of a store in a second.
//!
//! What is used is booked at once, and what comes next waits until it would have been used at the
//! rate that is allowed. A reader is booked and does not wait, so that what is done in bulk goes
//! slower beside it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tier_types::CallClass;

/// How much of a store is used in a second, but for what readers wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RateLimits {
    /// Bytes that are sent and fetched; 0 for no limit.
    pub bytes_per_second_max: u64,
    /// Requests; 0 for no limit.
    pub requests_per_second_max: u32,
}

/// So much at a time is used at once: the pauses of a limit that is hardly reached cost nothing.
const BURST: Duration = Duration::from_millis(250);
/// What readers used keeps the others waiting for no longer.
const DEBT_MAX: Duration = Duration::from_secs(5);
/// Nor does what was booked and not sent, because a store was away.
const BOOKED_MAX: Duration = Duration::from_mins(2);

#[derive(Debug, Default)]
pub(super) struct Pace {
    limits: RateLimits,
    booked: Mutex<Booked>,
}

/// Up to when each is used.
#[derive(Debug, Default)]
struct Booked {
    bytes: Option<Instant>,
    requests: Option<Instant>,
}

impl Pace {
    pub(super) fn new(limits: RateLimits) -> Self {
        Self { limits, booked: Mutex::default() }
    }

    pub(super) fn limits_bytes(&self) -> bool {
        self.limits.bytes_per_second_max > 0
    }

    /// Books a request. Until when it has to wait.
    pub(super) fn request(&self, class: CallClass, now: Instant) -> Option<Instant> {
        let rate = u64::from(self.limits.requests_per_second_max);
        book(&mut self.booked.lock().requests, 1, rate, class, now)
    }

    /// Books bytes. Until when what comes behind them, or they themselves, have to wait.
    pub(super) fn bytes(&self, class: CallClass, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = self.limits.bytes_per_second_max;
        book(&mut self.booked.lock().bytes, bytes, rate, class, now)
    }
}

fn book(
    booked: &mut Option<Instant>,
    amount: u64,
    rate: u64,
    class: CallClass,
    now: Instant,
) -> Option<Instant> {
    let nanos =
        u128::from(amount) * 1_000_000_000 / u128::from(std::num::NonZero::new(rate)?.get());
    let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    let begins = booked.map_or(now, |booked| booked.max(now));
    let is_reader = class == CallClass::Interactive;
    let most = if is_reader { DEBT_MAX } else { BOOKED_MAX };
    let ends = begins + takes.min(BOOKED_MAX);
    *booked = Some(ends.min(begins.max(now + most)));
    assert!(begins >= now, "nothing is booked in the past");
    let waits_until = begins.checked_sub(BURST).filter(|until| *until > now);
    waits_until.filter(|_| !is_reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn pace() -> Pace {
        Pace::new(RateLimits { bytes_per_second_max: MIB, requests_per_second_max: 10 })
    }

    #[test]
    fn what_is_used_is_waited_for_by_what_comes_next() {
        let (pace, now) = (pace(), Instant::now());
        assert_eq!(pace.bytes(CallClass::Bulk, 2 * MIB, now), None, "nothing was used");
        let until = pace.bytes(CallClass::Bulk, MIB, now);
        assert_eq!(until.map(|until| until + BURST), Some(now + Duration::from_secs(2)));
        let later = now + Duration::from_secs(9);
        assert_eq!(pace.bytes(CallClass::Bulk, MIB, later), None, "what was not used is gone");
        for _ in 0..3 {
            assert_eq!(pace.request(CallClass::Bulk, now), None, "a few at a time");
        }
        let until = (0..7).filter_map(|_| pace.request(CallClass::Bulk, now)).last();
        assert_eq!(until.map(|until| until + BURST), Some(now + Duration::from_millis(900)));
    }

    #[test]
    fn readers_do_not_wait_and_others_wait_for_them_a_while() {
        let (pace, now) = (pace(), Instant::now());
        for _ in 0..100 {
            assert_eq!(pace.bytes(CallClass::Interactive, MIB, now), None);
        }
        let until = pace.bytes(CallClass::Bulk, MIB, now);
        assert_eq!(until.map(|until| until + BURST), Some(now + DEBT_MAX));
    }

    #[test]
    fn without_limits_nothing_waits() {
        let (pace, now) = (Pace::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(pace.bytes(CallClass::Bulk, u64::MAX, now), None);
            assert_eq!(pace.request(CallClass::Bulk, now), None);
        }
    }
}
