//! The index as the port [`Persisted`]: what can be read back from the archive.
//!
//! The newest state that the index knows of a chunk is the only one that counts. If it has exactly
//! the data xid asked for, and lies in a tarball of a snapshot that is safe, the data can be read
//! back; whatever else is known (an older version, a hole, a lost range, a newer version) means no,
//! for those chunks and no others. A "no" that could have been a "yes" costs space until the next
//! snapshot; the other mistake would cost data.

use tier_types::{ChunkRange, Ino, Persisted, PortError, SnapshotId, Xid};

use crate::{Extent, Index, InodeLocation};

/// Extents that are asked of the index at a time: one at first, which is all that most questions
/// need, and more and more of them for a range that lies in many.
const N_EXTENTS_MAX: usize = 256;

/// Answers [`Persisted`] from an index, counting only what is in snapshots up to one.
#[derive(Debug)]
pub struct PersistedUntil<'a> {
    index: &'a Index,
    snapshot: SnapshotId,
}

impl Index {
    /// What is archived in this snapshot and those before it. The caller knows how safe those are.
    pub fn persisted_until(&self, snapshot: SnapshotId) -> PersistedUntil<'_> {
        PersistedUntil { index: self, snapshot }
    }
}

impl PersistedUntil<'_> {
    fn is_safe(&self, extent: &Extent, data_xid: Xid) -> bool {
        // A hole has no location, and is no data that could be read back; and what is lost here may
        // be whole in the filesystem, which then has the only copy.
        let archived = extent.data().map(|data| data.location.tarball.snapshot);
        extent.data_xid == data_xid && archived.is_some_and(|at| at <= self.snapshot)
    }
}

impl Persisted for PersistedUntil<'_> {
    fn first_persisted(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        let mut first: Option<ChunkRange> = None;
        let (mut rest, mut n_max) = (Some(chunks), 1);
        while let Some(range) = rest {
            let page = self.index.extents(ino, range.start(), n_max)?;
            for extent in &page {
                let found = extent.chunks.intersection(chunks);
                let safe = found.filter(|_| self.is_safe(extent, data_xid));
                first = match (first, safe) {
                    (None, safe) => safe,
                    // Of the same version, it may lie in several extents.
                    (Some(first), Some(safe)) if first.end() == safe.start() => {
                        ChunkRange::new(first.start(), safe.end())
                    }
                    // A gap, another version or an unsafe extent ends the range; joined over it,
                    // the answer would promise chunks that cannot be read back.
                    (Some(_), _) => return Ok(first),
                };
            }
            // An empty page ends the search: the index knows nothing of the inode from there on.
            let end = page.last().map(|extent| extent.chunks.end());
            rest = end.and_then(|end| ChunkRange::new(end, chunks.end()));
            n_max = (4 * n_max).min(N_EXTENTS_MAX);
        }
        Ok(first)
    }

    fn snapshot_of(&self, ino: Ino, xid: Xid) -> Result<Option<SnapshotId>, PortError> {
        let snapshot = match self.index.inode(ino)? {
            // Only the newest metadata is known: of an earlier transaction there is no answer.
            Some(InodeLocation::At { xid: archived, location }) if archived == xid => {
                Some(location.tarball.snapshot)
            }
            Some(InodeLocation::At { .. } | InodeLocation::Gone { .. }) | None => None,
        };
        Ok(snapshot.filter(|snapshot| *snapshot <= self.snapshot))
    }
}

impl Persisted for Index {
    fn first_persisted(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        // Beyond every snapshot: whatever is in the index counts, safe or not.
        self.persisted_until(SnapshotId::new(u64::MAX)).first_persisted(ino, chunks, data_xid)
    }

    fn snapshot_of(&self, ino: Ino, xid: Xid) -> Result<Option<SnapshotId>, PortError> {
        self.persisted_until(SnapshotId::new(u64::MAX)).snapshot_of(ino, xid)
    }
}
