//! Thread control, and the loop that carries out steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use parking_lot::{Condvar, Mutex};
use tier_evict::{EvictReport, PassGoal};
use tier_types::SnapshotId;

use crate::AgentError;
use crate::stages::{Persisted, Stages};
use crate::step::{AgentState, Step, next_step};

/// How often somebody who waits looks whether he still does.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Something that somebody wants done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Persist everything done so far, and make it safe.
    Snapshot,
    /// Make everything that is persisted safe.
    Secure,
    /// Free space from what is safe.
    Evict(PassGoal),
    /// Say what [`Evict`](Self::Evict) would do.
    EvictDryRun(PassGoal),
}

/// What a task came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AgentReport {
    /// The snapshot that was taken, if anything had changed.
    pub persisted: Option<Persisted>,
    /// Snapshots that became safe.
    pub secured: Vec<SnapshotId>,
    /// What was evicted.
    pub evicted: Option<EvictReport>,
}

type Answer = Result<AgentReport, AgentError>;

/// The agent's thread. Dropped, it is stopped and joined.
#[derive(Debug)]
pub struct TieringOutAgent {
    tasks: Option<Sender<Order>>,
    wish: Arc<Wish>,
    waiting: Arc<Waiting>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A task, the wish to stop it, and where its answer goes.
struct Order {
    task: Task,
    stop: Arc<AtomicBool>,
    answer: Sender<Answer>,
}

/// The wish that the thread ends.
#[derive(Debug, Default)]
struct Wish {
    to_end: AtomicBool,
    /// What stops the task that is under way.
    current: Mutex<Option<Arc<AtomicBool>>>,
}

impl Wish {
    fn end(&self) {
        self.to_end.store(true, Ordering::Relaxed);
        if let Some(stop) = self.current.lock().as_ref() {
            stop.store(true, Ordering::Relaxed);
        }
    }

    fn is_current(&self, stop: &Arc<AtomicBool>) -> bool {
        self.current.lock().as_ref().is_some_and(|current| Arc::ptr_eq(current, stop))
    }

    /// Makes a task the one that is under way, unless the thread is to end.
    fn begin(&self, stop: &Arc<AtomicBool>) -> Result<(), AgentError> {
        let mut current = self.current.lock();
        if self.to_end.load(Ordering::Relaxed) {
            return Err(AgentError::Stopped);
        }
        *current = Some(Arc::clone(stop));
        Ok(())
    }
}

/// How many tasks are not done.
#[derive(Debug, Default)]
struct Waiting {
    n_tasks: Mutex<u64>,
    changed: Condvar,
}

impl Waiting {
    fn add(&self) {
        *self.n_tasks.lock() += 1;
    }

    fn done(&self) {
        let mut n_tasks = self.n_tasks.lock();
        *n_tasks = n_tasks.saturating_sub(1);
        self.changed.notify_all();
    }
}

impl TieringOutAgent {
    /// Recovers from what a crash left, then starts the thread.
    pub fn start(mut stages: Box<dyn Stages>) -> Result<Self, AgentError> {
        stages.recover()?;
        let (tasks, queue) = unbounded();
        let wish = Arc::new(Wish::default());
        let waiting = Arc::new(Waiting::default());
        let worker = Worker { stages, wish: Arc::clone(&wish), waiting: Arc::clone(&waiting) };
        let thread = thread::Builder::new().name("tier-agent".into());
        let thread = thread.spawn(move || worker.run(&queue)).map_err(|source| {
            let message = "cannot start the agent's thread";
            tier_types::PortError::new(tier_types::ErrorKind::Failed, message).with_source(source)
        })?;
        Ok(Self { tasks: Some(tasks), wish, waiting, thread: Mutex::new(Some(thread)) })
    }

    /// Has a task done and waits for it. It stops at the next safe point when `stop` becomes true;
    /// what was done until then is not lost.
    pub fn perform(&self, task: Task, stop: &Arc<AtomicBool>) -> Answer {
        let answer = self.submit(task, stop)?;
        loop {
            match answer.recv_timeout(LOOK_INTERVAL) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => return Err(AgentError::Panicked),
                // A task that has not begun yet is not waited for; when its turn comes, it ends.
                Err(RecvTimeoutError::Timeout) => {
                    if stop.load(Ordering::Relaxed) && !self.wish.is_current(stop) {
                        return Err(AgentError::Stopped);
                    }
                }
            }
        }
    }

