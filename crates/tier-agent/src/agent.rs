//! The agent: its lanes, each a thread with a queue of requests, and the way of a request through
//! them.
//!
//! **Lanes.** Work of one kind is done by one thread, one request at a time in the order in which
//! they came: persisting, uploading and evicting. None of them waits for another's failure: a cloud
//! that is away holds up neither local snapshots nor the eviction of what is safe. Recalls are not
//! among them: they have threads of their own (`recaller.rs`), because readers wait for them. What
//! lanes must not do at a time is settled by the stages.
//!
//! **The way.** A request is a [`Task`], which goes through one lane or two. Done in the first one
//! it is handed on with what came of it so far, and answered by the last.
//!
//! **Steps.** A lane asks the stages how far everything has got, does the next step, and asks
//! again, until nothing of the task is left for it. It remembers no progress of its own. How far
//! things have got is what is durable: manifests and status logs. A restart after a crash and the
//! next turn of the loop are therefore the same thing, and a task that failed half way is finished
//! by whichever task comes next.
//!
//! **Why it ends.** What is wanted is fixed when the task begins: a snapshot up to the last
//! transaction of that moment, the snapshots that are persisted, one eviction. Each step then makes
//! the state smaller. Writers that go on meanwhile change what the next task finds, not what this
//! one waits for.
//!
//! **Order.** What an eviction may touch is the state's `safe_xid`, which only a verified upload
//! raises. An upload that fails ends no task: what was safe is evicted all the same, and the error
//! comes at the end, with what was done. Where space is low, a snapshot of several parts has each
//! of them uploaded and evicted before it goes on with the next: a part finds room because the one
//! before it has gone.
//!
//! **Stopping.** Every request has a stop token, which its caller may set; [`request_stop`] sets
//! those of the requests under way and lets no other begin. Tokens are looked at between steps, and
//! by the stages at their safe points. A request that is stopped before it began is not waited for.
//!
//! **Panics.** A panic in a stage fails its request, and is a bug that the error tells. The lane
//! goes on with the next one: what counts is durable, and is read again.
//!
//! [`request_stop`]: TieringOutAgent::request_stop

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use tier_types::{ErrorKind, HasKind, with_causes};

use crate::decide::is_to_persist;
use crate::error::NotUploaded;
use crate::report::AgentReport;
use crate::stages::{LostAndFound, Stages, Uploaded};
use crate::task::{Lane, PerLane};
use crate::thread_control::{Pending, PendingCount, StopFlag};
use crate::threads::{panic_text, start_thread};
use crate::{AgentError, SpaceGoal, Task};

/// How often a caller that waits for an answer looks at its stop token.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a task came to.
pub type Answer = Result<AgentReport, AgentError>;

/// The agent's lanes. Dropped, they are stopped and joined.
#[derive(Debug)]
pub struct TieringOutAgent {
    /// None when the threads are to end once their queues are empty.
    queues: Option<Queues>,
    stop_flags: PerLane<Arc<StopFlag>>,
    pending: Arc<PendingCount>,
    /// Tasks that were submitted, and ended.
    n_ended: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// The ways into the lanes that come behind one another, the first one first.
#[derive(Clone, Debug)]
struct Queues {
    lanes: Vec<(Lane, Sender<Request>)>,
    pending: Arc<PendingCount>,
}

/// A task on its way, its stop token, and where its answer goes.
struct Request {
    task: Task,
    stop: Arc<AtomicBool>,
    answer: Box<dyn FnOnce(Answer) + Send>,
    so_far: SoFar,
    _pending: Pending,
}

/// What lanes have made of a request.
#[derive(Default)]
struct SoFar {
    report: AgentReport,
    not_uploaded: Option<AgentError>,
}

impl TieringOutAgent {
    /// Recovers from what a crash left, then starts the threads.
    pub fn start(stages: &Arc<dyn Stages>) -> Result<Self, AgentError> {
        // Before a queue exists: no task sees a state that a crash left, and the caller of `start`
        // gets the error.
        stages.recover()?;
        let pending = Arc::new(PendingCount::default());
        let mut queues = Queues { lanes: Vec::new(), pending: Arc::clone(&pending) };
        let stop_flags = PerLane::default();
        let n_ended = Arc::default();
        let mut agent = Self { queues: None, stop_flags, pending, n_ended, threads: Vec::new() };
        // The last lane first: each has the ways into those behind it. A thread that does not start
        // drops the agent, which ends those that did.
        for lane in Lane::ALL.into_iter().rev() {
            // Unbounded: a caller that submits must not wait behind a snapshot that takes hours,
            // and a request is a few words in memory.
            let (requests, queue) = unbounded();
            let worker = Worker {
                lane,
                stages: Arc::clone(stages),
                stop_flag: Arc::clone(&agent.stop_flags[lane]),
                behind: queues.clone(),
            };
            let name = format!("tier-{}", lane.name());
            agent.threads.push(start_thread(&name, move || worker.run(&queue))?);
            queues.lanes.insert(0, (lane, requests));
        }
        agent.queues = Some(queues);
        Ok(agent)
    }

