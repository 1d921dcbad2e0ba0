//! The life of a store that a process keeps open: its agent in the background, and its schedule.
//!
//! The agent starts with the store, finishes what a crash interrupted, and then does what it is
//! given: by commands, and, with a schedule, by the scheduler. A mount without a schedule frees no
//! space and takes no snapshot unasked. The scheduler ends when it is taken out of [`Live`] and no
//! command looks at it any more; it stops the task that it gave the agent, at the next safe point.

use std::sync::Arc;

use anyhow::Result;

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
    // The agent is the one of the start above: asked for again, it is the same.
    live.set_scheduler(Some(live.store.start_schedule(live.store.schedule())?));
    Ok(())
}

/// Ends the schedule; what is under way stops at the next safe point.
pub(super) fn end_schedule(live: &Live) {
    live.set_scheduler(None);
}
