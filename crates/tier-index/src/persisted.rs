//! What is safely archived.

use tier_types::{ChunkRange, Ino, Persisted, PortError, SnapshotId, Xid};

use crate::{Index, InodePlace};

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

impl Persisted for PersistedUntil<'_> {
    fn is_persisted(&self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<bool, PortError> {
        let mut at = chunks.start();
        while at < chunks.end() {
            let found = self.index.find(ino, at)?;
            let safe = found.filter(|extent| {
                let archived = extent.place.map(|place| place.tarball.snapshot);
                extent.data_xid == data_xid && archived.is_some_and(|at| at <= self.snapshot)
            });
            match safe {
                Some(extent) => at = extent.chunks.end(),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn snapshot_of(&self, ino: Ino, xid: Xid) -> Result<Option<SnapshotId>, PortError> {
        let snapshot = match self.index.inode(ino)? {
            Some(InodePlace::At { xid: archived, place }) if archived == xid => {
                Some(place.tarball.snapshot)
            }
            Some(InodePlace::At { .. } | InodePlace::Gone { .. }) | None => None,
        };
        Ok(snapshot.filter(|snapshot| *snapshot <= self.snapshot))
    }
}

impl Persisted for Index {
    fn is_persisted(&self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<bool, PortError> {
        self.persisted_until(SnapshotId::new(u64::MAX)).is_persisted(ino, chunks, data_xid)
    }

    fn snapshot_of(&self, ino: Ino, xid: Xid) -> Result<Option<SnapshotId>, PortError> {
        self.persisted_until(SnapshotId::new(u64::MAX)).snapshot_of(ino, xid)
    }
}
