//! Unit tests of the scheduler: looks at times that a test names, at inputs that a test sets.

use std::sync::atomic::AtomicU64;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tier_evict::{EvictReport, PassGoal};
use tier_types::{SnapshotId, Xid};

use super::*;
use crate::decide::AgentState;
use crate::report::PersistedSnapshot;
use crate::stages::{LostAndFound, Stages};

const SCHEDULE: Schedule = Schedule {
    snapshot_interval: Duration::from_mins(5),
    snapshot_operations: 1000,
    high_percent: 80,
    low_percent: 60,
    retry_interval: Duration::from_mins(1),
};

/// What the stages do when they are asked to persist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Persisting {
    Succeeds,
    Fails,
    WaitsForStop,
}

struct FakeStages {
    persisting: Persisting,
    /// Receives the name of each stage that is begun.
    begun: Sender<&'static str>,
}

impl Stages for FakeStages {
    fn state(&self) -> Result<AgentState, AgentError> {
        Ok(AgentState {
            last_xid: Xid::new(9),
            persisted_xid: Xid::new(0),
            to_upload: None,
            safe_xid: Xid::new(0),
            is_new_epoch: false,
            snapshot_wanted: None,
            eviction_wanted: None,
        })
    }

    fn recover(&mut self) -> Result<(), AgentError> {
        Ok(())
    }

    fn persist(&mut self, stop: &AtomicBool) -> Result<Option<PersistedSnapshot>, AgentError> {
        self.begun.send("persist").unwrap();
        match self.persisting {
            Persisting::Succeeds => Ok(None),
            Persisting::Fails => Err(PortError::new(ErrorKind::Failed, "a broken disk").into()),
            Persisting::WaitsForStop => {
                while !stop.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                Err(AgentError::Stopped)
            }
        }
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

    fn upload(&mut self, _: SnapshotId, _: &AtomicBool) -> Result<(), AgentError> {
        unreachable!("there is nothing to upload")
    }

    fn evict(&mut self, _: Xid, _: PassGoal, _: &AtomicBool) -> Result<EvictReport, AgentError> {
        self.begun.send("evict").unwrap();
        Ok(EvictReport::default())
    }

    fn evict_dry_run(&self, _: Xid, _: PassGoal) -> Result<EvictReport, AgentError> {
        unreachable!("a schedule has no dry run")
    }
}

#[derive(Default)]
struct FakeInputs {
    backlog_operations: AtomicU64,
    /// None cannot be measured.
    space: Mutex<Option<SpaceUsage>>,
}

impl SchedulerInputs for FakeInputs {
    fn backlog_operations(&self) -> u64 {
        self.backlog_operations.load(Ordering::Relaxed)
    }

    fn space(&self) -> Result<SpaceUsage, PortError> {
        self.space.lock().ok_or_else(|| PortError::new(ErrorKind::Failed, "no such disk"))
    }
}

struct World {
    shared: Shared,
    agent: TieringOutAgent,
    planner: TaskPlanner,
    inputs: FakeInputs,
    begun: Receiver<&'static str>,
}

impl World {
    fn new(persisting: Persisting) -> Self {
        let (sender, begun) = unbounded();
        let stages = FakeStages { persisting, begun: sender };
        Self {
            shared: Shared::default(),
            agent: TieringOutAgent::start(Box::new(stages)).unwrap(),
            planner: TaskPlanner::new(SCHEDULE),
            inputs: FakeInputs::default(),
            begun,
        }
    }

    /// What was begun by one look at this second.
    fn look(&mut self, second: u64) -> Vec<&'static str> {
        let now = Duration::from_secs(second);
        self.shared.look(&self.agent, &mut self.planner, &self.inputs, now);
        self.begun.try_iter().collect()
    }
}

#[test]
fn a_look_has_done_what_is_due() {
    let mut world = World::new(Persisting::Succeeds);
    assert_eq!(world.look(0), ["persist"], "what an earlier process left");
    assert_eq!(world.look(1000), Vec::<&str>::new());
    world.inputs.backlog_operations.store(1, Ordering::Relaxed);
    assert_eq!(world.look(1001), ["persist"]);
    let space = SpaceUsage { own_bytes: 900, occupied_bytes: 900, capacity_bytes: 1000 };
    *world.inputs.space.lock() = Some(space);
    assert_eq!(world.look(1002), ["evict"]);
    let done = SchedulerStatus { n_done: 3, ..SchedulerStatus::default() };
    assert_eq!(world.shared.status(), done);
}

#[test]
fn space_that_cannot_be_measured_keeps_no_snapshot_from_being_taken() {
    let mut world = World::new(Persisting::Succeeds);
    *world.inputs.space.lock() = None;
    world.inputs.backlog_operations.store(1000, Ordering::Relaxed);
    assert_eq!(world.look(0), ["persist"]);
    assert_eq!(world.look(1), ["persist"], "many operations");
}

#[test]
fn a_failure_is_shown_and_tried_again_later() {
    let mut world = World::new(Persisting::Fails);
    assert_eq!(world.look(0), ["persist"]);
    let failed =
        SchedulerStatus { last_error: Some("a broken disk".into()), ..SchedulerStatus::default() };
    assert_eq!(world.shared.status(), failed);
    assert_eq!(world.look(59), Vec::<&str>::new());
    assert_eq!(world.look(60), ["persist"]);
}

#[test]
fn while_it_is_paused_nothing_is_begun() {
    let mut world = World::new(Persisting::Succeeds);
    world.shared.pause();
    assert_eq!(world.look(0), Vec::<&str>::new());
    assert!(world.shared.status().paused);
    world.shared.resume();
    assert_eq!(world.look(60), ["persist"], "it was due before, and is still");
}

#[test]
fn a_pause_stops_the_task_under_way_and_is_no_failure() {
    let mut world = World::new(Persisting::WaitsForStop);
    let begun = world.begun.clone();
    thread::scope(|scope| {
        let World { shared, agent, planner, inputs, .. } = &mut world;
        let (shared, agent) = (&*shared, &*agent);
        let look = scope.spawn(move || shared.look(agent, planner, &*inputs, Duration::ZERO));
        assert_eq!(begun.recv(), Ok("persist"));
        assert_eq!(shared.status().task, Some(Task::Snapshot));
        shared.pause();
        look.join().unwrap();
    });
    let paused = SchedulerStatus { paused: true, ..SchedulerStatus::default() };
    assert_eq!(world.shared.status(), paused);
}

#[test]
fn a_scheduler_that_is_dropped_ends_its_task_and_its_thread() {
    let (sender, begun) = unbounded();
    let stages = FakeStages { persisting: Persisting::WaitsForStop, begun: sender };
    let agent = Arc::new(TieringOutAgent::start(Box::new(stages)).unwrap());
    let inputs = Box::new(FakeInputs::default());
    let scheduler = Scheduler::start(Arc::clone(&agent), SCHEDULE, inputs).unwrap();
    assert_eq!(begun.recv(), Ok("persist"));
    drop(scheduler);
    agent.wait().unwrap();
    assert_eq!(Arc::strong_count(&agent), 1, "its thread has let go of the agent");
}
