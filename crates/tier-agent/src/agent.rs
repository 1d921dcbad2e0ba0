//! The agent: one thread, a queue of requests, and the step loop that carries them out.
//!
//! **One thread.** Persisting, uploading and evicting change the same archive, index and status
//! logs. They are done by one thread, one request at a time in the order in which they came, so
//! that no stage needs to know what another one is in the middle of. Recalls are not among them:
//! they have threads of their own (`recaller.rs`), because readers wait for them.
//!
//! **The loop.** A request is a [`Task`]. The loop asks the stages how far everything has got, adds
//! what the task wants, asks [`next_step`] what comes next, carries that out, and asks again, until
//! nothing is left to do. It remembers no progress of its own. How far things have got is what is
//! durable: manifests and status logs. A restart after a crash and the next turn of the loop are
//! therefore the same thing, and a task that failed half way is finished by whichever task comes
//! next.
//!
//! **Why it ends.** What is wanted is fixed when the task begins: a snapshot up to the last
//! transaction of that moment, one eviction. Each step then makes the state smaller: a persisted
//! snapshot covers the wanted transaction (or there was nothing to persist, and the want is
//! dropped), an upload takes the oldest snapshot off those to be uploaded, an eviction is done
//! once. Writers that go on meanwhile change what the next task finds, not what this one waits for.
//!
//! **Order.** A snapshot is uploaded and verified before another one is persisted, and both before
//! anything is evicted. What an eviction may touch is the state's `safe_xid`, which only a verified
//! upload raises. An upload that fails ends neither: what changed is persisted here, what was safe is
//! evicted, and the error comes at the end of the task, with what was done.
//!
//! **Stopping.** Every request has a stop token, which its caller may set; [`request_stop`] sets
//! that of the request under way and lets no other begin. Tokens are looked at between steps, and
//! by the stages at their safe points. A request that is stopped before it began is not waited for.
//!
//! **Panics.** A panic in a stage ends the thread. The request's answer channel closes with it, the
//! pending count is told while the thread unwinds, and every later request finds the queue closed:
//! each caller gets [`AgentError::Panicked`], and none waits for ever. Nothing can be said of what
//! the stage left in memory, so that the thread is not started again; a restart recovers.
//!
//! [`request_stop`]: TieringOutAgent::request_stop

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use tier_evict::PassGoal;
use tier_types::{ErrorKind, HasKind, Xid, with_causes};

use crate::decide::{AgentState, AgentStep, next_step};
use crate::error::NotUploaded;
use crate::report::AgentReport;
use crate::stages::{LostAndFound, Stages};
use crate::thread_control::{PendingCount, StopFlag};
use crate::threads::start_thread;
use crate::{AgentError, Task};

/// How often a caller that waits for an answer looks at its stop token.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

type Answer = Result<AgentReport, AgentError>;

/// The agent's thread. Dropped, it is stopped and joined.
#[derive(Debug)]
pub struct TieringOutAgent {
    /// None when the thread is to end once the queue is empty.
    requests: Option<Sender<Request>>,
    stop_flag: Arc<StopFlag>,
    pending: Arc<PendingCount>,
    thread: Option<JoinHandle<()>>,
}

/// A task, its stop token, and where its answer goes.
struct Request {
    task: Task,
    stop: Arc<AtomicBool>,
    answer: Sender<Answer>,
}

impl TieringOutAgent {
    /// Recovers from what a crash left, then starts the thread.
    pub fn start(mut stages: Box<dyn Stages>) -> Result<Self, AgentError> {
        // Before the queue exists: no task sees a state that a crash left, and the caller of
        // `start` gets the error.
        stages.recover()?;
        // Unbounded: a caller that submits must not wait behind a snapshot that takes hours, and a
        // request is a few words in memory.
        let (requests, queue) = unbounded();
        let stop_flag = Arc::new(StopFlag::default());
        let pending = Arc::new(PendingCount::default());
        let worker =
            Worker { stages, stop_flag: Arc::clone(&stop_flag), pending: Arc::clone(&pending) };
        let thread = start_thread("tier-agent", move || worker.run(&queue))?;
        Ok(Self { requests: Some(requests), stop_flag, pending, thread: Some(thread) })
    }

