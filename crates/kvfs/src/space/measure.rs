//! What there is to measure: the disk, and the files of a store.

use std::sync::Arc;

use super::limit::DiskSpace;
use crate::FsError;
use crate::store::{Db, Segments};

/// Where the numbers of an account come from. A test has a disk of its own.
pub(crate) trait Disk: Send + Sync {
    /// How full the disk is.
    fn space(&self) -> Result<DiskSpace, FsError>;

    /// Bytes of the filesystem's own files, the ballast left out.
    fn own_bytes(&self) -> Result<u64, FsError>;

    /// Bytes that RocksDB holds in memory and has yet to write.
    fn unflushed_bytes(&self) -> Result<u64, FsError>;

    /// Has RocksDB write them, after which its log is gone.
    fn flush(&self) -> Result<(), FsError>;
}

/// The disk on which a store is.
pub(crate) struct StoreDisk {
    db: Arc<Db>,
    /// The published log segments, if there are any.
    segments: Option<Arc<Segments>>,
}

impl StoreDisk {
    pub(crate) fn new(db: Arc<Db>, segments: Option<Arc<Segments>>) -> Self {
        Self { db, segments }
    }
}

impl Disk for StoreDisk {
    fn space(&self) -> Result<DiskSpace, FsError> {
        let stat = self.db.statvfs()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let used_bytes = bytes(stat.f_blocks.saturating_sub(stat.f_bfree));
        // Blocks that are set apart for root are left out: an ordinary write fails before it gets
        // them.
        let capacity_bytes = used_bytes.saturating_add(bytes(stat.f_bavail));
        Ok(DiskSpace { used_bytes, capacity_bytes })
    }

    fn own_bytes(&self) -> Result<u64, FsError> {
        let segments = self.segments.as_ref().map_or(0, |segments| segments.bytes());
        Ok(self.db.physical_bytes()? + segments)
    }

    fn unflushed_bytes(&self) -> Result<u64, FsError> {
        self.db.unflushed_bytes()
    }

    fn flush(&self) -> Result<(), FsError> {
        self.db.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::store;

    #[test]
    fn a_disk_is_no_fuller_than_it_is_large() {
        let (_dir, db) = store();
        let disk = StoreDisk::new(db, None);
        let DiskSpace { used_bytes, capacity_bytes } = disk.space().unwrap();
        assert!(0 < used_bytes && used_bytes <= capacity_bytes);
    }

    #[test]
    fn a_flush_empties_what_is_in_memory() {
        let (_dir, db) = store();
        let disk = StoreDisk::new(Arc::clone(&db), None);
        let before = disk.unflushed_bytes().unwrap();
        let mut batch = crate::store::Batch::default();
        batch.put(crate::store::Table::Xattrs, b"key", vec![1; 1 << 20]);
        db.write(batch).unwrap();
        assert!(disk.unflushed_bytes().unwrap() >= before + (1 << 20));
        disk.flush().unwrap();
        assert!(disk.unflushed_bytes().unwrap() < 1 << 20);
    }
}
