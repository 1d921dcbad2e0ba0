//! What there is to measure: the disk, and the files of a store.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::limit::DiskSpace;
use crate::FsError;
use crate::store::Db;

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
    /// Directories of the filesystem besides that of the key-value store.
    directories: Vec<PathBuf>,
}

impl StoreDisk {
    pub(crate) fn new(db: Arc<Db>, directories: Vec<PathBuf>) -> Self {
        Self { db, directories }
    }
}

impl Disk for StoreDisk {
    fn space(&self) -> Result<DiskSpace, FsError> {
        let stat = self.db.statvfs()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let used_bytes = bytes(stat.f_blocks.saturating_sub(stat.f_bfree));
        let capacity_bytes = used_bytes.saturating_add(bytes(stat.f_bavail));
        Ok(DiskSpace { used_bytes, capacity_bytes })
    }

    fn own_bytes(&self) -> Result<u64, FsError> {
        let mut bytes = self.db.physical_bytes()?;
        for directory in &self.directories {
            let found = tree_bytes(directory);
            bytes += found.map_err(|source| FsError::io("measure the files beside", source))?;
        }
        Ok(bytes)
    }

    fn unflushed_bytes(&self) -> Result<u64, FsError> {
        self.db.unflushed_bytes()
    }

    fn flush(&self) -> Result<(), FsError> {
        self.db.flush()
    }
}

/// Bytes that the files below a directory take on the disk. One that is not there takes none.
fn tree_bytes(directory: &Path) -> io::Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let gone = |error: io::Error| {
        // Files come and go while they are measured.
        if error.kind() == io::ErrorKind::NotFound { Ok(0) } else { Err(error) }
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return gone(error),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => tree_bytes(&entry.path())?,
            Ok(metadata) => metadata.blocks().saturating_mul(BLOCK_BYTES),
            Err(error) => gone(error)?,
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::store;

    #[test]
    fn a_disk_is_no_fuller_than_it_is_large() {
        let (_dir, db) = store();
        let disk = StoreDisk::new(db, Vec::new());
        let DiskSpace { used_bytes, capacity_bytes } = disk.space().unwrap();
        assert!(0 < used_bytes && used_bytes <= capacity_bytes);
    }

    #[test]
    fn files_below_a_directory_count_by_their_blocks() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        fs::write(dir.path().join("below/file"), vec![7; 100_000]).unwrap();
        let bytes = tree_bytes(dir.path()).unwrap();
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        assert_eq!(tree_bytes(&dir.path().join("missing")).unwrap(), 0);
    }

    #[test]
    fn a_flush_empties_what_is_in_memory() {
        let (_dir, db) = store();
        let disk = StoreDisk::new(Arc::clone(&db), Vec::new());
        let before = disk.unflushed_bytes().unwrap();
        let mut batch = crate::store::Batch::default();
        batch.put(crate::store::Table::Xattrs, b"key", vec![1; 1 << 20]);
        db.write(batch).unwrap();
        assert!(disk.unflushed_bytes().unwrap() >= before + (1 << 20));
        disk.flush().unwrap();
        assert!(disk.unflushed_bytes().unwrap() < 1 << 20);
    }
}
