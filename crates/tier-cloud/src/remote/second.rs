//! A second request for a reader whose first one takes longer than nearly all others.
//!
//! Stores answer most requests at once and a few after seconds: the time of the slowest of many
//! readers is that of the store's worst server. What is not answered within the time of 95 of 100
//! requests is asked for once more, and the first answer counts (Dean and Barroso, "The Tail at
//! Scale", 2013). There are never more second requests than one of twenty, so that a store that
//! becomes slow as a whole is not asked twice as often.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use parking_lot::Mutex;

use super::refusal::Failure;

/// Times that are remembered, and how many are enough to go by.
const N_TIMES_MAX: usize = 200;
const N_TIMES_MIN: usize = 20;
/// One request of so many may be a second one.
const N_FOR_A_SECOND: u64 = 20;
/// Shorter times are no sign of anything.
const HEDGE_DELAY_MIN: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(super) struct SecondRequests(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The newest one last.
    times: VecDeque<Duration>,
    n_first: u64,
    n_second: u64,
}

impl Seen {
    fn note(&mut self, time: Duration) {
        self.times.push_back(time);
        if self.times.len() > N_TIMES_MAX {
            self.times.pop_front();
        }
    }

    /// How long a request may take before it is made once more; `None` for as long as it likes.
    fn hedge_delay(&self) -> Option<Duration> {
        let may_ask = self.n_second.saturating_mul(N_FOR_A_SECOND) < self.n_first;
        if self.times.len() < N_TIMES_MIN || !may_ask {
            return None;
        }
        let mut times: Vec<_> = self.times.iter().copied().collect();
        let place = times.len() * 95 / 100;
        assert!(place < times.len(), "it is a time that was seen");
        let (_, slow, _) = times.select_nth_unstable(place);
        Some((*slow).max(HEDGE_DELAY_MIN))
    }
}

impl SecondRequests {
    /// The answer to a request, or to a second one.
    pub(super) async fn first_of<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        request: impl Fn() -> F,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let hedge_delay = {
            let mut seen = self.0.lock();
            seen.n_first += 1;
            seen.hedge_delay()
        };
        let answer = self.answer(&request, hedge_delay).await;
        if answer.is_ok() {
            self.0.lock().note(began.elapsed());
        }
        answer
    }

    async fn answer<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        request: &impl Fn() -> F,
        hedge_delay: Option<Duration>,
    ) -> Result<T, Failure> {
        let mut first = pin!(request());
        let Some(hedge_delay) = hedge_delay else { return first.await };
        if let Ok(answer) = tokio::time::timeout(hedge_delay, first.as_mut()).await {
            return answer;
        }
        self.0.lock().n_second += 1;
        tracing::debug!(?hedge_delay, "a read is asked for a second time");
        match select(first, pin!(request())).await {
            Either::Left((Ok(answer), _)) | Either::Right((Ok(answer), _)) => Ok(answer),
            Either::Left((Err(_), second)) => second.await,
            Either::Right((Err(_), first)) => first.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_millis(100);

    fn seen(n: u64) -> Seen {
        let mut seen = Seen::default();
        for number in 0..n {
            seen.n_first += 1;
            // Each tenth is slow.
            seen.note(if number % 10 == 9 { 5 * USUAL } else { USUAL });
        }
        seen
    }

    #[test]
    fn the_delay_is_the_time_of_nearly_all() {
        assert_eq!(seen(19).hedge_delay(), None, "too few to tell");
        assert_eq!(seen(100).hedge_delay(), Some(5 * USUAL));
        let mut fast = seen(10_000);
        (0..N_TIMES_MAX).for_each(|_| fast.note(Duration::from_micros(50)));
        assert_eq!(fast.hedge_delay(), Some(HEDGE_DELAY_MIN), "what was long ago does not count");
        assert_eq!(fast.times.len(), N_TIMES_MAX);
    }

    #[test]
    fn a_store_that_is_slow_as_a_whole_is_not_asked_twice_as_often() {
        let mut seen = seen(100);
        let mut n_second = 0;
        for _ in 0..1000 {
            seen.n_first += 1;
            n_second += u64::from(seen.hedge_delay().is_some());
            seen.n_second += u64::from(seen.hedge_delay().is_some());
        }
        assert_eq!(n_second, 1100 / N_FOR_A_SECOND);
    }
}
