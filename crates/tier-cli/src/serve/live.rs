//! The life of a store that a process keeps open: its agent in the background, and its schedule.
//!
//! The agent starts with the store, finishes what a crash interrupted, and then does what it is
//! given: by commands, and, with a schedule, by the scheduler. A mount without a schedule frees no
//! space and takes no snapshot unasked. The scheduler ends when it is taken out of [`Live`] and no
//! command looks at it any more; it stops the task that it gave the agent, at the next safe point.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kvfs::Kvfs;
use tier_agent::decide::{Schedule, SpaceUsage};
use tier_agent::{Scheduler, SchedulerInputs};
use tier_types::{MountedInstance, PortError};

use crate::context::Live;
use crate::open_store::OpenStore;

/// Starts the store's agent, which recovers what a crash left.
pub(super) fn start(store: Arc<OpenStore>) -> Result<Arc<Live>> {
    // The first call decides how nice the agent is, so that it comes before any command. A
    // filesystem that is behind its archive can be read, and no agent is started for it.
    if store.fs.check_writable().is_ok() {
        store.store.agent_in_background()?;
    }
    Ok(Arc::new(Live::new(store)))
}

/// From now on the agent acts unasked.
pub(super) fn start_schedule(live: &Live) -> Result<()> {
    let store = &live.store;
    let settings = &store.config().agent;
    let space = &store.config().space;
    // The settings were checked when they were read.
    assert!(space.low_percent <= space.high_percent, "space is freed down to a lower mark");
    let schedule = Schedule {
        snapshot_interval: Duration::from_secs(settings.snapshot_seconds),
        snapshot_operations: settings.snapshot_operations,
        high_percent: space.high_percent,
        low_percent: space.low_percent,
        retry_interval: Duration::from_secs(settings.retry_seconds),
    };
    let inputs = StoreInputs { fs: Arc::clone(&store.fs) };
    // The agent is the one of the start above: asked for again, it is the same.
    let scheduler = Scheduler::start(store.agent()?, schedule, Box::new(inputs))?;
    live.set_scheduler(Some(scheduler));
    Ok(())
}

/// Ends the schedule; what is under way stops at the next safe point.
pub(super) fn end_schedule(live: &Live) {
    live.set_scheduler(None);
}

/// The scheduler's inputs: how far the log has grown, and how full the disk is.
struct StoreInputs {
    fs: Arc<Kvfs>,
}

impl SchedulerInputs for StoreInputs {
    fn backlog_operations(&self) -> u64 {
        self.fs.backlog_operations()
    }

    fn space(&self) -> Result<SpaceUsage, PortError> {
        // What the key-value store takes: nothing else can be evicted.
        let own_bytes = self.fs.usage()?.physical_bytes;
        // The marks are shares of the limit at which writers are refused, and what counts against
        // it counts here: the whole store, or all that is on its disk.
        let space = self.fs.statfs()?;
        Ok(SpaceUsage {
            own_bytes,
            occupied_bytes: space.used_bytes,
            capacity_bytes: space.limit_bytes,
        })
    }
}
