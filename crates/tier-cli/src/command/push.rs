//! `tier push`: uploads and verifies what is persisted and not yet safe.

use anyhow::Result;
use tier_agent::Task;

use super::snapshot::report_json;
use crate::args::PushArgs;
use crate::context::Context;

pub(super) fn run(context: &Context, args: &PushArgs) -> Result<()> {
    let store = context.open_to_archive(&args.store)?;
    // The agent is asked, so that two uploads of one snapshot never run side by side.
    let task = if args.all { Task::UploadAll } else { Task::Upload };
    let (report, uploaded) = context.perform_all(&store, task, "uploading")?;
    let n = report.uploaded.len();
    let text = format!("{n} snapshots were uploaded and verified.\n");
    context.console.report(&report_json(&report), &text)?;
    uploaded
}
