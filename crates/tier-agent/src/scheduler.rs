//! The scheduler: a thread that gives each lane of the agent what is due.
//!
//! It waits for nothing that a lane does: answers come to it as events, and what is due for one
//! lane is given while the others work. It looks again when an event comes, and after a while: a
//! short one where space is low, because operations may wait for room, and a second otherwise.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use tier_persist::PersistError;
use tier_types::{ErrorKind, HasKind, MountedInstance, with_causes};

use crate::agent::Answer;
use crate::decide::Schedule;
use crate::lane_planner::LanePlanner;
use crate::task::PerLane;
use crate::threads::start_thread;
use crate::{AgentError, Lane, Task, TieringOutAgent};

/// How often the space and the backlog are measured.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same where space is low.
const LOOK_INTERVAL_LOW: Duration = Duration::from_millis(100);

/// What a scheduler is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchedulerStatus {
    /// It gives the lanes nothing until it is resumed.
    pub paused: bool,
    /// The lanes, in their order.
    pub lanes: Vec<LaneStatus>,
}

/// What a lane is doing for the schedule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneStatus {
    /// Which one.
    pub lane: Lane,
    /// What it was given and has not done yet.
    pub task: Option<Task>,
    /// Why its last task failed, if it did.
    pub last_error: Option<LaneError>,
    /// Tasks that were done.
    pub n_done: u64,
}

/// Why a task of a lane failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneError {
    /// What can be done about it.
    pub kind: ErrorKind,
    /// What failed, on which object.
    pub text: String,
    /// What becomes of it, and what to do.
    pub advice: &'static str,
}

impl LaneError {
    fn of(error: &AgentError) -> Self {
        let kind = error.kind();
        Self { kind, text: with_causes(error), advice: advice(error, kind) }
    }
}

/// What becomes of a failure, and what an operator does about it.
fn advice(error: &AgentError, kind: ErrorKind) -> &'static str {
    match (error, kind) {
        (AgentError::Fenced(_), _) => {
            "another store writes to this archive: nothing of this one is uploaded any more. Unmount \
             it, and go on with the other, or take over here (tier takeover)"
        }
        (AgentError::Panicked { .. }, _) => "a bug: it is tried again; please report it",
        // It is not the archive that is damaged; the rest is in the error itself.
        (AgentError::Persist(PersistError::TooMuchUnread { .. }), _) => {
            "it is tried again by itself; nothing of it goes up before it is whole"
        }
        (_, ErrorKind::NoSpace) => {
            "the disk is full: it is tried again as room appears; give the store a cloud, raise \
             space.capacity_bytes, or make room on its disk"
        }
        (_, ErrorKind::Damaged | ErrorKind::Missing) => {
            "something is damaged: run tier verify, and tier repair if it says so"
        }
        (_, ErrorKind::WrongKey | ErrorKind::Denied | ErrorKind::Conflict) => {
            "it is refused, and tried again seldom: see tier cloud check"
        }
        (
            _,
            ErrorKind::Away
            | ErrorKind::Throttled { .. }
            | ErrorKind::Frozen { .. }
            | ErrorKind::Busy
            | ErrorKind::Failed
            | ErrorKind::Cancelled,
        ) => "it is tried again by itself",
    }
}

/// Gives an agent's lanes what is due, until it is dropped.
#[derive(Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

enum SchedulerEvent {
    Answered(Lane, Box<Answer>),
    /// The state has changed: it was paused, resumed, or is to end.
    Changed,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    events: Sender<SchedulerEvent>,
}

#[derive(Debug)]
struct State {
    is_paused: bool,
    has_ended: bool,
    lanes: PerLane<LaneState>,
}

#[derive(Debug)]
struct LaneState {
    status: LaneStatus,
    /// The stop token of its task.
    stop: Option<Arc<AtomicBool>>,
}

impl Scheduler {
    /// Starts the thread.
    pub fn start(
        agent: Arc<TieringOutAgent>,
        schedule: Schedule,
        instance: Arc<dyn MountedInstance>,
    ) -> Result<Self, AgentError> {
        let (shared, events) = Shared::new();
        let shared = Arc::new(shared);
        let working = Arc::clone(&shared);
        let work = move || working.run(&agent, LanePlanner::new(schedule), &instance, &events);
        let thread = start_thread("tier-schedule", work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Stops what is under way at the next safe point, and begins nothing until it is resumed.
    pub fn pause(&self) {
        tracing::info!("the agent is paused");
        self.shared.pause();
    }

    /// Goes on.
    pub fn resume(&self) {
        tracing::info!("the agent goes on");
        self.shared.change(|state| state.is_paused = false);
    }

    /// What it is doing.
    pub fn status(&self) -> SchedulerStatus {
        let state = self.shared.state.lock();
        let lanes = state.lanes.iter().map(|lane| lane.status.clone());
        SchedulerStatus { paused: state.is_paused, lanes: lanes.collect() }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.has_ended = true;
            state.stop_tasks();
        });
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the scheduler's thread has panicked");
        }
    }
}

impl State {
    fn stop_tasks(&self) {
        let stops = self.lanes.iter().filter_map(|lane| lane.stop.as_ref());
        stops.for_each(|stop| stop.store(true, Ordering::Relaxed));
    }
}

