//! Parts of a long snapshot: planning ends between two inodes when there is enough.

use std::sync::atomic::{AtomicBool, Ordering};

use tier_types::{FileUpdate, Ino, PortError};

use crate::error::PersistError;
use crate::write::pipeline::jobs::JobQueue;
use crate::write::planner::{Planned, Planner};

/// Where a part ends.
#[derive(Clone, Copy)]
pub(super) struct PartEnd {
    /// When it has as much data …
    pub(super) part_bytes: u64,
    /// … but not before it is beyond this inode, which earlier parts reached.
    pub(super) after: Option<Ino>,
}

/// Plans all updates, or as many as a part holds, until the stop flag is set.
pub(super) fn plan_all(
    mut planner: Planner<'_>,
    updates: &mut dyn Iterator<Item = Result<FileUpdate, PortError>>,
    end: PartEnd,
    stop: &AtomicBool,
    jobs: &mut JobQueue,
) -> Result<Planned, PersistError> {
    let mut covered = None;
    for update in updates {
        // Once for each inode, each of which is a matter of microseconds here.
        if stop.load(Ordering::Relaxed) {
            return Err(PersistError::Cancelled);
        }
        let update = update.map_err(PersistError::Source)?;
        // Between two inodes, and only if there is another one: otherwise it is complete.
        if planner.data_bytes() >= end.part_bytes && covered > end.after {
            return planner.finish(covered, jobs);
        }
        planner.add(&update, jobs)?;
        covered = Some(update.ino);
    }
    planner.finish(None, jobs)
}
