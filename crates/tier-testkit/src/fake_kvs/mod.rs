//! A small filesystem in memory that implements both ports.
//!
//! It has one directory, the root, and files and symbolic links in it. Inode numbers are those of
//! the transaction that makes them, and times are transaction numbers too, so that the same calls
//! give the same filesystem in every run. Publication takes a true point-in-time snapshot (a copy
//! of all inodes); eviction drops chunk data and leaves its place in the chunk map; reading what
//! was evicted goes through a [`Recall`], and what came back is kept as warm.
//!
//! Every change is made and logged under the log's lock (see [`FakeLog`]); the lock on the inodes
//! is taken after it. A recall is called without either, so that it may take its time.

mod change;
mod chunk_map;
mod driver;
mod inode;
mod instance;
mod snapshot;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tier_log::Operation;
use tier_types::{
    Call, ChunkNo, ChunkRange, ErrorKind, FileKind, FileName, Ino, Link, PortError, Recall,
    RecallHint, RecallRequest, RecalledExtent, Xid, to_u64,
};

use crate::FakeLog;
use crate::fake_log::Snapshots;
use inode::FakeInode;

/// A mounted instance in memory, built by chaining. The root is there from the start.
///
/// ```
/// use std::sync::Arc;
///
/// use tier_testkit::{FakeArchive, FakeKvs, OneByOne};
/// use tier_types::{ChunkNo, Ino, InstanceView, LogService, MountedInstance, SnapshotId};
///
/// let archive = Arc::new(FakeArchive::default());
/// let kvs = FakeKvs::with_recall(4096, archive.clone()).file("hello", b"world");
///
/// // What is published and archived can be evicted, and comes back when it is read.
/// let publication = kvs.log().publish()?.expect("the file was logged");
/// let snapshot = kvs.open_snapshot(&publication)?;
/// archive.persist(snapshot.as_ref(), SnapshotId::new(1), &[kvs.ino("hello")])?;
/// for extent in kvs.resident_of(kvs.ino("hello"), ChunkNo::new(0), 10)? {
///     kvs.evict_extent(&extent)?;
/// }
/// assert_eq!(kvs.usage()?.resident_bytes, 0);
/// assert_eq!(kvs.read("hello")?, b"world");
/// assert_eq!(kvs.warm_inodes(Ino::ROOT, 10)?, [kvs.ino("hello")]);
/// # Ok::<(), tier_types::PortError>(())
/// ```
#[derive(Clone)]
pub struct FakeKvs {
    shared: Arc<Shared>,
}

struct Shared {
    chunk_bytes: u32,
    inodes: Mutex<Inodes>,
    snapshots: Mutex<BTreeMap<Xid, Arc<Inodes>>>,
    log: FakeLog,
    recall: Arc<dyn Recall>,
}

type Inodes = BTreeMap<Ino, FakeInode>;

/// Takes snapshots for the log, which the filesystem owns.
struct SnapshotKeeper(Weak<Shared>);

impl Snapshots for SnapshotKeeper {
    fn take(&self, last: Xid) {
        let shared = self.0.upgrade().expect("the log lives in the filesystem");
        let now = Arc::new(shared.inodes.lock().clone());
        shared.snapshots.lock().insert(last, now);
    }

    fn release(&self, last: Xid) {
        let shared = self.0.upgrade().expect("the log lives in the filesystem");
        shared.snapshots.lock().remove(&last);
    }
}

/// The recall of a filesystem that was given none.
struct NoRecall;

impl Recall for NoRecall {
    fn recall_with(
        &self,
        _: &Call<'_>,
        _: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        let message = format!("inode {}: this filesystem has no archive", request.ino);
        Err(PortError::new(ErrorKind::Missing, message))
    }
}

impl std::fmt::Debug for FakeKvs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeKvs").field("inodes", &self.shared.inodes).finish_non_exhaustive()
    }
}

impl FakeKvs {
    /// A filesystem with a root directory, in which evicted data stays away.
    pub fn new(chunk_bytes: u32) -> Self {
        Self::with_recall(chunk_bytes, Arc::new(NoRecall))
    }

    /// A filesystem with a root directory that reads evicted data back through `recall`.
    pub fn with_recall(chunk_bytes: u32, recall: Arc<dyn Recall>) -> Self {
        let kvs = Self::empty(chunk_bytes, recall, Xid::new(0));
        kvs.make(FileKind::Directory, None, |ino| Operation::Mkdir { ino, link: None });
        kvs
    }

    /// A filesystem without a root, to be restored into. Its own transactions come after `last`.
    pub fn empty(chunk_bytes: u32, recall: Arc<dyn Recall>, last: Xid) -> Self {
        assert!(chunk_bytes > 0, "a chunk has bytes");
        let shared = Arc::new_cyclic(|weak: &Weak<Shared>| {
            let keeper = Box::new(SnapshotKeeper(weak.clone()));
            let log = FakeLog::starting_after(last, chunk_bytes, Some(keeper));
            let (inodes, snapshots) = (Mutex::default(), Mutex::default());
            Shared { chunk_bytes, inodes, snapshots, log, recall }
        });
        Self { shared }
    }

    /// Its log.
    pub fn log(&self) -> &FakeLog {
        &self.shared.log
    }