    /// Has a task done in the background; the answer comes through the channel.
    pub fn submit(
        &self,
        task: Task,
        stop: &Arc<AtomicBool>,
    ) -> Result<Receiver<Answer>, AgentError> {
        let (answer, receiver) = bounded(1);
        let tasks = self.tasks.as_ref().ok_or(AgentError::Stopped)?;
        self.waiting.add();
        let stop = Arc::clone(stop);
        if tasks.send(Order { task, stop, answer }).is_err() {
            self.waiting.done();
            return Err(AgentError::Panicked);
        }
        Ok(receiver)
    }

    /// Asks the thread to stop at the next safe point. What is under way is not lost.
    pub fn request_stop(&self) {
        self.wish.end();
    }

    /// Waits until every task so far is done, or the thread has ended.
    pub fn wait(&self) -> Result<(), AgentError> {
        let mut n_tasks = self.waiting.n_tasks.lock();
        while *n_tasks > 0 {
            if self.has_ended() {
                return Err(AgentError::Panicked);
            }
            // The guard against a thread that died without a word.
            self.waiting.changed.wait_for(&mut n_tasks, Duration::from_secs(1));
        }
        Ok(())
    }

    /// Waits until the thread has ended. To be asked to, see [`request_stop`](Self::request_stop);
    /// tasks that are not begun by then are answered with [`AgentError::Stopped`].
    pub fn join(mut self) -> Result<(), AgentError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), AgentError> {
        self.tasks = None;
        match self.thread.get_mut().take() {
            Some(thread) => thread.join().map_err(|_| AgentError::Panicked),
            None => Ok(()),
        }
    }

    fn has_ended(&self) -> bool {
        self.thread.lock().as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for TieringOutAgent {
    fn drop(&mut self) {
        self.request_stop();
        if let Err(error) = self.end() {
            tracing::error!(%error, "the agent ended badly");
        }
    }
}

struct Worker {
    stages: Box<dyn Stages>,
    wish: Arc<Wish>,
    waiting: Arc<Waiting>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Order>) {
        for Order { task, stop, answer } in queue {
            let done = self.wish.begin(&stop).and_then(|()| self.perform(task, &stop));
            // Nobody may be waiting for it any more.
            let _ = answer.send(done);
            self.waiting.done();
        }
    }

    fn perform(&mut self, task: Task, stop: &AtomicBool) -> Answer {
        let mut report = AgentReport::default();
        let mut wanted = self.wanted(task)?;
        loop {
            let state = self.stages.state()?;
            let state = AgentState {
                snapshot_wanted: wanted.snapshot_wanted,
                eviction_wanted: wanted.eviction_wanted,
                ..state
            };
            if let Task::EvictDryRun(goal) = task {
                report.evicted = Some(self.stages.evict_dry_run(state.safe_xid, goal)?);
                return Ok(report);
            }
            if stop.load(Ordering::Relaxed) {
                return Err(AgentError::Stopped);
            }
            match next_step(&state) {
                Step::Rest => return Ok(report),
                Step::Persist => {
                    report.persisted = self.stages.persist(stop)?;
                    // Nothing to persist after all: the wish is fulfilled.
                    if report.persisted.is_none() {
                        wanted.snapshot_wanted = None;
                    }
                }
                Step::Secure(snapshot) => {
                    self.stages.secure(snapshot, stop)?;
                    report.secured.push(snapshot);
                }
                Step::Evict { safe, goal } => {
                    report.evicted = Some(self.stages.evict(safe, goal, stop)?);
                    wanted.eviction_wanted = None;
                }
            }
        }
    }

    fn wanted(&self, task: Task) -> Result<AgentState, AgentError> {
        let state = self.stages.state()?;
        Ok(match task {
            Task::Snapshot => AgentState { snapshot_wanted: Some(state.last_xid), ..state },
            Task::Secure | Task::EvictDryRun(_) => state,
            Task::Evict(goal) => AgentState { eviction_wanted: Some(goal), ..state },
        })
    }
}
