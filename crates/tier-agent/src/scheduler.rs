//! The scheduler: a thread that gives the agent what is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tier_types::{ErrorKind, HasKind, PortError, with_causes};

use crate::decide::{Schedule, SpaceUsage};
use crate::task_planner::{Measured, TaskPlanner};
use crate::threads::start_thread;
use crate::{AgentError, Task, TieringOutAgent};

/// How often the inputs are measured.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Measures what the schedule depends on.
pub trait SchedulerInputs: Send {
    /// Operations that were logged since the last publication.
    fn backlog_operations(&self) -> u64;

    /// The space in use and its limit. While it cannot be measured nothing is evicted.
    fn space(&self) -> Result<SpaceUsage, PortError>;
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
    /// The stop token of the task under way.
    stop: Option<Arc<AtomicBool>>,
}

impl Scheduler {
    /// Starts the thread.
    pub fn start(
        agent: Arc<TieringOutAgent>,
        schedule: Schedule,
        inputs: Box<dyn SchedulerInputs>,
    ) -> Result<Self, AgentError> {
        let shared = Arc::new(Shared::default());
        let working = Arc::clone(&shared);
        let planner = TaskPlanner::new(schedule);
        let work = move || working.run(&agent, planner, inputs.as_ref());
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
        self.shared.resume();
    }

    /// What it is doing.
    pub fn status(&self) -> SchedulerStatus {
        self.shared.status()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        {
            // Let go of before the join: the thread needs the lock to record how its task ended,
            // and would wait for it for ever.
            let mut state = self.shared.state.lock();
            state.ended = true;
            state.stop_task();
        }
        // No wake-up is lost outside of the lock: the thread looks at `ended` under it before each
        // wait.
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the scheduler's thread has panicked");
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
    fn run(&self, agent: &TieringOutAgent, mut planner: TaskPlanner, inputs: &dyn SchedulerInputs) {
        // A clock that never goes back: the schedule asserts that what was begun lies in the past.
        let start = Instant::now();
        while self.wait() {
            self.look(agent, &mut planner, inputs, start.elapsed());
        }
    }

    /// Measures the inputs once, and has done what is due.
    fn look(
        &self,
        agent: &TieringOutAgent,
        planner: &mut TaskPlanner,
        inputs: &dyn SchedulerInputs,
        now: Duration,
    ) {
        let space = inputs.space().inspect_err(|error| {
            tracing::warn!("cannot measure the space in use: {}", with_causes(error));
        });
        let backlog_operations = inputs.backlog_operations();
        // Space that is not known stops evictions only, and snapshots go on.
        let measured = Measured { now, backlog_operations, space: space.ok() };
        if let Some(task) = planner.begin_due_task(&measured) {
            let done = self.perform(agent, &task);
            planner.ended(&task, done);
        }
    }

    fn pause(&self) {
        // Without a notification: a thread that sleeps looks at the flag before its next task, and
        // a task under way hears of it through its token.
        let mut state = self.state.lock();
        state.status.paused = true;
        state.stop_task();
    }

    fn resume(&self) {
        self.state.lock().status.paused = false;
        // A paused thread waits without a timeout.
        self.changed.notify_all();
    }

    fn status(&self) -> SchedulerStatus {
        self.state.lock().status.clone()
    }

    /// Waits for the time to look again; false if that is never.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        if !state.ended {
            // Once and not in a loop: a spurious wake-up costs one early look.
            self.changed.wait_for(&mut state, LOOK_INTERVAL);
        }
        while state.status.paused && !state.ended {
            self.changed.wait(&mut state);
        }
        !state.ended
    }

    /// Whether the task was done.
    fn perform(&self, agent: &TieringOutAgent, task: &Task) -> bool {
        let stop = Arc::new(AtomicBool::new(false));
        {
            let mut state = self.state.lock();
            // It may have been paused since the look.
            if state.ended || state.status.paused {
                return false;
            }
            // Before the agent has the task: a pause that comes from here on finds the token.
            state.stop = Some(Arc::clone(&stop));
            state.status.task = Some(task.clone());
        }
        // The lock is free meanwhile, or no pause could stop the task and no status show it.
        let answer = agent.perform(task.clone(), &stop);
        let mut state = self.state.lock();
        state.stop = None;
        state.status.task = None;
        match answer {
            Ok(_) => {
                state.status.last_error = None;
                state.status.n_done += 1;
                true
            }
            // A pause or a stop on request: the last error, if there was one, still tells more.
            Err(error) if error.kind() == ErrorKind::Cancelled => {
                tracing::debug!(?task, %error, "a task was stopped on request");
                false
            }
            Err(error) => {
                let text = with_causes(&error);
                tracing::error!("the agent failed, and tries again later: {text}");
                state.status.last_error = Some(text);
                false
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;
