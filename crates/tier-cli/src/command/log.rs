//! `tier log`: the records of the operation log, published and not yet published.
//!
//! Published records lie in segments, which are files; the others lie in the key-value store. A
//! transaction is in one of the two. Segments that are needed no more are retired, so that the
//! oldest record that can be printed is later than the first transaction of the filesystem. With
//! `--json`, each record is one line: a log may be long, and its reader need not wait for its end.

use std::io::Write;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tier_log::{LogError, LogRecord, Operation, read_range};
use tier_types::{LogReader, Xid, XidRange};

use super::flush;
use crate::args::LogArgs;
use crate::context::Context;

pub(super) fn run(context: &Context, args: &LogArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let segments = store.fs.segments(every_xid())?;
    // Before the oldest segment there is nothing: those before it were retired, or belong to the
    // store that this one was restored from.
    let floor = store.config().xid_floor;
    let oldest = segments.first().map_or(floor + 1, |segment| segment.range.start().get());
    // Without a segment all records that are left lie in the key-value store.
    let published = segments.last().map_or(0, |segment| segment.range.last().get());
    let last = store.fs.last_xid().get();
    // What was asked for is cut to what is there: an older record is retired, a later one not yet
    // made.
    let from = args.from.unwrap_or(oldest).max(oldest);
    let to = args.to.unwrap_or(last).min(last);
    let mut out = context.console.out();
    let json = context.console.json();
    let mut print = |record: &LogRecord| {
        let line = if json { record_json(record).to_string() } else { record_text(record) };
        writeln!(out, "{line}").context("cannot write to standard output")
    };
    // The end of a range is not part of it, hence the addition. No range is left if all is
    // unpublished.
    if let Some(range) = XidRange::new(Xid::new(from), Xid::new(to.min(published) + 1)) {
        let printed = read_range(store.fs.core().as_ref(), range, |_, record| {
            print(&record).map_err(End::Print)
        });
        printed.map_err(anyhow::Error::from)?;
    }
    // The visitor's error is the filesystem's, so that one of printing is kept and returned below.
    let mut failed = None;
    store.fs.unpublished_records(Xid::new(from.max(published + 1)), &mut |record| {
        if record.xid.get() <= to && failed.is_none() {
            failed = print(&record).err();
        }
        Ok(())
    })?;
    // A broken pipe must arrive as such, so that a reader that has seen enough is no failure.
    failed.map_or(Ok(()), Err)?;
    flush(out)
}

#[expect(clippy::expect_used, reason = "a constant range that is not empty")]
fn every_xid() -> XidRange {
    XidRange::new(Xid::new(1), Xid::new(u64::MAX)).expect("1 is less than the largest number")
}

/// Why printing the log ended early.
#[derive(Debug)]
enum End {
    Log(LogError),
    Print(anyhow::Error),
}

impl From<LogError> for End {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<End> for anyhow::Error {
    fn from(end: End) -> Self {
        match end {
            End::Log(error) => error.into(),
            End::Print(error) => error,
        }
    }
}

fn record_text(record: &LogRecord) -> String {
    let operation = &record.operation;
    let time = record.time.to_string();
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
            // An attribute's name is bytes, and the terminal must not take them for a command.
            text.push_str(&format!(" {}", name.escape_ascii()));
        }
        // Named one by one, so that a new operation does not compile until its text is decided.
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
        "time": record.time.to_string(),
        "operation": operation.name(),
        "ino": operation.ino().get(),
        "links": links,
    })
}
