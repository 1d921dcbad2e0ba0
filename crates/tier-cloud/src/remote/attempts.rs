//! How often a store is asked, and when it is left alone.
//!
//! A request that may succeed later is repeated after a pause that doubles, of which chance takes a
//! part, so that many machines do not come back at one moment; a store that asks for a pause is
//! left alone by all callers that long. What failed to the last attempt makes the store *away* for
//! all of them: calls fail at once, but for one at a time that finds out whether it is back.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tier_types::{Call, CallClass, ErrorKind};

use super::pace::{Pace, RateLimits};
use super::refusal::Failure;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Of one request. A reader waits for less, and asks again itself.
const N_ATTEMPTS_BULK: u32 = 6;
const N_ATTEMPTS_INTERACTIVE: u32 = 3;
/// A store that is away is asked again after so long.
const AWAY_MIN: Duration = Duration::from_millis(500);
const AWAY_MAX: Duration = Duration::from_secs(8);
/// A store that lets a reader wait so long for the beginning of an answer is away.
const READER_TIME: Duration = Duration::from_secs(10);
const HANGS: &str = "it does not answer in time";
/// How often a caller looks whether it is still wanted.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Whether the store answers, as far as all callers know.
#[derive(Debug)]
pub(super) struct Attempts {
    /// The store, as logs name it.
    place: String,
    state: Mutex<State>,
    pace: Pace,
}

#[derive(Debug, Default)]
struct State {
    away: Option<Away>,
    /// The store asked to be left alone until then.
    resting_until: Option<Instant>,
    answered_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Away {
    since: Instant,
    /// The next call after this moment is let through.
    asked_again_at: Instant,
    pause: Duration,
    reason: String,
}

impl Attempts {
    pub(super) fn new(place: String) -> Self {
        Self { place, state: Mutex::default(), pace: Pace::default() }
    }

    pub(super) fn limit(&mut self, limits: RateLimits) {
        self.pace = Pace::new(limits);
    }

    /// Books bytes of content, and waits for those that were booked before them.
    pub(super) async fn pace(&self, call: &Call<'_>, bytes: u64) -> Result<(), Failure> {
        wait_until(call, self.pace.bytes(call.class(), bytes, Instant::now())).await
    }

    /// Whether bytes have to wait for each other.
    pub(super) fn is_paced(&self, call: &Call<'_>) -> bool {
        call.class() == CallClass::Bulk && self.pace.limits_bytes()
    }

