//! The life of a store that a process keeps open: its agent in the background, and its schedule.
//!
//! The agent starts with the store, finishes what a crash interrupted, and then does what it is
//! given: by commands, and, with a schedule, by the scheduler. A mount without a schedule frees no
//! space and takes no snapshot unasked. The scheduler ends when it is taken out of [`Live`] and no
//! command looks at it any more; it stops the task that it gave the agent, at the next safe point.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tier_agent::Scheduler;
use tier_agent::decide::Schedule;
use tier_types::MountedInstance;

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
    let schedule = Schedule {
        snapshot_interval: Duration::from_secs(settings.snapshot_seconds),
        snapshot_operations: settings.snapshot_operations,
        marks: store.config().space.marks(),
        retry_interval: Duration::from_secs(settings.retry_seconds),
    };
    let instance: Arc<dyn MountedInstance> = store.fs.core().clone();
    // The agent is the one of the start above: asked for again, it is the same.
    let scheduler = Scheduler::start(store.agent()?, schedule, instance)?;
    live.set_scheduler(Some(scheduler));
    Ok(())
}

/// Ends the schedule; what is under way stops at the next safe point.
pub(super) fn end_schedule(live: &Live) {
    live.set_scheduler(None);
}
