//! `tier pause` and `tier resume`: holding back the agent of a mounted store.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tier_agent::Scheduler;

use crate::context::Context;

pub(super) fn pause(context: &Context) -> Result<()> {
    // A pause ends with the process: after the next mount the agent works again.
    scheduler(context).map(|scheduler| scheduler.pause())
}

pub(super) fn resume(context: &Context) -> Result<()> {
    scheduler(context).map(|scheduler| scheduler.resume())
}

fn scheduler(context: &Context) -> Result<Arc<Scheduler>> {
    // A store that is not mounted has no agent to hold back, and a silent success would deceive.
    context.scheduler().context("the store is not mounted with its agent running")
}
