//! Looking at a store.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use kvfs::TableStatistics;
use serde_json::{Value, json};
use tier_log::{LogError, LogRecord, Operation, read_range};
use tier_status::{SnapshotStatus, Stage};
use tier_types::{LogService, MountedInstance, Xid, XidRange};

use super::flush;
use crate::session::Session;
use crate::{daemon, exit, output};

/// Prints the status again and again. The store is open only meanwhile, so that others can work.
pub(crate) fn watch(session: &Session, store: &Path) -> Result<()> {
    let stop = session.stop()?;
    let (_never, timer) = std::sync::mpsc::channel::<()>();
    loop {
        match status(session, store) {
            Err(error) if exit::code(&error) == exit::BUSY => session.note(&exit::message(&error)),
            other => other?,
        }
        stop.check()?;
        // Nobody sends: this waits for the time to pass.
        let _ = timer.recv_timeout(Duration::from_secs(2));
    }
}

pub(crate) fn status(session: &Session, store: &Path) -> Result<()> {
    let store = session.open(store)?;
    let usage = store.fs.usage()?;
    let last_xid = store.fs.last_xid();
    let archive = store.archive()?;
    let persisted = archive.snapshots().next_back().map(|last| last.range.last());
    let backlog = last_xid.get() - persisted.unwrap_or_default().get().min(last_xid.get());
    let statuses = store.book.all()?;
    let scheduler = session.daemon().and_then(|daemon| daemon.scheduler());
    let (agent_text, agent_json) =
        daemon::status(scheduler.map(|scheduler| scheduler.status()).as_ref());
    let mountpoint = session.daemon().and_then(|daemon| daemon.mount());
    let mountpoint = mountpoint.map(|mount| mount.mountpoint().display().to_string());
    let json = json!({
        "filesystem": store.base.filesystem.to_string(),
        "epoch": store.base.config.epoch,
        "cloud": store.base.config.cloud,
        "encryption": store.base.config.encryption,
        "inodes": usage.n_inodes,
        "resident_bytes": usage.resident_bytes,
        "cold_bytes": usage.cold_bytes,
        "kvs_bytes": usage.physical_bytes,
        "last_xid": last_xid.get(),
        "backlog_operations": backlog,
        "mountpoint": mountpoint,
        "agent": agent_json,
        "snapshots": statuses.iter().map(status_json).collect::<Vec<_>>(),
    });
    let mut text = format!(
        "filesystem   {} (epoch {})\ncloud        {}\nencryption   {}\n",
        store.base.filesystem,
        store.base.config.epoch,
        store.base.config.cloud.as_deref().unwrap_or("none"),
        if store.base.config.encryption { "on" } else { "off" },
    );
    text.push_str(&format!(
        "inodes       {}\nhot          {}\ncold         {}\nkvs on disk  {}\n",
        usage.n_inodes,
        output::bytes(usage.resident_bytes),
        output::bytes(usage.cold_bytes),
        output::bytes(usage.physical_bytes),
    ));
    if let Some(mountpoint) = mountpoint {
        text.push_str(&format!("mounted on   {mountpoint}\nagent        {agent_text}\n"));
    }
    text.push_str(&format!(
        "last xid     {last_xid}, {backlog} operations since the last snapshot\n\n"
    ));
    for status in &statuses {
        text.push_str(&status_text(status));
    }
    session.report(&json, &text)
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Persisting => "persisting",
        Stage::Committed => "committed",
        Stage::Indexed => "indexed",
        Stage::VerifiedLocal => "verified",
        Stage::VerifiedCloud => "in the cloud",
        Stage::Evicted => "evicted",
    }
}

fn status_text(status: &SnapshotStatus) -> String {
    let mut text = format!(
        "snapshot {:>4}  {:<12}  {:>8} inodes  {:>12} data  {:>4} tarballs  {:>12}\n",
        status.header.snapshot.get(),
        stage_name(status.stage),
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
    if let Some(error) = &status.last_error {
        text.push_str(&format!("    last error: {error}\n"));
    }
    text
}

fn status_json(status: &SnapshotStatus) -> Value {
    json!({
        "epoch": status.header.epoch.get(),
        "snapshot": status.header.snapshot.get(),
        "stage": stage_name(status.stage),
        "inodes": status.n_inodes,
        "data_bytes": status.data_bytes,
        "tarballs": status.n_tarballs,
        "tarball_bytes": status.tarball_bytes,
        "evicted_bytes": status.evicted_bytes,
        "failed_inodes": status.failed_inodes,
        "last_error": status.last_error,
    })
}

pub(crate) fn snapshots(session: &Session, store: &Path) -> Result<()> {
    let store = session.open(store)?;
    let archive = store.archive()?;
    let mut rows = Vec::new();
    let mut text = String::new();
    for summary in archive.snapshots() {
        let header = tier_status::StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot };
        let stage = store.book.status(header)?.map_or(Stage::Indexed, |status| status.stage);
        text.push_str(&format!(
            "{:>6}  {}  xids {:<17}  {:>8} inodes  {:>12}  {:>3} tarballs  {:>12}  {}\n",
            summary.snapshot.get(),
            output::time(summary.created),
            summary.range.to_string(),
            summary.n_inodes,
            output::bytes(summary.data_bytes),
            summary.n_tarballs,
            output::bytes(summary.tarball_bytes),
            stage_name(stage),
        ));
        rows.push(json!({
            "snapshot": summary.snapshot.get(),
            "epoch": summary.epoch.get(),
            "created": output::time(summary.created),
            "first_xid": summary.range.start().get(),
            "last_xid": summary.range.last().get(),
            "inodes": summary.n_inodes,
            "data_bytes": summary.data_bytes,
            "tarballs": summary.n_tarballs,
            "tarball_bytes": summary.tarball_bytes,
            "state": stage_name(stage),
        }));
    }
    session.report(&Value::Array(rows), &text)
}

