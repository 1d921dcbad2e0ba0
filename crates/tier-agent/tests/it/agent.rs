//! The agent's thread, with stages that only say what they were asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tier_agent::decide::AgentState;
use tier_agent::{
    AgentError, LostAndFound, NotUploaded, PersistedSnapshot, SpaceGoal, Stages, Task,
    TieringOutAgent, Uploaded,
};
use tier_evict::EvictReport;
use tier_persist::PersistReport;
use tier_types::{ErrorKind, HasKind, Ino, PortError, SnapshotId, Xid};

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
    /// Uploading waits for its stop token.
    UploadsHang,
}

struct FakeStages {
    said: Arc<Said>,
    state: Mutex<AgentState>,
    trouble: Mutex<Trouble>,
    n_looks: AtomicU64,
    /// Parts that a snapshot has behind the first one.
    n_parts_left: AtomicU64,
    is_low: bool,
}

impl FakeStages {
    fn new(said: &Arc<Said>, trouble: Trouble) -> Self {
        let state = AgentState {
            last_xid: Xid::new(9),
            persisted_xid: Xid::new(0),
            to_upload: None,
            safe_xid: Xid::new(0),
            is_new_epoch: false,
        };
        Self {
            said: Arc::clone(said),
            state: Mutex::new(state),
            trouble: Mutex::new(trouble),
            n_looks: AtomicU64::new(0),
            n_parts_left: AtomicU64::new(0),
            is_low: false,
        }
    }

    fn shared(said: &Arc<Said>, trouble: Trouble) -> Arc<dyn Stages> {
        Arc::new(Self::new(said, trouble))
    }

    fn say(&self, what: String) {
        self.said.0.lock().push(what);
    }

    fn trouble(&self) -> Trouble {
        *self.trouble.lock()
    }
}

impl Stages for FakeStages {
    fn state(&self) -> Result<AgentState, AgentError> {
        let n_looks = self.n_looks.fetch_add(1, Ordering::Relaxed);
        let n_written = if self.trouble() == Trouble::WritersGoOn { n_looks } else { 0 };
        Ok(AgentState { last_xid: Xid::new(9 + n_written), ..*self.state.lock() })
    }

    fn last_snapshot(&self) -> Result<Option<SnapshotId>, AgentError> {
        Ok(self.state.lock().to_upload)
    }

    fn is_low_on_space(&self) -> Result<bool, AgentError> {
        Ok(self.is_low)
    }

    fn recover(&self) -> Result<(), AgentError> {
        self.say("recover".into());
        Ok(())
    }

    fn persist(&self, stop: &AtomicBool) -> Result<Option<PersistedSnapshot>, AgentError> {
        assert!(self.trouble() != Trouble::PersistPanics, "told to");
        self.say("persist".into());
        if self.trouble() == Trouble::PersistWaits {
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            return Err(AgentError::Stopped);
        }
        let last = self.state()?.last_xid;
        let snapshot = SnapshotId::new(1);
        let mut state = self.state.lock();
        state.to_upload = Some(snapshot);
        let is_part = self.n_parts_left.load(Ordering::Relaxed) > 0;
        if is_part {
            self.n_parts_left.fetch_sub(1, Ordering::Relaxed);
        } else {
            state.persisted_xid = last;
        }
        let covered = is_part.then_some(Ino::new(5));
        let report = PersistReport { covered, ..PersistReport::default() };
        Ok(Some(PersistedSnapshot { snapshot, report }))
    }

    fn persist_lost(&self, _: &[SnapshotId], _: &AtomicBool) -> Result<LostAndFound, AgentError> {
        unreachable!("nothing is lost here")
    }

    fn take_back(&self, _: &[SnapshotId]) -> Result<(), AgentError> {
        Ok(())
    }

    fn forget_verified(&self) -> Result<(), AgentError> {
        Ok(())
    }

