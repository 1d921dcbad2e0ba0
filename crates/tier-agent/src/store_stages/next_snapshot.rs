//! Where the history goes on: the number of the next step, and what it is to cover.

use tier_persist::{Archive, PartsSoFar};
use tier_types::{Ino, SnapshotId, Xid};

use super::ports::Floor;

/// The snapshot that continues the archive, or a part of it.
pub(super) struct NextSnapshot {
    pub(super) snapshot: SnapshotId,
    /// Its first transaction, or that of its first part.
    pub(super) first: Xid,
    /// Its parts so far.
    pub(super) part: Option<PartsSoFar>,
    /// Inodes that the last one could not read in full.
    pub(super) failed: Vec<Ino>,
}

impl NextSnapshot {
    pub(super) fn after(archive: &Archive<'_>, floor: Floor) -> Self {
        let (after_floor, first) = (floor.snapshot.next(), floor.xid.next());
        match archive.snapshots().next_back() {
            None => Self { snapshot: after_floor, first, part: None, failed: Vec::new() },
            // After a restore of an older snapshot the archive here ends before the floor, and the
            // numbers between the two are used up by snapshots that are only in the cloud.
            Some(last) => Self {
                snapshot: last.snapshot.next().max(after_floor),
                first: complete_xid(archive).next().max(first),
                part: last.covered.map(|covered| PartsSoFar { covered, last_xid: last.last_xid }),
                failed: last.failed.clone(),
            },
        }
    }
}

/// The last transaction of the last snapshot that is complete.
pub(super) fn complete_xid(archive: &Archive<'_>) -> Xid {
    let mut complete = archive.snapshots().rev().filter(|summary| summary.covered.is_none());
    complete.next().map_or(Xid::new(0), |summary| summary.last_xid)
}
