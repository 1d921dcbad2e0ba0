//! Parts of a long snapshot: planning ends between two inodes when there is enough.

use std::sync::atomic::{AtomicBool, Ordering};

use tier_types::{FileUpdate, Ino, PortError};

use crate::error::PersistError;
use crate::write::pipeline::jobs::JobQueue;
use crate::write::planner::{Planned, Planner};

/// Updates whose inodes are read together.
const N_UPDATES_READ: usize = 64;

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
    loop {
        let page = (&mut *updates).take(N_UPDATES_READ).collect::<Result<Vec<_>, _>>();
        let page = page.map_err(PersistError::Source)?;
        if page.is_empty() {
            return planner.finish(None, jobs);
        }
        for update in planner.read(page)? {
            // Once for each inode, each of which is a matter of microseconds here.
            if stop.load(Ordering::Relaxed) {
                return Err(PersistError::Cancelled);
            }
            // Between two inodes, and only if there is another one: otherwise it is complete.
            if planner.data_bytes() >= end.part_bytes && covered > end.after {
                return planner.finish(covered, jobs);
            }
            covered = Some(update.update.ino);
            planner.add(update, jobs)?;
        }
    }
}