    fn upload(&self, snapshot: SnapshotId, stop: &AtomicBool) -> Result<Uploaded, AgentError> {
        self.say(format!("upload {snapshot}"));
        if self.trouble() == Trouble::UploadsHang {
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            return Err(AgentError::Stopped);
        }
        if matches!(self.trouble(), Trouble::FirstUploadFails | Trouble::UploadsFail) {
            if self.trouble() == Trouble::FirstUploadFails {
                *self.trouble.lock() = Trouble::None;
            }
            return Err(PortError::new(ErrorKind::Away, "the cloud is away").into());
        }
        let mut state = self.state.lock();
        state.to_upload = None;
        state.safe_xid = state.persisted_xid;
        Ok(Uploaded::default())
    }

    fn evict(&self, _: SpaceGoal, _: &AtomicBool) -> Result<EvictReport, AgentError> {
        self.say(format!("evict {}", self.state.lock().safe_xid));
        Ok(EvictReport::default())
    }

    fn make_room(&self, _: &AtomicBool) -> Result<Option<EvictReport>, AgentError> {
        self.say("make room".into());
        Ok(Some(EvictReport::default()))
    }

    fn evict_dry_run(&self, _: SpaceGoal, _: &AtomicBool) -> Result<EvictReport, AgentError> {
        self.say("dry run".into());
        Ok(EvictReport::default())
    }
}

#[test]
fn steps_come_in_order_and_nothing_comes_unasked() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(&FakeStages::shared(&said, Trouble::None)).unwrap();
    agent.perform(Task::Evict(SpaceGoal::Everything), &Arc::default()).unwrap();
    let answers =
        [Task::Snapshot, Task::Snapshot].map(|task| agent.submit(task, &Arc::default()).unwrap());
    agent.wait();
    assert!(answers.iter().all(|answer| answer.recv().unwrap().is_ok()));
    agent.perform(Task::EvictDryRun(SpaceGoal::Everything), &Arc::default()).unwrap();
    agent.request_stop();
    assert!(matches!(agent.perform(Task::Snapshot, &Arc::default()), Err(AgentError::Stopped)));
    agent.join();
    let expected = ["recover", "evict 0", "persist", "upload 1", "dry run"];
    assert_eq!(*said.0.lock(), expected);
}

#[test]
fn a_panic_fails_its_request_and_no_other() {
    let said = Arc::new(Said::default());
    let stages = Arc::new(FakeStages::new(&said, Trouble::PersistPanics));
    let agent = TieringOutAgent::start(&(stages.clone() as Arc<dyn Stages>)).unwrap();
    let error = agent.perform(Task::Snapshot, &Arc::default()).unwrap_err();
    assert!(error.to_string().contains("(persist) panicked: told to"), "{error}");
    agent.perform(Task::Evict(SpaceGoal::Everything), &Arc::default()).unwrap();
    *stages.trouble.lock() = Trouble::None;
    agent.perform(Task::Snapshot, &Arc::default()).unwrap();
    assert_eq!(*said.0.lock(), ["recover", "evict 0", "persist", "upload 1"]);
}

#[test]
fn an_upload_that_hangs_holds_up_neither_persisting_nor_making_room() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(&FakeStages::shared(&said, Trouble::UploadsHang)).unwrap();
    let stop = Arc::default();
    let hangs = agent.submit(Task::Snapshot, &stop).unwrap();
    agent.perform(Task::Persist, &Arc::default()).unwrap();
    agent.perform(Task::MakeRoom, &Arc::default()).unwrap();
    assert!(hangs.is_empty());
    stop.store(true, Ordering::Relaxed);
    assert!(matches!(hangs.recv().unwrap(), Err(AgentError::Stopped)));
}

#[test]
fn where_space_is_low_a_part_is_uploaded_and_evicted_before_the_next_one() {
    let said = Arc::new(Said::default());
    let (n_parts_left, is_low) = (AtomicU64::new(2), true);
    let stages = FakeStages::new(&said, Trouble::None);
    let stages: Arc<dyn Stages> = Arc::new(FakeStages { n_parts_left, is_low, ..stages });
    let agent = TieringOutAgent::start(&stages);
    agent.unwrap().perform(Task::Snapshot, &Arc::default()).unwrap();
    let part = ["persist", "upload 1", "make room"];
    let expected = ["recover"].into_iter().chain(part).chain(part).chain(["persist", "upload 1"]);
    assert_eq!(*said.0.lock(), expected.collect::<Vec<_>>());
}

