//! A filesystem on a disk that has what it is told, for the tests of room.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tempfile::TempDir;
use tier_types::{
    Call, ChunkRange, FileKind, Ino, Persisted, PortError, Recall, RecallHint, RecallRequest,
    RecalledExtent, SnapshotId, Xid, to_usize,
};

use crate::check::Finding;
use crate::core::Core;
use crate::space::limit::DiskSpace;
use crate::space::measure::Disk;
use crate::store::{self, Db};
use crate::testing::{CHUNK, StandingClock, name, node, options};
use crate::{FsError, Kvfs, KvfsOptions};

pub(super) const MB: u64 = 1_000_000;

/// A disk that has what it is told.
pub(super) struct FakeDisk {
    pub(super) db: Arc<Db>,
    space: Mutex<DiskSpace>,
}

impl FakeDisk {
    pub(super) fn set_left(&self, bytes: u64) {
        let mut space = self.space.lock();
        space.used_bytes = space.capacity_bytes - bytes;
    }
}

impl Disk for Arc<FakeDisk> {
    fn space(&self) -> Result<DiskSpace, FsError> {
        Ok(*self.space.lock())
    }

    fn own_bytes(&self) -> Result<u64, FsError> {
        self.db.physical_bytes()
    }

    fn unflushed_bytes(&self) -> Result<u64, FsError> {
        self.db.unflushed_bytes()
    }

    fn flush(&self) -> Result<(), FsError> {
        self.db.flush()
    }
}

/// An archive in which every byte is 7, in chunks of a size.
pub(super) struct Evicted(pub(super) u32);

impl Recall for Evicted {
    fn recall_with(
        &self,
        _: &Call<'_>,
        _: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        let bytes = to_usize(request.chunks.len() * u64::from(self.0));
        RecalledExtent::new(request, request.chunks, vec![7; bytes], self.0)
    }
}

impl Persisted for Evicted {
    fn first_persisted(
        &self,
        _: Ino,
        chunks: ChunkRange,
        _: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        Ok(Some(chunks))
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Ok(None)
    }
}

pub(super) struct World {
    _dir: TempDir,
    pub(super) fs: Kvfs,
    pub(super) disk: Arc<FakeDisk>,
}

impl World {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        Self::with_chunks(capacity_bytes, CHUNK)
    }

    pub(super) fn with_chunks(capacity_bytes: u64, chunk_bytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write_buffer_bytes = 1 << 20;
        let options = KvfsOptions { chunk_bytes, write_buffer_bytes, capacity_bytes, ..options() };
        drop(Core::create(dir.path(), &options, Arc::new(StandingClock)).unwrap());
        // On the real disk, which may be nearly full: the fake one begins empty.
        let _ = std::fs::remove_file(dir.path().join("ballast"));
        let opened = store::open(dir.path(), &options).unwrap();
        let db = Arc::clone(&opened.db);
        let space = DiskSpace { used_bytes: 0, capacity_bytes: 200 * MB };
        let disk = Arc::new(FakeDisk { db, space: Mutex::new(space) });
        let own_disk = Box::new(Arc::clone(&disk));
        let clock = Arc::new(StandingClock);
        let none = Xid::new(0);
        let core = Core::open_on(dir.path(), &options, clock, opened, none, own_disk).unwrap();
        Self { _dir: dir, fs: Kvfs::new(Arc::new(core), Arc::new(Evicted(chunk_bytes))), disk }
    }

    /// What is left is seen by the next operation, and not by a look that comes by time.
    pub(super) fn set_left(&self, bytes: u64) {
        // What is in memory counts: it would blur the classes.
        self.disk.db.flush().unwrap();
        self.disk.set_left(bytes);
        self.forget();
    }

    pub(super) fn forget(&self) {
        self.fs.core().room.state.lock().last_look = None;
    }

    pub(super) fn check(&self) {
        let mut problems = Vec::new();
        let mut found = |finding: Finding| problems.push(finding.problem.to_string());
        self.fs.fsck(&Evicted(CHUNK), &mut found, &AtomicBool::new(false)).unwrap();
        assert_eq!(problems, [""; 0]);
    }

    pub(super) fn file(&self, text: &str) -> Ino {
        let node = node(FileKind::Regular);
        self.fs.create_node(Ino::ROOT, &name(text), &node).unwrap().ino
    }
}
