//! Publications: a KVS snapshot and the log segment that describes it, made together.
//!
//! The log is written into the key-value store record by record, each in the batch of its
//! operation. A publication cuts it: the records since the last one become an immutable segment
//! file, and a KVS snapshot is kept that shows the filesystem exactly as the segment's last
//! transaction left it. The persister reads the changed inodes from that snapshot; if segment and
//! snapshot did not belong together, it would archive a state that no transaction ever made.
//!
//! The steps, one publication at a time:
//!
//! 1. Take the KVS snapshot and the last transaction id, under the committer's lead: no batch is
//!    half written then.
//! 2. Sync the write-ahead log. The segment must not hold an operation that a loss of power undoes.
//! 3. Write the segment *from the snapshot*, under a temporary name; sync it, rename it, sync its
//!    directory. From the rename on the range is published.
//! 4. Delete the published records from the store. Not synced.
//! 5. Hold the snapshot under its last transaction id, until it is released.
//! 6. Tell the listeners.
//!
//! # Crash windows
//! Before the rename there is at most a temporary file, which the next opening removes: nothing was
//! published, the records are all there, and the next publication covers them. Between the rename
//! and the deletion (or if the deletion was not durable) records are both in the segment and in the
//! store: opening goes by the segments, deletes the records up to the last published transaction
//! again, and finds that the rest goes on right behind it (`recover_log` in `core`). A gap, between
//! segments or between the segments and the records, is damage and stops the opening: transactions
//! would be missing from the history.
//!
//! A crash loses every held snapshot, and with it whatever was to be persisted from it. If nothing
//! was logged since, the present is the same state and serves in its place; if something was, it is
//! gone for good, the caller is told so, and the next publication covers both ranges. So a lost
//! snapshot costs work and no data. After a restart the transaction id goes on behind the last
//! record, the last published segment or the floor that a restore set, whichever is highest; the
//! newest segment is therefore never retired.

use std::sync::Arc;
use std::time::Instant;

use tier_types::{ErrorKind, PortError, Publication, XidRange};

use super::snapshot::KvfsSnapshot;
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;

impl Core {
    pub(super) fn publish_now(&self) -> Result<Option<Publication>, FsError> {
        // It makes nothing larger but by its file: the records go with it.
        let _room = self.admit(Purpose::Removal, ROWS_BYTES)?;
        let _publishing = self.publications.publishing.lock();
        let begin = Instant::now();
        let (snapshot, last) = self.committer.snapshot()?;
        let first = self.publications.published().next();
        let Some(range) = XidRange::new(first, last.next()) else { return Ok(None) };
        assert_eq!(range.last(), last, "the segment describes exactly this snapshot");
        // The segment must not know of operations that a loss of power can still undo.
        self.fsync()?;
        // From the snapshot and not from the store, which has gone on meanwhile.
        let records = snapshot.reader().log_of(range)?;
        self.publications.segments.publish(range, self.chunk_bytes, records)?;
        // The records first: a publication that fails here is never released, and a KVS snapshot
        // that it held would stay.
        self.db.release_log(last)?;
        self.publications.snapshots.lock().insert(last, Arc::new(snapshot));
        tracing::info!(%range, elapsed = ?begin.elapsed(), "published");
        let publication = Publication { range };
        // On this thread and with `publishing` held: listeners hear of publications in order.
        for listener in self.publications.listeners.lock().iter() {
            listener(&publication);
        }
        Ok(Some(publication))
    }

    /// The KVS snapshot of a publication. If a crash let go of it, and nothing happened since, the
    /// present is the same.
    pub(super) fn snapshot_at(&self, publication: &Publication) -> Result<KvfsSnapshot, PortError> {
        let last = publication.range.last();
        let held = self.publications.snapshots.lock().get(&last).map(Arc::clone);
        let snapshot = match held {
            Some(snapshot) => snapshot,
            None => {
                let (taken, now) = self.committer.snapshot()?;
                if now != last {
                    let message = format!("the snapshot at xid {last} is gone; publish again");
                    return Err(PortError::new(ErrorKind::Missing, message));
                }
                let snapshot = Arc::new(taken);
                self.publications.snapshots.lock().insert(last, Arc::clone(&snapshot));
                snapshot
            }
        };
        let (chunk_bytes, activity) = (self.chunk_bytes, Arc::clone(&self.activity));
        Ok(KvfsSnapshot { snapshot, xid: last, chunk_bytes, activity })
    }
}
