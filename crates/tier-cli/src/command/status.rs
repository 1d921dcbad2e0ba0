//! `tier status`: where the snapshots stand, what is where, and what went wrong.
//!
//! Each part comes from the component that knows it: usage from the filesystem, what is persisted
//! from the manifests, the stage of each snapshot from its status log, and what the agent's lanes
//! do now from the scheduler, which only a mounted store has. Nothing is remembered between two
//! looks.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use kvfs::StatFs;
use serde_json::{Value, json};
use tier_agent::{Lane, LaneStatus, SchedulerStatus};
use tier_status::{Place, SnapshotStatus, Stage, UnreadRange};
use tier_types::{InstanceView, LogReader, Xid};

use crate::args::StatusArgs;
use crate::console::{self, output};
use crate::context::Context;

/// With less than this a write of the kernel is refused.
const FULL_BYTES: u64 = 1 << 20;
/// How long `--watch` shows one status.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn run(context: &Context, args: &StatusArgs) -> Result<()> {
    if args.watch { watch(context, args) } else { show(context, args) }
}

/// Shows the status again and again. The store is open only meanwhile, so that other commands can
/// work.
fn watch(context: &Context, args: &StatusArgs) -> Result<()> {
    let stop = context.console.stop()?;
    // The sender is kept, because a channel without one would end the wait at once.
    let (_never, timer) = mpsc::channel::<()>();
    loop {
        match show(context, args) {
            // A store in use is shown again later: the process that has it may end meanwhile.
            Err(error) if console::code(&error) == console::BUSY => {
                context.console.note(&console::message(&error));
            }
            shown => shown?,
        }
        stop.check()?;
        // Nothing is sent: this waits for the time to pass.
        let _ = timer.recv_timeout(WATCH_INTERVAL);
    }
}

fn show(context: &Context, args: &StatusArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let config = &store.config();
    let usage = store.fs.usage()?;
    // The same numbers as df on a mount.
    let space = store.fs.statfs()?;
    let last_xid = store.fs.last_xid();
    // A store without a snapshot has persisted nothing; one that fell behind its archive has
    // nothing to persist.
    let persisted = store.archive()?.snapshots().next_back().map(|last| last.last_xid);
    let backlog = last_xid.get().saturating_sub(persisted.map_or(0, Xid::get));
    // Also those that the archive has no manifest of yet: a failed attempt shows its error here.
    let statuses = store.book().all()?;
    let scheduler = context.scheduler().map(|scheduler| scheduler.status());
    let mountpoint = context.mount().map(|mount| mount.mountpoint().display().to_string());
    let place = store.store.dir().safe_place();
    let role = if store.is_follower() { "follower" } else { "writer" };
    let json = json!({
        "role": role,
        "filesystem": store.store.dir().filesystem.to_string(),
        "epoch": config.epoch,
        "cloud": config.cloud_url(),
        "encryption": config.encryption,
        "inodes": usage.n_inodes,
        "resident_bytes": usage.resident_bytes,
        "cold_bytes": usage.cold_bytes,
        "lost_bytes": usage.lost_bytes,
        "kvs_bytes": usage.physical_bytes,
        "limit_bytes": space.limit_bytes,
        "used_bytes": space.used_bytes,
        "free_bytes": space.free_bytes,
        "last_xid": last_xid.get(),
        "backlog_operations": backlog,
        "mountpoint": mountpoint,
        "agent": scheduler.as_ref().map(agent_json),
        "snapshots": statuses.iter().map(|status| snapshot_json(status, place.as_ref())).collect::<Vec<_>>(),
    });
    let mut text = format!(
        "filesystem   {} ({role}, epoch {})\ncloud        {}\nencryption   {}\n",
        store.store.dir().filesystem,
        config.epoch,
        config.cloud_url().unwrap_or("none"),
        if config.encryption { "on" } else { "off" },
    );
    text.push_str(&format!(
        "inodes       {}\nhot          {}\ncold         {}\nkvs on disk  {}\n",
        usage.n_inodes,
        output::bytes(usage.resident_bytes),
        output::bytes(usage.cold_bytes),
        output::bytes(usage.physical_bytes),
    ));
    if usage.lost_bytes > 0 {
        let lost = output::bytes(usage.lost_bytes);
        text.push_str(&format!("lost         {lost}, which tier fsck names by inode\n"));
    }
    text.push_str(&space_text(&space));
    if let Some(mountpoint) = mountpoint {
        let agent = scheduler.as_ref().map_or_else(|| "acts when asked".into(), agent_text);
        text.push_str(&format!("mounted on   {mountpoint}\nagent        {agent}\n"));
    }
    text.push_str(&format!(
        "last xid     {last_xid}, {backlog} operations since the last snapshot\n\n"
    ));
    text.extend(statuses.iter().map(|status| snapshot_text(status, place.as_ref())));
    context.console.report(&json, &text)
}