    /// Makes a file in the root directory, and writes its content.
    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        let link = link(name);
        let create = |ino| Operation::Create { ino, link: Some(link.clone()) };
        self.make(FileKind::Regular, Some(link.clone()), create);
        self.write(name, 0, content)
    }

    /// Makes a symbolic link in the root directory.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        let link = link(name);
        let symlink = |ino| Operation::Symlink { ino, link: link.clone() };
        self.make(FileKind::Symlink(target.into()), Some(link.clone()), symlink);
        self
    }

    /// Writes into a file. A chunk of which a part is kept is recalled first.
    #[must_use]
    pub fn write(self, name: &str, offset: u64, content: &[u8]) -> Self {
        self.try_write(name, offset, content).expect("what is kept of a chunk can be read");
        self
    }

    /// The same, with an error of kind `Damaged`, and nothing changed, if a chunk of which a part
    /// would be kept is damaged or lost.
    pub fn try_write(&self, name: &str, offset: u64, content: &[u8]) -> Result<(), PortError> {
        let ino = self.ino(name);
        if content.is_empty() {
            return Ok(());
        }
        let len = to_u64(content.len());
        let edges = [offset, offset + len];
        let write = |inode: &mut FakeInode, xid| inode.write(xid, offset, content);
        self.change(ino, &edges, &Operation::Write { ino, offset, len }, write)
    }

    /// Sets the size of a file. A chunk in which it is cut is recalled first.
    #[must_use]
    pub fn truncate(self, name: &str, new_size: u64) -> Self {
        self.try_truncate(name, new_size).expect("what is kept of a chunk can be read");
        self
    }

    /// The same, with an error of kind `Damaged`, and nothing changed, if the chunk in which the
    /// file is cut is damaged or lost.
    pub fn try_truncate(&self, name: &str, new_size: u64) -> Result<(), PortError> {
        let ino = self.ino(name);
        let old_size = self.shared.inodes.lock()[&ino].size_bytes();
        let truncate = |inode: &mut FakeInode, xid| inode.truncate(xid, new_size);
        let logged = Operation::Truncate { ino, old_size, new_size };
        self.change(ino, &[new_size], &logged, truncate)
    }

    /// Unmaps whole chunks of a file.
    #[must_use]
    pub fn punch(self, name: &str, chunks: Range<u64>) -> Self {
        let ino = self.ino(name);
        let chunks = ChunkRange::new(ChunkNo::new(chunks.start), ChunkNo::new(chunks.end)).unwrap();
        let offset = chunks.offset_bytes(self.shared.chunk_bytes);
        let len = chunks.len() * u64::from(self.shared.chunk_bytes);
        self.log().transact(|xid| {
            self.shared.inodes.lock().get_mut(&ino).unwrap().unmap(xid, chunks);
            Some(Operation::PunchHole { ino, offset, len })
        });
        self
    }

    /// Removes a file for good: its name, and with the next transaction its inode.
    #[must_use]
    pub fn remove(self, name: &str) -> Self {
        let ino = self.ino(name);
        self.log().transact(|xid| {
            let mut inodes = self.shared.inodes.lock();
            let inode = inodes.get_mut(&ino).unwrap();
            inode.state.links.clear();
            inode.state.attr.nlink = 0;
            inode.state.attr.xid = xid;
            Some(Operation::Unlink { ino, link: link(name) })
        });
        self.log().transact(|_| {
            self.shared.inodes.lock().remove(&ino);
            Some(Operation::Gone { ino })
        });
        self
    }

    /// Takes the data of a chunk away but leaves its map: damage.
    #[must_use]
    pub fn damage(self, name: &str, chunk: u64) -> Self {
        let ino = self.ino(name);
        let mut inodes = self.shared.inodes.lock();
        let data = &mut inodes.get_mut(&ino).unwrap().data;
        data.remove(&ChunkNo::new(chunk)).expect("the chunk to be damaged is there");
        drop(inodes);
        self
    }

    /// The inode of a file in the root directory.
    pub fn ino(&self, name: &str) -> Ino {
        self.find(name).expect("a file of this name")
    }

    /// The names of the files in the root directory.
    pub fn names(&self) -> Vec<String> {
        let inodes = self.shared.inodes.lock();
        let files = inodes.values().filter(|inode| inode.state.attr.kind == FileKind::Regular);
        let links = files.flat_map(|inode| inode.state.links.iter());
        links.map(|link| String::from_utf8_lossy(link.name.as_bytes()).into_owned()).collect()
    }

    /// The bytes of one chunk of a file, up to its end. What is evicted is recalled and kept.
    pub fn read_chunk(&self, name: &str, chunk: u64) -> Result<Vec<u8>, PortError> {
        let chunk = ChunkRange::one(ChunkNo::new(chunk)).expect("a chunk of a file");
        self.with_resident(self.ino(name), chunk, |inode| inode.bytes_in(chunk))?
    }

    /// The bytes of a file. What is evicted is recalled and kept.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, PortError> {
        let ino = self.ino(name);
        self.with_resident(ino, ChunkRange::ALL, FakeInode::content)?
    }
}

fn link(name: &str) -> Link {
    Link { parent: Ino::ROOT, name: FileName::new(name.as_bytes()).unwrap() }
}

fn gone(ino: Ino) -> PortError {
    PortError::new(ErrorKind::Missing, format!("inode {ino} is gone"))
}
