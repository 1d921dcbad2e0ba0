//! Recovery: what a crash interrupted is finished or undone, before the agent does anything else.
//!
//! The manifest decides. A snapshot exists from the moment at which its manifest is durable; its
//! tarballs are durable before that, its index entries and events come after it. A crash leaves one
//! of few states, each of which has one remedy:
//!
//! | the crash came | what is found | remedy |
//! | --- | --- | --- |
//! | before the manifest | tarballs without a manifest | they are discarded |
//! | after the manifest, before the index | an index that ends earlier | it catches up |
//! | after the index, before its event | a status log that lags | the events are added |
//! | while uploading | objects without a "verified" | the next task uploads again |
//! | while evicting | detours, and the old cursor | the next pass starts there again |
//!
//! In the first case the KVS snapshot went with the process. Nothing is lost: the log segments are
//! there, and the next publication covers their transactions with a later state.
//!
//! **Order.** First the index catches up: after that it includes every snapshot that counts. Then
//! it is checked that no status log knows of a later one; its manifest would be lost, its tarballs
//! look like those of the first case, and its number like a free one. That is an error, which names
//! the snapshot and what to do, before anything was removed, and so is a filesystem that is behind
//! its archive. Only then leftovers are discarded. The events come last, because "indexed" must be
//! true when it is said.
//!
//! A manifest that is lost *and* in the index costs nothing here: the index knows its digest, and
//! the cloud has it.
//!
//! **Again.** A crash within recovery leaves a state from the same table: catching up and
//! discarding can be repeated, and events that are recorded twice change nothing.
//!
//! What is *not* done here is as deliberate. Nothing is uploaded, verified or evicted: a store must
//! open although its cloud is away. And nothing is deleted in the cloud.

use tier_persist::{Archive, PersistError, Persister, SnapshotSummary};
use tier_status::{Event, StatusHeader, StatusSink};
use tier_types::SnapshotId;

use super::context::{StageContext, header_of};
use super::next_snapshot::NextSnapshot;
use crate::AgentError;

/// Finishes or undoes what a crash interrupted.
pub(super) fn recover(context: &StageContext, persister: &Persister) -> Result<(), AgentError> {
    let floor = context.ports.floor;
    let next = NextSnapshot::after(&context.archive()?, floor);
    if !context.catch_up_if_within_reach(next.snapshot)? {
        // It catches up before the next snapshot; until then nothing is taken for a leftover.
        return Ok(());
    }
    let archive = context.archive()?;
    // Without a snapshot every tarball is a leftover.
    let none = SnapshotId::new(0);
    let last = archive.snapshots().next_back().map_or(none, |newest| newest.snapshot);
    check_nothing_is_lost(context, last)?;
    check_filesystem(context, &archive)?;
    persister.discard_uncommitted(context.ports.epoch, last)?;
    // Each snapshot's events are recorded before the next one is begun, so that only the last may
    // lack some; all do whose logs an operator moved away together.
    for summary in archive.snapshots().rev().filter(|summary| !summary.is_lost) {
        if context.status(summary)?.is_some_and(|status| status.is_indexed()) {
            break;
        }
        tracing::info!(snapshot = %summary.snapshot, "a crash lost the events of a snapshot");
        let status = context.status_sink(header_of(summary))?;
        status.report(Event::Resumed)?;
        // Its counts come from the manifest; those of single tarballs are not needed any more.
        status.report(committed(summary))?;
        status.report(Event::Indexed)?;
    }
    Ok(())
}

/// No snapshot was committed after the last one that the index includes.
fn check_nothing_is_lost(context: &StageContext, last: SnapshotId) -> Result<(), AgentError> {
    for status in context.ports.book.after(last)? {
        // A log that ends before its commit is of an attempt that never counted.
        if status.is_committed() {
            let StatusHeader { epoch, snapshot } = status.header;
            let what = format!(
                "the manifest of snapshot {snapshot} (epoch {epoch}), which was committed, is not \
                 in the local store; copy it back from the cloud. It"
            );
            return Err(PersistError::Missing(what).into());
        }
    }
    Ok(())
}

/// The filesystem has everything that was persisted of it. One that has not would give the ids of
/// the transactions that it lost to others, and the archive would hold both under one id.
fn check_filesystem(context: &StageContext, archive: &Archive<'_>) -> Result<(), AgentError> {
    let last = context.ports.log.last_xid();
    let archived = archive.snapshots().next_back().map(|newest| newest.last_xid);
    match archived.filter(|archived| *archived > last) {
        Some(archived) => Err(AgentError::BehindArchive { last, archived }),
        None => Ok(()),
    }
}

fn committed(summary: &SnapshotSummary) -> Event {
    Event::Committed {
        manifest: format!("snapshot {}", summary.snapshot),
        n_tarballs: summary.n_tarballs,
        n_inodes: summary.n_inodes,
        data_bytes: summary.data_bytes,
        tarball_bytes: summary.tarball_bytes,
    }
}