/// How full the store is, and what to do if it is.
fn space_text(space: &StatFs) -> String {
    let mut text = format!(
        "space        {} of {} used, {} free\n",
        output::bytes(space.used_bytes),
        output::bytes(space.limit_bytes),
        output::bytes(space.free_bytes),
    );
    if space.free_bytes < FULL_BYTES {
        text.push_str(
            "             the store is full: run tier evict, give it a cloud, raise \
             space.capacity_bytes, or make room on its disk\n",
        );
    }
    text
}

/// What the agent is doing: a line for each lane that works, or whose last task failed.
fn agent_text(status: &SchedulerStatus) -> String {
    let lanes = status.lanes.iter().filter(|lane| lane.task.is_some() || lane.last_error.is_some());
    let mut text = if status.paused { "paused".to_string() } else { String::new() };
    for lane in lanes {
        if !text.is_empty() {
            text.push_str("\n             ");
        }
        text.push_str(&format!("{}: {}", lane.lane.name(), lane_state(lane)));
        if let Some(error) = &lane.last_error {
            text.push_str(&format!("; last error: {}; {}", error.text, error.advice));
        }
    }
    if text.is_empty() { "waiting".into() } else { text }
}

fn lane_state(status: &LaneStatus) -> &'static str {
    match (&status.task, status.lane) {
        (None, _) => "waiting",
        (Some(_), Lane::Persist) => "taking a snapshot",
        (Some(_), Lane::Upload) => "uploading",
        (Some(_), Lane::Evict) => "making room",
    }
}

fn agent_json(status: &SchedulerStatus) -> Value {
    let lane = |lane: &LaneStatus| {
        let error = lane
            .last_error
            .as_ref()
            .map(|error| json!({ "text": error.text, "advice": error.advice }));
        json!({
            "lane": lane.lane.name(),
            "state": lane_state(lane),
            "tasks_done": lane.n_done,
            "last_error": error,
        })
    };
    json!({ "paused": status.paused, "lanes": status.lanes.iter().map(lane).collect::<Vec<_>>() })
}

/// How far a snapshot has got, where only this place makes it safe.
pub(super) fn stage_in(status: &SnapshotStatus, place: Option<&Place>) -> Stage {
    match place {
        Some(place) => status.stage_in(place),
        // The cloud has lost its identity: nothing is known to be there.
        None => status.stage_in(&Place::Local).min(Stage::Indexed),
    }
}

pub(super) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Persisting => "persisting",
        Stage::Committed => "committed",
        Stage::Indexed => "indexed",
        Stage::VerifiedLocal => "verified",
        Stage::VerifiedCloud => "in the cloud",
        Stage::Evicted => "evicted",
    }
}

fn snapshot_text(status: &SnapshotStatus, place: Option<&Place>) -> String {
    let mut text = format!(
        "snapshot {:>4}  {:<12}  {:>8} inodes  {:>12} data  {:>4} tarballs  {:>12}\n",
        status.header.snapshot.get(),
        stage_name(stage_in(status, place)),
        status.n_inodes,
        output::bytes(status.data_bytes),
        status.n_tarballs,
        output::bytes(status.tarball_bytes),
    );
    if status.evicted_bytes > 0 {
        text.push_str(&format!("    evicted {}\n", output::bytes(status.evicted_bytes)));
    }
    if !status.failed_inodes.is_empty() {
        text.push_str(&format!("    could not read inodes {:?}\n", status.failed_inodes));
    }
    for UnreadRange { ino, bytes } in &status.unread_ranges {
        text.push_str(&format!("    could not read bytes {bytes} of inode {ino}\n"));
    }
    if let Some(error) = &status.last_error {
        text.push_str(&format!("    last error: {error}\n"));
    }
    text
}

fn snapshot_json(status: &SnapshotStatus, place: Option<&Place>) -> Value {
    json!({
        "epoch": status.header.epoch.get(),
        "snapshot": status.header.snapshot.get(),
        "stage": stage_name(stage_in(status, place)),
        "inodes": status.n_inodes,
        "data_bytes": status.data_bytes,
        "tarballs": status.n_tarballs,
        "tarball_bytes": status.tarball_bytes,
        "evicted_bytes": status.evicted_bytes,
        "failed_inodes": status.failed_inodes,
        "unread_ranges": status.unread_ranges.iter().map(unread_json).collect::<Vec<_>>(),
        "last_error": status.last_error,
    })
}

fn unread_json(range: &UnreadRange) -> Value {
    json!({ "ino": range.ino, "offset": range.bytes.offset, "len": range.bytes.len })
}