#[test]
fn a_snapshot_ends_although_writers_go_on() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(&FakeStages::shared(&said, Trouble::WritersGoOn)).unwrap();
    let report = agent.perform(Task::Snapshot, &Arc::default()).unwrap();
    assert_eq!(report.uploaded, [SnapshotId::new(1)]);
    assert_eq!(*said.0.lock(), ["recover", "persist", "upload 1"], "what came later waits");
}

#[test]
fn an_upload_that_failed_is_the_first_step_of_the_next_task() {
    let said = Arc::new(Said::default());
    let stages = FakeStages::shared(&said, Trouble::FirstUploadFails);
    let agent = TieringOutAgent::start(&stages).unwrap();
    let error = agent.perform(Task::Snapshot, &Arc::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Away);
    let evict = Task::Evict(SpaceGoal::Everything);
    let report = agent.perform(evict, &Arc::default()).unwrap();
    assert_eq!((report.persisted, report.uploaded), (None, vec![SnapshotId::new(1)]));
    let expected = ["recover", "persist", "upload 1", "upload 1", "evict 9"];
    assert_eq!(*said.0.lock(), expected, "and nothing was evicted before it");
}

#[test]
fn an_upload_that_fails_keeps_nothing_else_from_being_done() {
    let said = Arc::new(Said::default());
    let stages = FakeStages::shared(&said, Trouble::UploadsFail);
    let agent = TieringOutAgent::start(&stages).unwrap();
    let not_uploaded = |task| match agent.perform(task, &Arc::default()) {
        Err(AgentError::NotUploaded(not_uploaded)) => *not_uploaded,
        other => panic!("{other:?}"),
    };
    let NotUploaded { done, why } = not_uploaded(Task::Snapshot);
    assert_eq!(
        (done.persisted.unwrap().snapshot, why.kind()),
        (SnapshotId::new(1), ErrorKind::Away)
    );
    let NotUploaded { done, .. } = not_uploaded(Task::Evict(SpaceGoal::Everything));
    assert!(done.evicted.is_some() && done.uploaded.is_empty());
    let expected = ["recover", "persist", "upload 1", "upload 1", "evict 0"];
    assert_eq!(*said.0.lock(), expected, "once in each task, and only what was safe goes");
}

#[test]
fn a_task_that_is_stopped_before_its_turn_is_not_waited_for() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(&FakeStages::shared(&said, Trouble::PersistWaits)).unwrap();
    let (first, second) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let answer = agent.submit(Task::Snapshot, &first).unwrap();
    // The first one is under way and does not end; the second one is given up all the same.
    let stopped = agent.perform(Task::Snapshot, &second);
    assert!(matches!(stopped, Err(AgentError::Stopped)), "{stopped:?}");
    assert!(answer.is_empty());
    first.store(true, Ordering::Relaxed);
    assert!(matches!(answer.recv().unwrap(), Err(AgentError::Stopped)));
    agent.wait();
    assert_eq!(*said.0.lock(), ["recover", "persist"], "the second one never began a step");
}

#[test]
fn an_agent_that_is_asked_to_stop_answers_every_task() {
    let said = Arc::new(Said::default());
    let agent = TieringOutAgent::start(&FakeStages::shared(&said, Trouble::PersistWaits)).unwrap();
    let answers = [Task::Snapshot, Task::Persist, Task::Snapshot]
        .map(|task| agent.submit(task, &Arc::default()).unwrap());
    agent.request_stop();
    agent.wait();
    for answer in answers {
        assert!(matches!(answer.recv().unwrap(), Err(AgentError::Stopped)));
    }
    agent.join();
}
