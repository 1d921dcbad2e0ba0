//! `tier pause` and `tier resume`: holding back the agent of a mounted store.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tier_agent::Scheduler;

use crate::context::Context;

pub(super) fn pause(context: &Context) -> Result<()> {
    scheduler(context).map(|scheduler| scheduler.pause())
}

pub(super) fn resume(context: &Context) -> Result<()> {
    scheduler(context).map(|scheduler| scheduler.resume())
}

fn scheduler(context: &Context) -> Result<Arc<Scheduler>> {
    context.scheduler().context("the store is not mounted with its agent running")
}
