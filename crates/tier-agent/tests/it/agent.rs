//! The agent's thread, with stages that only say what they were asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tier_agent::decide::AgentState;
use tier_agent::{
    AgentError, LostAndFound, NotUploaded, PersistedSnapshot, Stages, Task, TieringOutAgent,
};
use tier_evict::{EvictReport, PassGoal};
use tier_persist::PersistReport;
use tier_types::{ErrorKind, HasKind, PortError, SnapshotId, Xid};

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

/// What goes wrong, or goes on, while the stages work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    PersistPanics,
    FirstUploadFails,
    UploadsFail,
    /// Another operation is logged with each look at the state.
    WritersGoOn,
    /// Persisting waits for its stop token.
    PersistWaits,
}

struct FakeStages {
    said: Arc<Said>,
    state: AgentState,
    trouble: Trouble,
    n_looks: AtomicU64,
}

impl FakeStages {
    fn boxed(said: &Arc<Said>, trouble: Trouble) -> Box<dyn Stages> {
        let state = AgentState {
            last_xid: Xid::new(9),
            persisted_xid: Xid::new(0),
            to_upload: None,
            safe_xid: Xid::new(0),
            is_new_epoch: false,
            snapshot_wanted: None,
            eviction_wanted: None,
        };
        Box::new(Self { said: Arc::clone(said), state, trouble, n_looks: AtomicU64::new(0) })
    }

    fn say(&self, what: String) {
        self.said.0.lock().push(what);
    }
}

impl Stages for FakeStages {
    fn state(&self) -> Result<AgentState, AgentError> {
        let n_looks = self.n_looks.fetch_add(1, Ordering::Relaxed);
        let n_written = if self.trouble == Trouble::WritersGoOn { n_looks } else { 0 };
        Ok(AgentState { last_xid: Xid::new(9 + n_written), ..self.state })
    }

    fn recover(&mut self) -> Result<(), AgentError> {
        self.say("recover".into());
        Ok(())
    }

    fn persist(&mut self, stop: &AtomicBool) -> Result<Option<PersistedSnapshot>, AgentError> {
        assert!(self.trouble != Trouble::PersistPanics, "told to");
        self.say("persist".into());
        if self.trouble == Trouble::PersistWaits {
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            return Err(AgentError::Stopped);
        }
        self.state.persisted_xid = self.state()?.last_xid;
        let snapshot = SnapshotId::new(1);
        self.state.to_upload = Some(snapshot);
        Ok(Some(PersistedSnapshot { snapshot, report: PersistReport::default() }))
    }

    fn persist_lost(
        &mut self,
        _: &[SnapshotId],
        _: &AtomicBool,
    ) -> Result<LostAndFound, AgentError> {
        unreachable!("nothing is lost here")
    }

    fn take_back(&mut self, _: &[SnapshotId]) -> Result<(), AgentError> {
        Ok(())
    }

    fn forget_verified(&mut self) -> Result<(), AgentError> {
        Ok(())
    }

    fn upload(&mut self, snapshot: SnapshotId, _: &AtomicBool) -> Result<(), AgentError> {
        self.say(format!("upload {snapshot}"));
        if matches!(self.trouble, Trouble::FirstUploadFails | Trouble::UploadsFail) {
            if self.trouble == Trouble::FirstUploadFails {
                self.trouble = Trouble::None;
            }
            return Err(PortError::new(ErrorKind::Away, "the cloud is away").into());
        }
        self.state.to_upload = None;
        self.state.safe_xid = self.state.persisted_xid;
        Ok(())
    }

    fn evict(&mut self, safe: Xid, _: PassGoal, _: &AtomicBool) -> Result<EvictReport, AgentError> {
        self.say(format!("evict {safe}"));
        Ok(EvictReport::default())
    }

    fn evict_dry_run(&self, safe: Xid, _: PassGoal) -> Result<EvictReport, AgentError> {
        self.say(format!("dry run {safe}"));
        Ok(EvictReport::default())
    }
}

#[test]
fn steps_come_in_order_and_nothing_comes_unasked() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(FakeStages::boxed(&said, Trouble::None)).unwrap();
    agent.perform(Task::Evict(PassGoal::Everything), &Arc::default()).unwrap();
    let answers = [Task::Snapshot, Task::Snapshot, Task::EvictDryRun(PassGoal::Everything)]
        .map(|task| agent.submit(task, &Arc::default()).unwrap());
    agent.wait().unwrap();
    assert!(answers.iter().all(|answer| answer.recv().unwrap().is_ok()));
    agent.request_stop();
    assert!(matches!(agent.perform(Task::Snapshot, &Arc::default()), Err(AgentError::Stopped)));
    agent.join().unwrap();
    let expected = ["recover", "evict 0", "persist", "upload 1", "dry run 9"];
    assert_eq!(*said.0.lock(), expected);
}