    /// Has a task done and waits for it. It stops at the next safe point when `stop` becomes true;
    /// what was done until then is not lost.
    pub fn perform(&self, task: Task, stop: &Arc<AtomicBool>) -> Answer {
        let answer = self.submit(task, stop)?;
        loop {
            match answer.recv_timeout(LOOK_INTERVAL) {
                Ok(answer) => return answer,
                // Only a request that no lane takes any more is dropped unanswered.
                Err(RecvTimeoutError::Disconnected) => return Err(AgentError::Stopped),
                // A task that has not begun yet is not waited for; when its turn comes, it ends.
                Err(RecvTimeoutError::Timeout) => {
                    if stop.load(Ordering::Relaxed) && !self.is_under_way(stop) {
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
        // Room for the one answer: the thread never waits for a caller that does not listen.
        let (sender, receiver) = bounded(1);
        let n_ended = Arc::clone(&self.n_ended);
        let answered = move |answer| {
            n_ended.fetch_add(1, Ordering::Relaxed);
            // The caller may have gone away.
            drop(sender.send(answer));
        };
        self.submit_with(task, stop, Box::new(answered))?;
        Ok(receiver)
    }

    /// Tasks that were submitted, and ended: not those whose answer a function was given. What they
    /// left undone is due for a schedule.
    pub(crate) fn n_ended(&self) -> u64 {
        self.n_ended.load(Ordering::Relaxed)
    }

    /// The same with a function that is given the answer, on a lane's thread. It must not block.
    pub fn submit_with(
        &self,
        task: Task,
        stop: &Arc<AtomicBool>,
        answer: Box<dyn FnOnce(Answer) + Send>,
    ) -> Result<(), AgentError> {
        self.queues()?.submit_with(task, stop, answer)
    }

    fn queues(&self) -> Result<&Queues, AgentError> {
        self.queues.as_ref().ok_or(AgentError::Stopped)
    }

    /// Whether a task with this token is under way, and not only queued.
    pub(crate) fn is_under_way(&self, stop: &Arc<AtomicBool>) -> bool {
        self.stop_flags.iter().any(|flag| flag.is_current(stop))
    }

    /// Asks the threads to stop at the next safe point. What is under way is not lost.
    pub fn request_stop(&self) {
        self.stop_flags.iter().for_each(|flag| flag.raise());
    }

    /// Waits until every task so far is done.
    pub fn wait(&self) {
        self.pending.wait();
    }

    /// Waits until the threads have ended. To be asked to, see
    /// [`request_stop`](Self::request_stop); tasks that are not begun by then are answered with
    /// [`AgentError::Stopped`].
    pub fn join(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Each thread's loop ends behind what is queued already, so that each request gets its
        // answer; the last one ends when those before it have.
        self.queues = None;
        for thread in self.threads.drain(..) {
            // Logged and not raised: a panic out of a drop while another one unwinds aborts the
            // process.
            if thread.join().is_err() {
                tracing::error!("a thread of the agent has panicked");
            }
        }
    }
}

impl Drop for TieringOutAgent {
    fn drop(&mut self) {
        // Without it the join below would wait for all that is queued.
        self.request_stop();
        self.end();
    }
}

impl Queues {
    /// Gives a task to the first lane of its route; the answer comes through the channel.
    fn submit(&self, task: Task, stop: &Arc<AtomicBool>) -> Result<Receiver<Answer>, AgentError> {
        // Room for the one answer: the thread never waits for a caller that does not listen.
        let (sender, receiver) = bounded(1);
        // The caller may have gone away.
        self.submit_with(task, stop, Box::new(move |answer| drop(sender.send(answer))))?;
        Ok(receiver)
    }

    fn submit_with(
        &self,
        task: Task,
        stop: &Arc<AtomicBool>,
        answer: Box<dyn FnOnce(Answer) + Send>,
    ) -> Result<(), AgentError> {
        let stop = Arc::clone(stop);
        let (so_far, pending) = (SoFar::default(), self.pending.add());
        self.send(Request { task, stop, answer, so_far, _pending: pending })
    }

    /// Hands a request to the next lane of its task.
    fn send(&self, request: Request) -> Result<(), AgentError> {
        let is_next = |(lane, _): &&(Lane, _)| request.task.route().contains(lane);
        let (_, queue) = self.lanes.iter().find(is_next).ok_or(AgentError::Stopped)?;
        // A queue is open as long as a lane before it has a way into it.
        queue.send(request).map_err(|_| AgentError::Stopped)
    }
}

/// The side of a lane's thread.
struct Worker {
    lane: Lane,
    stages: Arc<dyn Stages>,
    stop_flag: Arc<StopFlag>,
    /// The ways into the lanes behind this one.
    behind: Queues,
}

impl Worker {
    fn run(self, queue: &Receiver<Request>) {
        for mut request in queue {
            // Decided under the flag's lock: a stop that is raised now either refuses this request
            // or finds its token.
            let done = if self.stop_flag.begin(&request.stop) {
                self.perform_caught(&mut request)
            } else {
                let (lane, task) = (self.lane, &request.task);
                tracing::debug!(?lane, ?task, "a task is not begun, because the agent is to end");
                Err(AgentError::Stopped)
            };
            self.hand_on(request, done);
        }
    }

    /// Hands a request to its next lane, or answers it.
    fn hand_on(&self, request: Request, done: Result<(), AgentError>) {
        assert!(request.task.route().contains(&self.lane), "a request comes by its own lanes");
        let is_done = request.task.lane_after(self.lane).is_none();
        match done {
            Ok(()) if !is_done => {
                if self.behind.send(request).is_err() {
                    tracing::debug!(lane = ?self.lane, "no lane takes a request any more");
                }
            }
            Ok(()) => {
                let SoFar { report, not_uploaded } = request.so_far;
                (request.answer)(match not_uploaded {
                    None => Ok(report),
                    Some(why) => {
                        let not_uploaded = NotUploaded { done: report, why };
                        Err(AgentError::NotUploaded(Box::new(not_uploaded)))
                    }
                });
            }
            Err(error) => (request.answer)(Err(error)),
        }
    }

    fn perform_caught(&self, request: &mut Request) -> Result<(), AgentError> {
        let Request { task, stop, so_far, .. } = request;
        // What a stage has in memory it finds out again; locks are given back while it unwinds.
        let done = catch_unwind(AssertUnwindSafe(|| self.perform(task, stop, so_far)));
        done.unwrap_or_else(|panic| {
            let text = panic_text(panic.as_ref());
            tracing::error!(lane = ?self.lane, ?task, "a stage panicked: {text}");
            Err(AgentError::Panicked { lane: self.lane.name(), text })
        })
    }

    fn perform(
        &self,
        task: &Task,
        stop: &Arc<AtomicBool>,
        so_far: &mut SoFar,
    ) -> Result<(), AgentError> {
        let report = &mut so_far.report;
        match (self.lane, task) {
            (Lane::Persist, Task::PersistLost(snapshots)) => {
                let LostAndFound { lost, found } = self.stages.persist_lost(snapshots, stop)?;
                (report.persisted_again, report.found_again) = (lost, found);
                Ok(())
            }
            (Lane::Persist, _) => self.persist(stop, report),
            (Lane::Upload, Task::TakeBack(snapshots)) => self.stages.take_back(snapshots),
            (Lane::Upload, _) => {
                if matches!(task, Task::UploadAll) {
                    self.stages.forget_verified()?;
                }
                so_far.not_uploaded = self.upload(stop, report)?;
                Ok(())
            }
            (Lane::Evict, Task::Evict(goal)) => self.evict(Some(*goal), stop, report),
            (Lane::Evict, Task::EvictDryRun(goal)) => {
                report.evicted = Some(self.stages.evict_dry_run(*goal, stop)?);
                Ok(())
            }
            (Lane::Evict, _) => self.evict(None, stop, report),
        }
    }

    /// Persists all that was logged by now.
    fn persist(&self, stop: &Arc<AtomicBool>, report: &mut AgentReport) -> Result<(), AgentError> {
        let wanted = self.stages.state()?.last_xid;
        loop {
            let state = self.stages.state()?;
            // Nothing is half done here; within a step its stage looks at the same token.
            check_stop(stop)?;
            if !is_to_persist(&state, wanted) {
                return Ok(());
            }
            tracing::debug!(?state, "next step: persist");
            let Some(persisted) = self.stages.persist(stop)? else { return Ok(()) };
            let is_complete = persisted.report.covered.is_none();
            report.persisted = Some(persisted);
            if !is_complete {
                self.go_on_with_part(stop)?;
            }
        }
    }

    /// Has a part uploaded while the next one is persisted. Where space is low the next one waits
    /// until this one is uploaded and evicted, and so finds room; what fails of it that one tells,
    /// if it finds none.
    fn go_on_with_part(&self, stop: &Arc<AtomicBool>) -> Result<(), AgentError> {
        if !self.stages.is_low_on_space()? {
            self.behind.submit(Task::Upload, stop)?;
            return Ok(());
        }
        for task in [Task::Upload, Task::MakeRoom] {
            let answered = self.behind.submit(task, stop)?;
            let answer = loop {
                match answered.recv_timeout(LOOK_INTERVAL) {
                    // The other lane may be at another task for long.
                    Err(RecvTimeoutError::Timeout) => check_stop(stop)?,
                    // It is dropped unanswered if the agent is to end.
                    Err(RecvTimeoutError::Disconnected) => break None,
                    Ok(answer) => break answer.err(),
                }
            };
            if let Some(error) = answer {
                tracing::info!("no room is made for the next part: {}", with_causes(&error));
            }
        }
        Ok(())
    }

    /// Uploads all that is persisted; the error that ended it, unless it is a stop.
    fn upload(
        &self,
        stop: &AtomicBool,
        report: &mut AgentReport,
    ) -> Result<Option<AgentError>, AgentError> {
        let mut last = self.stages.last_snapshot()?;
        loop {
            let state = self.stages.state()?;
            check_stop(stop)?;
            // What is persisted meanwhile is the next task's.
            let Some(snapshot) = state.to_upload.filter(|next| Some(*next) <= last) else {
                return Ok(None);
            };
            tracing::debug!(?state, "next step: upload");
            match self.stages.upload(snapshot, stop) {
                Ok(Uploaded { made_up_for_by }) => {
                    report.uploaded.push(snapshot);
                    // It is safe when that is.
                    last = last.max(made_up_for_by);
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                // Once in a task: what is away now is away for the next snapshot as well.
                Err(error) => {
                    tracing::warn!(%snapshot, "not uploaded: {}", with_causes(&error));
                    return Ok(Some(error));
                }
            }
        }
    }

    /// Evicts once, whatever that frees: whether space is still low is for the schedule to ask.
    fn evict(
        &self,
        goal: Option<SpaceGoal>,
        stop: &AtomicBool,
        report: &mut AgentReport,
    ) -> Result<(), AgentError> {
        check_stop(stop)?;
        report.evicted = match goal {
            Some(goal) => Some(self.stages.evict(goal, stop)?),
            None => self.stages.make_room(stop)?,
        };
        Ok(())
    }
}

fn check_stop(stop: &AtomicBool) -> Result<(), AgentError> {
    if stop.load(Ordering::Relaxed) { Err(AgentError::Stopped) } else { Ok(()) }
}