    /// Has a task done and waits for it. It stops at the next safe point when `stop` becomes true;
    /// what was done until then is not lost.
    pub fn perform(&self, task: Task, stop: &Arc<AtomicBool>) -> Answer {
        let answer = self.submit(task, stop)?;
        loop {
            match answer.recv_timeout(LOOK_INTERVAL) {
                Ok(answer) => return answer,
                // A request holds its answer's sender, and only a thread that unwinds drops it
                // unanswered.
                Err(RecvTimeoutError::Disconnected) => return Err(AgentError::Panicked),
                // A task that has not begun yet is not waited for; when its turn comes, it ends.
                Err(RecvTimeoutError::Timeout) => {
                    if stop.load(Ordering::Relaxed) && !self.stop_flag.is_current(stop) {
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
        let (answer, receiver) = bounded(1);
        let requests = self.requests.as_ref().ok_or(AgentError::Stopped)?;
        // Before it is sent: the thread may be done with it before this function returns.
        self.pending.add();
        let stop = Arc::clone(stop);
        // While the sender exists the queue is closed only by a thread that unwound.
        if requests.send(Request { task, stop, answer }).is_err() {
            self.pending.done();
            return Err(AgentError::Panicked);
        }
        Ok(receiver)
    }

    /// Asks the thread to stop at the next safe point. What is under way is not lost.
    pub fn request_stop(&self) {
        self.stop_flag.raise();
    }

    /// Waits until every task so far is done, or the thread has ended.
    pub fn wait(&self) -> Result<(), AgentError> {
        if self.pending.wait() { Ok(()) } else { Err(AgentError::Panicked) }
    }

    /// Waits until the thread has ended. To be asked to, see [`request_stop`](Self::request_stop);
    /// tasks that are not begun by then are answered with [`AgentError::Stopped`].
    pub fn join(mut self) -> Result<(), AgentError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), AgentError> {
        // The thread's loop ends behind what is queued already, so that each request gets its
        // answer.
        self.requests = None;
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| AgentError::Panicked),
            None => Ok(()),
        }
    }
}

impl Drop for TieringOutAgent {
    fn drop(&mut self) {
        // Without it the join below would wait for all that is queued.
        self.request_stop();
        // Logged and not raised: a panic out of a drop while another one unwinds aborts the
        // process.
        if let Err(error) = self.end() {
            tracing::error!(%error, "the agent ended badly");
        }
    }
}

/// The thread's side. Dropped, also while a panic unwinds, it says that the thread has ended.
struct Worker {
    stages: Box<dyn Stages>,
    stop_flag: Arc<StopFlag>,
    pending: Arc<PendingCount>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.pending.thread_ended();
    }
}

/// What a task wants, fixed when it begins.
#[derive(Default)]
struct Wanted {
    snapshot: Option<Xid>,
    eviction: Option<PassGoal>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Request>) {
        for Request { task, stop, answer } in queue {
            // Decided under the flag's lock: a stop that is raised now either refuses this request
            // or finds its token.
            let done = if self.stop_flag.begin(&stop) {
                self.perform(task, &stop)
            } else {
                tracing::debug!(?task, "a task is not begun, because the agent is to end");
                Err(AgentError::Stopped)
            };
            // The caller may have gone away.
            let _ = answer.send(done);
            // After the answer: a caller that waited for all requests finds each answer in its
            // channel.
            self.pending.done();
        }
    }

    fn perform(&mut self, task: Task, stop: &AtomicBool) -> Answer {
        let mut wanted = Wanted::default();
        match task {
            Task::Snapshot => wanted.snapshot = Some(self.stages.state()?.last_xid),
            // What is persisted and not safe comes first whatever is wanted, so that nothing is set
            // here.
            Task::Upload => {}
            Task::UploadAll => self.stages.forget_verified()?,
            Task::TakeBack(snapshots) => {
                self.stages.take_back(&snapshots)?;
                return Ok(AgentReport::default());
            }
            Task::PersistLost(snapshots) => {
                let LostAndFound { lost, found } = self.stages.persist_lost(&snapshots, stop)?;
                let report = AgentReport::default();
                return Ok(AgentReport { persisted_again: lost, found_again: found, ..report });
            }
            Task::Evict(goal) => wanted.eviction = Some(goal),
            Task::EvictDryRun(goal) => return self.evict_dry_run(goal),
        }
        self.perform_steps(wanted, stop)
    }

    fn perform_steps(&mut self, mut wanted: Wanted, stop: &AtomicBool) -> Answer {
        let mut report = AgentReport::default();
        let mut not_uploaded = None;
        loop {
            let state = self.stages.state()?;
            let state = AgentState {
                snapshot_wanted: wanted.snapshot,
                eviction_wanted: wanted.eviction,
                // Once in a task: what is away now is away for the next snapshot as well.
                to_upload: state.to_upload.filter(|_| not_uploaded.is_none()),
                ..state
            };
            // Nothing is half done here; within a step its stage looks at the same token.
            if stop.load(Ordering::Relaxed) {
                return Err(AgentError::Stopped);
            }
            let step = next_step(&state);
            tracing::debug!(?step, ?state, "next step");
            match step {
                AgentStep::Rest => {
                    return match not_uploaded {
                        Some(why) => {
                            let not_uploaded = NotUploaded { done: report, why };
                            Err(AgentError::NotUploaded(Box::new(not_uploaded)))
                        }
                        None => Ok(report),
                    };
                }
                AgentStep::Persist => {
                    report.persisted = self.stages.persist(stop)?;
                    // Nothing to persist after all: what was wanted is there.
                    if report.persisted.is_none() {
                        wanted.snapshot = None;
                    }
                }
                AgentStep::Upload(snapshot) => match self.stages.upload(snapshot, stop) {
                    Ok(()) => report.uploaded.push(snapshot),
                    Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                    Err(error) => {
                        tracing::warn!(%snapshot, "not uploaded: {}", with_causes(&error));
                        not_uploaded = Some(error);
                    }
                },
                AgentStep::Evict { safe, goal } => {
                    report.evicted = Some(self.stages.evict(safe, goal, stop)?);
                    // Once, whatever it freed: whether space is still low is for the schedule to
                    // ask.
                    wanted.eviction = None;
                }
            }
        }
    }

    fn evict_dry_run(&self, goal: PassGoal) -> Answer {
        // Not by the step loop, which would first upload what is persisted and not safe.
        let safe = self.stages.state()?.safe_xid;
        let evicted = Some(self.stages.evict_dry_run(safe, goal)?);
        Ok(AgentReport { evicted, ..AgentReport::default() })
    }
}
