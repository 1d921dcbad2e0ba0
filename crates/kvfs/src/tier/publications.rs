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
//!    directory.
//! 4. Record the segment in the store and delete the published records, in one batch. From then on
//!    the range is published. Not synced.
//! 5. Hold the snapshot under its last transaction id, until it is released.
//! 6. Tell the listeners.
//!
//! # Crash windows
//! One batch decides, so that there are two cases. Before it, or if it was not durable, nothing was
//! published: the records are all in the store, the next publication covers them, and a file that
//! is there, temporary or not, is a leftover that the next opening removes. After it the file is
//! there for sure, and the records are not needed any more. The same holds for a step that fails
//! without a crash. A retirement is the other way round: it is recorded and synced, then the files
//! go, and those that do not go are leftovers. What is recorded and not there, between segments or
//! between the segments and the records, is a loss and stops the opening (`store/agreement.rs`):
//! transactions would be missing from the history.
//!
//! A crash loses every held snapshot, and with it whatever was to be persisted from it. If nothing
//! was logged since, the present is the same state and serves in its place; if something was, it is
//! gone for good, the caller is told so, and the next publication covers both ranges. So a lost
//! snapshot costs work and no data. After a restart the transaction id goes on behind the one that
//! the newest batch of the key-value store says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tier_types::{ErrorKind, PortError, Publication, XidRange, with_causes};

use super::snapshot::KvfsSnapshot;
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;

impl Core {
    pub(super) fn publish_now(&self) -> Result<Option<Publication>, FsError> {
        self.check_writable()?;
        // What was removed and is not yet gone would be archived for nothing.
        if let Err(error) = self.reap_all_forgotten() {
            tracing::debug!(error = %with_causes(&error), "orphans are published");
        }
        // It makes nothing larger but by its file: the records go with it.
        let _room = self.admit(Purpose::Removal, ROWS_BYTES)?;
        let _publishing = self.publications.publishing.lock();
        let begin = Instant::now();
        // Before the snapshot: what is committed in between counts once more with the next one.
        let committed_bytes = self.room.committed_bytes();
        let (snapshot, last) = self.committer.snapshot()?;
        let first = self.publications.published().next();
        let Some(range) = XidRange::new(first, last.next()) else { return Ok(None) };
        assert_eq!(range.last(), last, "the segment describes exactly this snapshot");
        // The segment must not know of operations that a loss of power can still undo.
        self.fsync()?;
        // From the snapshot and not from the store, which has gone on meanwhile.
        let records = snapshot.reader().log_of(range)?;
        let segment = self.publications.segments.write(range, self.chunk_bytes, records)?;
        // Whatever comes of this, the file stays: the batch may be in the write-ahead log although
        // it failed, and then it counts from the next opening on.
        self.committer.write_beside(|db| db.record_published(range))?;
        self.publications.segments.add(segment);
        self.publications.published_bytes.store(committed_bytes, Ordering::Relaxed);
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
                // Both from one moment under the lead: an id that was read apart from the snapshot
                // could belong to another state.
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
