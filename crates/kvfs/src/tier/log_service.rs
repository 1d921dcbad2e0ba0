//! The operation log as a port.

use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::atomic::Ordering;

use tier_log::{LogError, LogRecord};
use tier_types::{
    Backlog, LogReader, LogService, PortError, Publication, PublicationListener, SegmentInfo, Xid,
    XidRange,
};

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;

/// Bytes of a segment that are read at a time.
const READ_BYTES: usize = 1 << 20;

impl Core {
    /// What was done since the last publication.
    pub(super) fn backlog(&self) -> Backlog {
        let published = &self.publications.published_bytes;
        Backlog {
            // Commits and a publication of them may come between the two reads, so that the second
            // is ahead of the first: then the backlog counts as empty.
            operations: self
                .committer
                .last_xid()
                .get()
                .saturating_sub(self.publications.published().get()),
            bytes: self.room.committed_bytes().saturating_sub(published.load(Ordering::Relaxed)),
        }
    }

    /// The records from `from` on that are not published yet.
    pub fn unpublished_records(
        &self,
        from: Xid,
        visit: &mut dyn FnMut(LogRecord) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        // Not as an operation: looking at the log is no foreground activity.
        self.db.reader().log_from(from)?.try_for_each(|record| visit(record?))
    }
}

impl LogReader for Core {
    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError> {
        Ok(self.publications.segments.covering(range))
    }

    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError> {
        let file = File::open(&segment.name).map_err(|source| LogError::Io {
            operation: "open",
            name: segment.name.clone(),
            source,
        })?;
        Ok(Box::new(BufReader::with_capacity(READ_BYTES, file)))
    }

    fn last_xid(&self) -> Xid {
        self.committer.last_xid()
    }
}

impl LogService for Core {
    fn publish(&self) -> Result<Option<Publication>, PortError> {
        Ok(self.publish_now()?)
    }

    fn on_publication(&self, listener: PublicationListener) {
        self.publications.listeners.lock().push(listener);
    }

    fn release(&self, publication: &Publication) -> Result<(), PortError> {
        tracing::debug!(range = %publication.range, "snapshot released");
        // A reader that is still at it has a share of its own, and keeps the snapshot and the
        // extents that this shows until it ends.
        let released = self.publications.snapshots.lock().remove(&publication.range.last());
        let was_held = released.is_some();
        drop(released);
        if was_held {
            self.freed.give_back_if_unpinned(&self.committer);
            self.room.forget_look();
        }
        Ok(())
    }

    fn retire_segments(&self, xid: Xid) -> Result<(), PortError> {
        tracing::debug!(%xid, "retiring segments");
        let _room = self.admit(Purpose::Removal, ROWS_BYTES)?;
        let record = |retired: &[_]| {
            self.committer.write_beside(|db| db.record_retired(retired))?;
            // The files go only then.
            self.committer.sync()
        };
        Ok(self.publications.segments.retire(xid, record)?)
    }
}