    /// Runs a request until it succeeds, or cannot, or has been tried often enough.
    pub(super) async fn run<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        call: &Call<'_>,
        mut request: impl FnMut() -> F,
    ) -> Result<T, Failure> {
        let is_probe = self.admit()?;
        let mut n_attempts = match (is_probe, call.class()) {
            // One question tells whether it is back.
            (true, _) => 1,
            (false, CallClass::Interactive) => N_ATTEMPTS_INTERACTIVE,
            (false, CallClass::Bulk) => N_ATTEMPTS_BULK,
        };
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            self.rest(call).await?;
            let began = Instant::now();
            let answer = match call.class() {
                CallClass::Bulk => while_wanted(call, request()).await,
                CallClass::Interactive => {
                    let answer = tokio::time::timeout(READER_TIME, while_wanted(call, request()));
                    let hangs = Failure::new(ErrorKind::Away, HANGS);
                    match answer.await {
                        Ok(answer) => answer,
                        // It is one connection, or one server of many.
                        Err(_) if self.has_answered_since(began) => {
                            n_attempts = n_attempts.min(attempt + 1);
                            Err(hangs)
                        }
                        Err(_) => {
                            // Others would wait as long, and to no avail.
                            self.note_away(is_probe, HANGS);
                            return Err(hangs);
                        }
                    }
                }
            };
            let failure = match answer {
                Ok(answer) => {
                    self.note_answer();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if given_up(call).is_some() {
                return Err(failure);
            }
            if failure.is_answered {
                self.note_answer();
            }
            if !failure.may_pass() {
                return Err(failure);
            }
            if let ErrorKind::Throttled { after: Some(after) } = failure.kind {
                self.state.lock().resting_until =
                    Some(Instant::now() + after.min(LONGEST_PAUSE * 6));
            }
            if attempt >= n_attempts {
                if !failure.is_answered && !self.has_answered_since(began) {
                    self.note_away(is_probe, &failure.text);
                }
                return Err(failure);
            }
            tracing::debug!(attempt, error = failure.text, "a request to the cloud is repeated");
            while_wanted(call, async {
                tokio::time::sleep(some_of(pause)).await;
                Ok(())
            })
            .await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        unreachable!("the last attempt returns")
    }

    /// Runs a request once: its caller compares before it is repeated.
    pub(super) async fn run_once<T>(
        &self,
        call: &Call<'_>,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let is_probe = self.admit()?;
        self.rest(call).await?;
        let answer = while_wanted(call, request).await;
        match &answer {
            // Its caller did not wait for the answer.
            Err(_) if given_up(call).is_some() => {}
            Err(failure) if !failure.is_answered => {
                if failure.kind == ErrorKind::Away {
                    self.note_away(is_probe, &failure.text);
                }
            }
            _ => self.note_answer(),
        }
        answer
    }

    /// Whether the store is away as far as is known. Then a call that sends several requests sends
    /// one first, which finds out.
    pub(super) fn is_away(&self) -> bool {
        self.state.lock().away.is_some()
    }

    /// Whether a request is to find out if the store is back. An error if it is away, and another
    /// call finds that out.
    fn admit(&self) -> Result<bool, Failure> {
        let mut state = self.state.lock();
        let Some(away) = &mut state.away else { return Ok(false) };
        let now = Instant::now();
        if now >= away.asked_again_at {
            // Others wait for the answer to this one, or for its end.
            away.asked_again_at = now + away.pause;
            return Ok(true);
        }
        let (since, again) = (now - away.since, away.asked_again_at - now);
        let text = format!(
            "it is away since {} s, and asked again in {} s: {}",
            since.as_secs(),
            again.as_secs() + 1,
            away.reason
        );
        Err(Failure::new(ErrorKind::Away, text))
    }

    fn has_answered_since(&self, began: Instant) -> bool {
        self.state.lock().answered_at.is_some_and(|answered_at| answered_at > began)
    }

    fn note_answer(&self) {
        let mut state = self.state.lock();
        state.answered_at = Some(Instant::now());
        if let Some(away) = state.away.take() {
            let seconds = away.since.elapsed().as_secs();
            tracing::info!(seconds, "{} is back", self.place);
        }
    }

    fn note_away(&self, is_probe: bool, reason: &str) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let (since, pause) = match &state.away {
            Some(away) if is_probe => (away.since, (away.pause * 2).min(AWAY_MAX)),
            // One of many that were on their way together.
            Some(_) => return,
            None => {
                tracing::warn!("{} is away: {reason}", self.place);
                (now, AWAY_MIN)
            }
        };
        let asked_again_at = now + some_of(pause);
        state.away = Some(Away { since, asked_again_at, pause, reason: reason.to_owned() });
    }

    /// Waits as long as the store asked for, and as the limits want it.
    async fn rest(&self, call: &Call<'_>) -> Result<(), Failure> {
        let until = self.state.lock().resting_until;
        wait_until(call, until.filter(|until| *until > Instant::now())).await?;
        wait_until(call, self.pace.request(call.class(), Instant::now())).await
    }
}

async fn wait_until(call: &Call<'_>, until: Option<Instant>) -> Result<(), Failure> {
    let Some(until) = until else { return Ok(()) };
    while_wanted(call, async {
        tokio::time::sleep_until(until.into()).await;
        Ok(())
    })
    .await
}

/// From a half to all of a pause.
fn some_of(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    // Without chance the whole of it is as good for one machine.
    let share = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty());
    let share = share.map_or(255, |_| u32::from(byte[0]));
    pause / 2 + pause * share / 510
}

/// The failure of a call that is not wanted any more, or is late.
fn given_up(call: &Call<'_>) -> Option<Failure> {
    let error = call.check(&"it").err()?;
    let is_cancelled = error.kind() == ErrorKind::Cancelled;
    let text = if is_cancelled { "it was cancelled" } else { "it takes too long" };
    Some(Failure::new(error.kind(), text))
}

/// Waits for an answer as long as it is wanted.
pub(super) async fn while_wanted<T>(
    call: &Call<'_>,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    if let Some(failure) = given_up(call) {
        return Err(failure);
    }
    let watch = async {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            if let Some(failure) = given_up(call) {
                return failure;
            }
        }
    };
    match select(pin!(answer), pin!(watch)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((failure, _)) => Err(failure),
    }
}
