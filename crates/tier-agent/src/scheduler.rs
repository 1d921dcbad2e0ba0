//! The thread that gives the agent what is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tier_types::{ErrorKind, HasKind, PortError, with_causes};

use crate::schedule::{Circumstances, Schedule, due};
use crate::{AgentError, Task, TieringOutAgent};

/// How often circumstances are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is taken, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// By the filesystem.
    pub used_bytes: u64,
    /// By the filesystem and, where it may take a whole disk, by others.
    pub taken_bytes: u64,
    /// What may be taken.
    pub capacity_bytes: u64,
}

/// What the schedule depends on.
pub trait Surroundings: Send {
    /// Operations that were logged since the last publication.
    fn backlog_operations(&self) -> u64;

    /// What is taken and what may be.
    fn space(&self) -> Result<Space, PortError>;
}

/// What a scheduler is doing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SchedulerStatus {
    /// It gives the agent nothing until it is resumed.
    pub paused: bool,
    /// What the agent was given and has not done yet.
    pub task: Option<Task>,
    /// Why the last task failed, if it did.
    pub last_error: Option<String>,
    /// Tasks that were done.
    pub n_done: u64,
}

/// Gives an agent what is due, one task at a time, until it is dropped.
#[derive(Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    status: SchedulerStatus,
    ended: bool,
    /// Stops the task that is under way.
    stop: Option<Arc<AtomicBool>>,
}

impl Scheduler {
    /// Starts the thread.
    pub fn start(
        agent: Arc<TieringOutAgent>,
        schedule: Schedule,
        surroundings: Box<dyn Surroundings>,
    ) -> Result<Self, AgentError> {
        let shared = Arc::new(Shared::default());
        let working = Arc::clone(&shared);
        let thread = thread::Builder::new().name("tier-schedule".into());
        let thread = thread.spawn(move || working.run(&agent, &schedule, surroundings.as_ref()));
        let thread = thread.map_err(|source| {
            PortError::new(ErrorKind::Failed, "cannot start the scheduler's thread")
                .with_source(source)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Stops what is under way at the next safe point, and begins nothing until it is resumed.
    pub fn pause(&self) {
        let mut state = self.shared.state.lock();
        state.status.paused = true;
        state.stop_task();
    }

    /// Goes on.
    pub fn resume(&self) {
        self.shared.state.lock().status.paused = false;
        self.shared.changed.notify_all();
    }

    /// What it is doing.
    pub fn status(&self) -> SchedulerStatus {
        self.shared.state.lock().status.clone()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state.lock();
            state.ended = true;
            state.stop_task();
        }
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn stop_task(&self) {
        if let Some(stop) = &self.stop {
            stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn run(&self, agent: &TieringOutAgent, schedule: &Schedule, surroundings: &dyn Surroundings) {
        let start = Instant::now();
        // What an earlier process left unfinished is finished first; if there is nothing, that is no
        // work.
        let mut past = Circumstances { unfinished: true, ..Circumstances::default() };
        while self.wait() {
            let space = surroundings.space().unwrap_or_else(|error| {
                tracing::warn!("cannot measure the space in use: {}", with_causes(&error));
                Space::default()
            });
            let Space { used_bytes, taken_bytes, capacity_bytes } = space;
            let now = Circumstances {
                now: start.elapsed(),
                backlog_operations: surroundings.backlog_operations(),
                used_bytes,
                taken_bytes,
                capacity_bytes,
                ..past
            };
            if !now.is_crowded(schedule) {
                past.crowded_after_eviction = false;
            }
            let Some(task) = due(schedule, &now) else { continue };
            match task {
                Task::Snapshot | Task::Secure => past.last_snapshot = Some(now.now),
                Task::Evict(_) | Task::EvictDryRun(_) => {
                    past.last_eviction = Some(now.now);
                    past.crowded_after_eviction = true;
                }
            }
            let done = self.perform(agent, task);
            if matches!(task, Task::Snapshot) {
                past.unfinished = !done;
            }
        }
    }

    /// Waits for the time to look again; false if that is never.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        if !state.ended {
            self.changed.wait_for(&mut state, LOOK_INTERVAL);
        }
        while state.status.paused && !state.ended {
            self.changed.wait(&mut state);
        }
        !state.ended
    }

    /// Whether the task was done.
    fn perform(&self, agent: &TieringOutAgent, task: Task) -> bool {
        let stop = Arc::new(AtomicBool::new(false));
        {
            let mut state = self.state.lock();
            if state.ended || state.status.paused {
                return false;
            }
            state.stop = Some(Arc::clone(&stop));
            state.status.task = Some(task);
        }
        let answer = agent.perform(task, &stop);
        let mut state = self.state.lock();
        state.stop = None;
        state.status.task = None;
        match answer {
            Ok(_) => {
                state.status.last_error = None;
                state.status.n_done += 1;
                true
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => false,
            Err(error) => {
                let text = with_causes(&error);
                tracing::error!("the agent failed, and tries again later: {text}");
                state.status.last_error = Some(text);
                false
            }
        }
    }
}