#[test]
fn a_panic_poisons_the_handle() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(FakeStages::boxed(&said, Trouble::PersistPanics)).unwrap();
    assert!(matches!(agent.perform(Task::Snapshot, &Arc::default()), Err(AgentError::Panicked)));
    assert!(matches!(agent.wait(), Err(AgentError::Panicked)));
    assert!(matches!(agent.join(), Err(AgentError::Panicked)));
}

#[test]
fn a_snapshot_ends_although_writers_go_on() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(FakeStages::boxed(&said, Trouble::WritersGoOn)).unwrap();
    let report = agent.perform(Task::Snapshot, &Arc::default()).unwrap();
    assert_eq!(report.uploaded, [SnapshotId::new(1)]);
    assert_eq!(*said.0.lock(), ["recover", "persist", "upload 1"], "what came later waits");
}

#[test]
fn an_upload_that_failed_is_the_first_step_of_the_next_task() {
    let said = Arc::new(Said::default());
    let stages = FakeStages::boxed(&said, Trouble::FirstUploadFails);
    let agent = TieringOutAgent::start(stages).unwrap();
    let error = agent.perform(Task::Snapshot, &Arc::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Away);
    let evict = Task::Evict(PassGoal::Everything);
    let report = agent.perform(evict, &Arc::default()).unwrap();
    assert_eq!((report.persisted, report.uploaded), (None, vec![SnapshotId::new(1)]));
    let expected = ["recover", "persist", "upload 1", "upload 1", "evict 9"];
    assert_eq!(*said.0.lock(), expected, "and nothing was evicted before it");
}

#[test]
fn an_upload_that_fails_keeps_nothing_else_from_being_done() {
    let said = Arc::new(Said::default());
    let stages = FakeStages::boxed(&said, Trouble::UploadsFail);
    let agent = TieringOutAgent::start(stages).unwrap();
    let not_uploaded = |task| match agent.perform(task, &Arc::default()) {
        Err(AgentError::NotUploaded(not_uploaded)) => *not_uploaded,
        other => panic!("{other:?}"),
    };
    let NotUploaded { done, why } = not_uploaded(Task::Snapshot);
    assert_eq!(
        (done.persisted.unwrap().snapshot, why.kind()),
        (SnapshotId::new(1), ErrorKind::Away)
    );
    let NotUploaded { done, .. } = not_uploaded(Task::Evict(PassGoal::Everything));
    assert!(done.evicted.is_some() && done.uploaded.is_empty());
    let expected = ["recover", "persist", "upload 1", "upload 1", "evict 0"];
    assert_eq!(*said.0.lock(), expected, "once in each task, and only what was safe goes");
}

#[test]
fn a_task_that_is_stopped_before_its_turn_is_not_waited_for() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(FakeStages::boxed(&said, Trouble::PersistWaits)).unwrap();
    let (first, second) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let answer = agent.submit(Task::Snapshot, &first).unwrap();
    // The first one is under way and does not end; the second one is given up all the same.
    let stopped = agent.perform(Task::Snapshot, &second);
    assert!(matches!(stopped, Err(AgentError::Stopped)), "{stopped:?}");
    assert!(answer.is_empty());
    first.store(true, Ordering::Relaxed);
    assert!(matches!(answer.recv().unwrap(), Err(AgentError::Stopped)));
    agent.wait().unwrap();
    assert_eq!(*said.0.lock(), ["recover", "persist"], "the second one never began a step");
}

#[test]
fn an_agent_that_is_asked_to_stop_answers_every_task() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(FakeStages::boxed(&said, Trouble::PersistWaits)).unwrap();
    let answers = [Task::Snapshot, Task::Upload, Task::Evict(PassGoal::Everything)]
        .map(|task| agent.submit(task, &Arc::default()).unwrap());
    agent.request_stop();
    agent.wait().unwrap();
    for answer in answers {
        assert!(matches!(answer.recv().unwrap(), Err(AgentError::Stopped)));
    }
    agent.join().unwrap();
}
