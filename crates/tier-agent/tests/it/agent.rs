//! The agent's thread, with stages that only say what they were asked for.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tier_agent::decide::AgentState;
use tier_agent::{AgentError, PersistedSnapshot, Stages, Task, TieringOutAgent};
use tier_evict::{EvictReport, PassGoal};
use tier_persist::PersistReport;
use tier_types::{SnapshotId, Xid};

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

struct FakeStages {
    said: Arc<Said>,
    state: AgentState,
    panics: bool,
}

impl FakeStages {
    fn boxed(said: &Arc<Said>, panics: bool) -> Box<dyn Stages> {
        let state = AgentState {
            last_xid: Xid::new(9),
            persisted_xid: Xid::new(0),
            to_upload: None,
            safe_xid: Xid::new(0),
            snapshot_wanted: None,
            eviction_wanted: None,
        };
        Box::new(Self { said: Arc::clone(said), state, panics })
    }

    fn say(&self, what: String) {
        self.said.0.lock().push(what);
    }
}

impl Stages for FakeStages {
    fn state(&self) -> Result<AgentState, AgentError> {
        Ok(self.state)
    }

    fn recover(&mut self) -> Result<(), AgentError> {
        self.say("recover".into());
        Ok(())
    }

    fn persist(&mut self, _: &AtomicBool) -> Result<Option<PersistedSnapshot>, AgentError> {
        assert!(!self.panics, "told to");
        self.say("persist".into());
        self.state.persisted_xid = self.state.last_xid;
        let snapshot = SnapshotId::new(1);
        self.state.to_upload = Some(snapshot);
        Ok(Some(PersistedSnapshot { snapshot, report: PersistReport::default() }))
    }

    fn upload(&mut self, snapshot: SnapshotId, _: &AtomicBool) -> Result<(), AgentError> {
        self.say(format!("upload {snapshot}"));
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
    let agent = TieringOutAgent::start(FakeStages::boxed(&said, false)).unwrap();
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
    let agent = TieringOutAgent::start(FakeStages::boxed(&said, true)).unwrap();
    assert!(matches!(agent.perform(Task::Snapshot, &Arc::default()), Err(AgentError::Panicked)));
    assert!(matches!(agent.wait(), Err(AgentError::Panicked)));
    assert!(matches!(agent.join(), Err(AgentError::Panicked)));
}