pub(crate) fn log(
    session: &Session,
    store: &Path,
    (from, to): (Option<u64>, Option<u64>),
) -> Result<()> {
    let store = session.open(store)?;
    let last = store.fs.last_xid().get();
    let segments = XidRange::new(Xid::new(1), Xid::new(u64::MAX))
        .map(|all| store.fs.segments(all))
        .transpose()?
        .unwrap_or_default();
    let oldest =
        segments.first().map_or(store.base.config.xid_floor + 1, |s| s.range.start().get());
    let from = from.unwrap_or(oldest).max(oldest);
    let to = to.unwrap_or(last).min(last);
    let published = segments.last().map_or(0, |segment| segment.range.last().get());
    let mut out = session.out();
    let mut print = |record: &LogRecord| {
        let line =
            if session.json() { record_json(record).to_string() } else { record_text(record) };
        writeln!(out, "{line}").context("cannot write to standard output")
    };
    if let Some(range) = XidRange::new(Xid::new(from), Xid::new(to.min(published) + 1)) {
        read_range(store.fs.core().as_ref(), range, |_, record| {
            print(&record).map_err(Stop::Print)
        })
        .map_err(anyhow::Error::from)?;
    }
    let mut failed = None;
    store.fs.unpublished_records(Xid::new(from.max(published + 1)), &mut |record| {
        if record.xid.get() <= to && failed.is_none() {
            failed = print(&record).err();
        }
        Ok(())
    })?;
    match failed {
        Some(error) => Err(error),
        None => flush(out),
    }
}

/// Why printing the log ended early.
#[derive(Debug)]
enum Stop {
    Log(LogError),
    Print(anyhow::Error),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<Stop> for anyhow::Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Log(error) => error.into(),
            Stop::Print(error) => error,
        }
    }
}

fn record_text(record: &LogRecord) -> String {
    let operation = &record.operation;
    let time = output::time(record.time);
    let mut text =
        format!("{:>10} {time} {:<11} ino={}", record.xid.get(), operation.name(), operation.ino());
    for link in operation.links() {
        text.push_str(&format!(" {}/{}", link.parent, link.name));
    }
    match operation {
        Operation::Write { offset, len, .. } | Operation::PunchHole { offset, len, .. } => {
            text.push_str(&format!(" offset={offset} len={len}"));
        }
        Operation::Truncate { old_size, new_size, .. } => {
            text.push_str(&format!(" size={old_size}->{new_size}"));
        }
        Operation::SetXattr { name, .. } | Operation::RemoveXattr { name, .. } => {
            text.push_str(&format!(" {}", name.escape_ascii()));
        }
        Operation::Create { .. }
        | Operation::Mkdir { .. }
        | Operation::Mknod { .. }
        | Operation::Symlink { .. }
        | Operation::Link { .. }
        | Operation::Unlink { .. }
        | Operation::Rename { .. }
        | Operation::Exchange { .. }
        | Operation::SetAttr { .. }
        | Operation::Gone { .. } => {}
    }
    text
}

fn record_json(record: &LogRecord) -> Value {
    let operation = &record.operation;
    let links: Vec<_> = operation
        .links()
        .iter()
        .map(|link| json!({ "parent": link.parent.get(), "name": link.name.to_string() }))
        .collect();
    json!({
        "xid": record.xid.get(),
        "time": output::time(record.time),
        "operation": operation.name(),
        "ino": operation.ino().get(),
        "links": links,
    })
}

pub(crate) fn stats(session: &Session, store: &Path) -> Result<()> {
    let store = session.open(store)?;
    let tables = store.fs.statistics()?;
    let mut text = String::from("key-value store\n");
    for TableStatistics { table, n_keys, file_bytes } in &tables {
        text.push_str(&format!(
            "  {table:<9} about {n_keys:>10} keys  {:>12}\n",
            output::bytes(*file_bytes)
        ));
    }
    text.push_str("index\n");
    for line in store.index.statistics().lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let rows: Vec<_> = tables
        .iter()
        .map(|TableStatistics { table, n_keys, file_bytes }| {
            json!({ "table": table, "keys": n_keys, "bytes": file_bytes })
        })
        .collect();
    session.report(&json!({ "kvs": rows, "index": store.index.statistics() }), &text)
}

pub(crate) fn dump(session: &Session, store: &Path, keys: &str) -> Result<()> {
    let store = session.open(store)?;
    let mut out = session.out();
    store.fs.dump(keys, &mut out)?;
    flush(out)
}
