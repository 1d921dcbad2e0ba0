//! The driver of a filesystem under test, and what the suites of the two ports share.
//!
//! A suite must change a filesystem to see what its ports say of it, and no port can do that. The
//! driver has the five operations that are needed and no more, on files in the root directory, so
//! that it is written in some twenty lines for any filesystem. Everything else goes through the
//! ports. Behind the filesystem stands a [`FakeArchive`], so that what a suite evicts comes back.

use std::sync::Arc;

use crate::OneByOne;
use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, Ino, LogService, MountedInstance, MountedSnapshot, PortError,
    Publication, Recall, ResidentExtent, SnapshotId, SnapshotReader, Xid, to_usize,
};

use crate::FakeArchive;

/// A filesystem under test: its two ports, and the few operations through which a suite changes it.
///
/// Names are of files in the root directory, whose inode is [`Ino::ROOT`]. An operation that fails
/// should panic, but for [`read`](Self::read), whose errors a suite looks at.
pub trait TestFilesystem: Sync {
    /// The port that gives out its log.
    fn log(&self) -> &dyn LogService;

    /// The port through which it is read and evicted from.
    fn instance(&self) -> &dyn MountedInstance;

    /// Writes bytes at a byte offset of a file, which is made if it is not there. Returns its
    /// inode.
    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Ino;

    /// Sets the size of a file.
    fn truncate(&self, name: &str, size_bytes: u64);

    /// Removes a file for good: nothing has it open.
    fn remove(&self, name: &str);

    /// All bytes of a file. What is evicted is recalled and, as there is room, kept.
    fn read(&self, name: &str) -> Result<Vec<u8>, PortError>;
}

/// Makes filesystems for a suite. What they need of the disk is the factory's to remove.
pub trait TestFilesystems {
    /// What it makes.
    type Filesystem: TestFilesystem;

    /// A new filesystem with a root directory and nothing in it. It reads evicted data back
    /// through `recall`.
    fn create(&self, recall: Arc<dyn Recall>) -> Self::Filesystem;

    /// A new filesystem, without a root, into which `fill` restores; then it is opened for use. Its
    /// own transactions and inode numbers come after `last`.
    fn restore(
        &self,
        recall: Arc<dyn Recall>,
        last: Xid,
        fill: &dyn Fn(&dyn MountedInstance),
    ) -> Self::Filesystem;
}

/// A filesystem under test, with an archive behind it.
pub(super) struct Subject<F> {
    pub(super) fs: F,
    pub(super) archive: Arc<FakeArchive>,
    /// Bytes of a chunk, the same for all files and in every snapshot.
    pub(super) chunk: u64,
}

impl<F: TestFilesystem> Subject<F> {
    pub(super) fn create(filesystems: &impl TestFilesystems<Filesystem = F>) -> Self {
        let archive = Arc::new(FakeArchive::default());
        let fs = filesystems.create(archive.clone());
        fs.write("first", 0, b"so that there is something to publish");
        let publication = fs.log().publish().unwrap().expect("something was logged");
        let snapshot = fs.instance().open_snapshot(&publication).unwrap();
        let chunk = u64::from(snapshot.chunk_bytes());
        assert!(chunk > 0, "a chunk has bytes");
        Self { fs, archive, chunk }
    }

    pub(super) fn instance(&self) -> &dyn MountedInstance {
        self.fs.instance()
    }

    /// Publishes what was logged, of which there must be something.
    pub(super) fn publish(&self) -> (Publication, Arc<dyn MountedSnapshot>) {
        let publication = self.fs.log().publish().unwrap().expect("something was logged");
        let snapshot = self.instance().open_snapshot(&publication).unwrap();
        assert_eq!(u64::from(snapshot.chunk_bytes()), self.chunk, "chunks are of one size");
        (publication, snapshot)
    }

    /// Publishes what was logged, and archives these inodes.
    pub(super) fn persist(&self, inos: &[Ino]) -> Publication {
        let (publication, snapshot) = self.publish();
        let number = SnapshotId::new(publication.range.last().get());
        self.archive.persist(snapshot.as_ref(), number, inos).unwrap();
        publication
    }

    pub(super) fn resident(&self, ino: Ino) -> Vec<ResidentExtent> {
        self.instance().resident_of(ino, ChunkNo::new(0), usize::MAX).unwrap()
    }

    pub(super) fn evict_all(&self, ino: Ino) {
        for extent in self.resident(ino) {
            self.instance().evict_extent(&extent).unwrap();
        }
    }

    /// Bytes of this many chunks, and some more, none of them zero.
    pub(super) fn bytes(&self, seed: u8, n_chunks: u64, more: u64) -> Vec<u8> {
        let len = to_usize(n_chunks * self.chunk + more);
        (0_u8..=250).cycle().skip(usize::from(seed)).map(|byte| byte + 1).take(len).collect()
    }
}

/// All runs of an inode's chunk map, read in one go.
pub(super) fn all_runs(reader: &mut dyn SnapshotReader, ino: Ino) -> Vec<ChunkRun> {
    reader.chunk_runs(ino, ChunkNo::new(0), usize::MAX).unwrap()
}

pub(super) fn chunks(start: u64, end: u64) -> ChunkRange {
    ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
}
