//! Unit tests of the scheduler: looks at times that a test names, at inputs that a test sets.

use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tier_evict::EvictReport;
use tier_testkit::FakeKvs;
use tier_types::{
    Backlog, InstanceLayer, MountedInstance, PortError, SnapshotId, SpaceUsage, Usage, Xid,
};

use super::*;
use crate::SpaceGoal;
use crate::decide::AgentState;
use crate::report::PersistedSnapshot;
use crate::stages::{LostAndFound, Stages, Uploaded};

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
        })
    }

    fn last_snapshot(&self) -> Result<Option<SnapshotId>, AgentError> {
        Ok(None)
    }

    fn is_low_on_space(&self) -> Result<bool, AgentError> {
        Ok(false)
    }

    fn recover(&self) -> Result<(), AgentError> {
        Ok(())
    }

    fn persist(&self, stop: &AtomicBool) -> Result<Option<PersistedSnapshot>, AgentError> {
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

    fn persist_lost(&self, _: &[SnapshotId], _: &AtomicBool) -> Result<LostAndFound, AgentError> {
        unreachable!("nothing is lost here")
    }

    fn take_back(&self, _: &[SnapshotId]) -> Result<(), AgentError> {
        Ok(())
    }

    fn forget_verified(&self) -> Result<(), AgentError> {
        Ok(())
    }

    fn upload(&self, _: SnapshotId, _: &AtomicBool) -> Result<Uploaded, AgentError> {
        unreachable!("there is nothing to upload")
    }

    fn evict(&self, _: SpaceGoal, _: &AtomicBool) -> Result<EvictReport, AgentError> {
        unreachable!("a schedule makes room")
    }

    fn make_room(&self, _: &AtomicBool) -> Result<Option<EvictReport>, AgentError> {
        self.begun.send("make room").unwrap();
        Ok(Some(EvictReport::default()))
    }

    fn evict_dry_run(&self, _: SpaceGoal, _: &AtomicBool) -> Result<EvictReport, AgentError> {
        unreachable!("a schedule has no dry run")
    }
}

/// A filesystem whose usage the test sets; `None` cannot be measured.
struct Measured {
    kvs: FakeKvs,
    usage: Mutex<Option<Usage>>,
}

impl InstanceLayer for Measured {
    fn inner(&self) -> &dyn MountedInstance {
        &self.kvs
    }

    fn usage(&self) -> Result<Usage, PortError> {
        self.usage.lock().ok_or_else(|| PortError::new(ErrorKind::Failed, "no such disk"))
    }
}

fn boxed(stages: FakeStages) -> Arc<dyn Stages> {
    Arc::new(stages)
}

struct World {
    shared: Shared,
    events: Receiver<SchedulerEvent>,
    agent: TieringOutAgent,
    planner: LanePlanner,
    instance: Measured,
    begun: Receiver<&'static str>,
}

impl World {
    fn new(persisting: Persisting) -> Self {
        let (sender, begun) = unbounded();
        let stages = FakeStages { persisting, begun: sender };
        let (shared, events) = Shared::new();
        Self {
            shared,
            events,
            agent: TieringOutAgent::start(&boxed(stages)).unwrap(),
            planner: LanePlanner::new(Schedule::TEST),
            instance: Measured {
                kvs: FakeKvs::new(512),
                usage: Mutex::new(Some(Usage::default())),
            },
            begun,
        }
    }

    fn write(&self, operations: u64) {
        let backlog = Backlog { operations, bytes: 1 };
        *self.instance.usage.lock() = Some(Usage { backlog, ..Usage::default() });
    }

    /// What was begun by one look at this second, when all of it is done.
    fn look(&mut self, second: u64) -> Vec<&'static str> {
        self.begin(second);
        self.agent.wait();
        self.take(second);
        self.begun.try_iter().collect()
    }

    fn begin(&mut self, second: u64) {
        let now = Duration::from_secs(second);
        self.shared.look(&self.agent, &mut self.planner, &self.instance, now);
    }

    fn take(&mut self, second: u64) {
        for event in self.events.try_iter() {
            self.shared.take(&mut self.planner, Duration::from_secs(second), event);
        }
    }

    fn lane(&self, lane: Lane) -> LaneStatus {
        self.shared.state.lock().lanes[lane].status.clone()
    }
}

#[test]
fn a_look_has_done_what_is_due() {
    let mut world = World::new(Persisting::Succeeds);
    assert_eq!(world.look(0), ["persist"], "what an earlier process left");
    assert_eq!(world.look(1000), Vec::<&str>::new());
    world.write(1);
    assert_eq!(world.look(1001), ["persist"]);
    let space = SpaceUsage { used_bytes: 900, limit_bytes: 1000, ..SpaceUsage::default() };
    *world.instance.usage.lock() = Some(Usage { space, ..Usage::default() });
    assert_eq!(world.look(1002), ["make room"]);
    assert_eq!((world.lane(Lane::Persist).n_done, world.lane(Lane::Evict).n_done), (2, 1));
}

#[test]
fn space_that_cannot_be_measured_is_measured_again() {
    let mut world = World::new(Persisting::Succeeds);
    *world.instance.usage.lock() = None;
    assert_eq!(world.look(0), Vec::<&str>::new());
    world.write(1);
    assert_eq!(world.look(1), ["persist"]);
}

#[test]
fn a_failure_is_shown_with_what_to_do_and_tried_again_after_a_while() {
    let mut world = World::new(Persisting::Fails);
    assert_eq!(world.look(0), ["persist"]);
    let error = world.lane(Lane::Persist).last_error.unwrap();
    assert_eq!((error.text.as_str(), error.kind), ("a broken disk", ErrorKind::Failed));
    assert!(error.advice.contains("tried again"), "{}", error.advice);
    assert_eq!(world.look(0), Vec::<&str>::new());
    assert_eq!(world.look(1), ["persist"]);
    assert_eq!(world.look(1), Vec::<&str>::new());
}

#[test]
fn while_it_is_paused_nothing_is_begun() {
    let mut world = World::new(Persisting::Succeeds);
    world.shared.pause();
    assert_eq!(world.look(0), Vec::<&str>::new());
    assert!(world.shared.state.lock().is_paused);
    world.shared.change(|state| state.is_paused = false);
    assert_eq!(world.look(60), ["persist"], "it was due before, and is still");
}

#[test]
fn a_pause_stops_what_is_under_way_and_is_no_failure() {
    let mut world = World::new(Persisting::WaitsForStop);
    world.begin(0);
    assert_eq!(world.begun.recv(), Ok("persist"));
    assert_eq!(world.lane(Lane::Persist).task, Some(Task::Persist));
    world.shared.pause();
    world.agent.wait();
    world.take(1);
    let persist = world.lane(Lane::Persist);
    assert_eq!((persist.task, persist.last_error, persist.n_done), (None, None, 0));
}

#[test]
fn a_scheduler_that_is_dropped_ends_its_task_and_its_thread() {
    let (sender, begun) = unbounded();
    let stages = FakeStages { persisting: Persisting::WaitsForStop, begun: sender };
    let agent = Arc::new(TieringOutAgent::start(&boxed(stages)).unwrap());
    let scheduler =
        Scheduler::start(Arc::clone(&agent), Schedule::TEST, Arc::new(FakeKvs::new(512)));
    assert_eq!(begun.recv(), Ok("persist"));
    drop(scheduler.unwrap());
    agent.wait();
    assert_eq!(Arc::strong_count(&agent), 1, "its thread has let go of the agent");
}