impl Shared {
    fn new() -> (Self, Receiver<SchedulerEvent>) {
        let (events, received) = unbounded();
        let idle = |lane| LaneStatus { lane, task: None, last_error: None, n_done: 0 };
        let lanes = PerLane::new(|lane| LaneState { status: idle(lane), stop: None });
        let state = State { is_paused: false, has_ended: false, lanes };
        (Self { state: Mutex::new(state), events }, received)
    }

    fn run(
        &self,
        agent: &TieringOutAgent,
        mut planner: LanePlanner,
        instance: &Arc<dyn MountedInstance>,
        events: &Receiver<SchedulerEvent>,
    ) {
        // A clock that never goes back: the schedule asserts that what was begun lies in the past.
        let start = Instant::now();
        loop {
            let rest = self.look(agent, &mut planner, instance.as_ref(), start.elapsed());
            let Some(rest) = rest else { break };
            let first = events.recv_timeout(rest).ok();
            for event in first.into_iter().chain(events.try_iter()) {
                self.take(&mut planner, start.elapsed(), event);
            }
        }
        // Nothing makes room any more unasked.
        instance.expect_room(false);
        // The lanes look at their tokens, and the agent is not let go of while one works for it. A
        // task that waits behind another one's is not waited for: when its turn comes, it ends.
        while self.works_for(agent) {
            if let Ok(event) = events.recv_timeout(LOOK_INTERVAL_LOW) {
                self.take(&mut planner, start.elapsed(), event);
            }
        }
    }

    /// Whether a lane is at a task of the schedule.
    fn works_for(&self, agent: &TieringOutAgent) -> bool {
        let state = self.state.lock();
        let mut stops = state.lanes.iter().filter_map(|lane| lane.stop.as_ref());
        stops.any(|stop| agent.is_under_way(stop))
    }

    /// Gives the lanes what is due. When to look again; `None` if that is never.
    fn look(
        &self,
        agent: &TieringOutAgent,
        planner: &mut LanePlanner,
        instance: &dyn MountedInstance,
        now: Duration,
    ) -> Option<Duration> {
        {
            let state = self.state.lock();
            if state.has_ended {
                return None;
            }
            if state.is_paused {
                instance.expect_room(false);
                return Some(LOOK_INTERVAL);
            }
        }
        let usage = match instance.usage() {
            Ok(usage) => usage,
            Err(error) => {
                tracing::warn!("cannot measure the space in use: {}", with_causes(&error));
                return Some(LOOK_INTERVAL);
            }
        };
        if planner.hears_of(agent.n_ended()) {
            tracing::debug!("a task of a command ended");
        }
        for (lane, task) in planner.begin_due(now, usage) {
            self.give(agent, lane, task);
        }
        instance.expect_room(planner.room_may_come(now, usage));
        let is_low = planner.is_low(&usage);
        Some(if is_low { LOOK_INTERVAL_LOW } else { LOOK_INTERVAL })
    }

    fn give(&self, agent: &TieringOutAgent, lane: Lane, task: Task) {
        let stop = Arc::new(AtomicBool::new(false));
        {
            let mut state = self.state.lock();
            // It may have been paused since the look.
            let is_stopped = state.has_ended || state.is_paused;
            stop.store(is_stopped, Ordering::Relaxed);
            // Before the agent has the task: a pause that comes from here on finds the token.
            let state = &mut state.lanes[lane];
            assert!(state.stop.is_none(), "a lane has one task of the schedule at a time");
            state.status.task = Some(task.clone());
            state.stop = Some(Arc::clone(&stop));
        }
        let events = self.events.clone();
        // The scheduler may have ended.
        let answered =
            move |answer| drop(events.send(SchedulerEvent::Answered(lane, Box::new(answer))));
        if let Err(error) = agent.submit_with(task, &stop, Box::new(answered)) {
            drop(self.events.send(SchedulerEvent::Answered(lane, Box::new(Err(error)))));
        }
    }

    fn take(&self, planner: &mut LanePlanner, now: Duration, event: SchedulerEvent) {
        let SchedulerEvent::Answered(lane, answer) = event else { return };
        planner.ended(lane, now, &answer, by_chance());
        let mut state = self.state.lock();
        let LaneState { status, stop } = &mut state.lanes[lane];
        *stop = None;
        let task = status.task.take();
        match *answer {
            Ok(_) => {
                status.last_error = None;
                status.n_done += 1;
            }
            // A pause or a stop on request: the last error, if there was one, still tells more.
            Err(error) if error.kind() == ErrorKind::Cancelled => {
                tracing::debug!(?task, %error, "a task was stopped on request");
            }
            Err(error) => {
                let error = LaneError::of(&error);
                let rests_until = planner.rests_until(lane, now);
                let rest = rests_until.map(|until| until.saturating_sub(now));
                // Once for as long as it stays the same.
                if status.last_error.as_ref() != Some(&error) {
                    let LaneError { text, advice, .. } = &error;
                    tracing::error!(?lane, ?rest, "the agent failed: {text} ({advice})");
                }
                status.last_error = Some(error);
            }
        }
    }

    fn pause(&self) {
        self.change(|state| {
            state.is_paused = true;
            state.stop_tasks();
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        // The thread may have ended.
        let _ = self.events.send(SchedulerEvent::Changed);
    }
}

/// A number that differs from machine to machine and from time to time.
fn by_chance() -> u16 {
    let number = RandomState::new().build_hasher().finish();
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;
