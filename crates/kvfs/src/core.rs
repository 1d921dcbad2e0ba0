//! The filesystem's two types, [`Core`] and [`Kvfs`], and what all operations share.
//!
//! They are two because there are two sides. Tiering needs a storage that it can read, evict from
//! and restore into, and must never trigger a recall by it; a user needs files whose data is there
//! whenever it is read. So [`Core`] holds the store and can do everything that needs no evicted
//! data, and [`Kvfs`] is a core and a way back. A recall can therefore be made from parts that hold
//! the core, and no part holds the filesystem that holds it.
//!
//! Opening a core brings it into a state that every operation can rely on: the log goes on right
//! behind what is published, and inodes that only a handle kept alive are deleted, because no
//! handle survives a restart.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tier_log::Operation;
use tier_types::{Clock, FileAttr, FileKind, Ino, PublicationListener, Recall, Timestamp, Xid};

use crate::activity::{Activity, LastUses};
use crate::error::Damage;
use crate::open_files::OpenFiles;
use crate::space::{self, DiskSpace, Room, StatFs};
use crate::store::{
    self, COOKIE_PARENT, Counters, Db, KvsSnapshot, Segments, StoreReader, TableStatistics,
};
use crate::tx::{Committer, FileSize, Locks};
use crate::{FsError, KvfsOptions};

/// Called with an inode whose data left the store or came back.
pub type ResidencyListener = Box<dyn Fn(Ino) + Send + Sync>;

/// The storage of a filesystem: everything that needs no evicted data. Threads share it.
///
/// ```
/// use std::sync::Arc;
///
/// use kvfs::{Core, KvfsOptions};
/// use tier_types::{Ino, LogService, SystemClock};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dir = tempfile::tempdir()?;
/// let options = KvfsOptions::default();
/// let core = Core::create(dir.path(), &options, Arc::new(SystemClock))?;
/// assert_eq!(core.getattr(Ino::ROOT)?.mode, 0o755);
///
/// // The log of what was done is cut together with a snapshot of the store.
/// let publication = core.publish()?.expect("making the root is an operation");
/// assert_eq!(publication.range.last(), core.last_xid());
///
/// // It is there when it is opened again.
/// drop(core);
/// let core = Core::open(dir.path(), &options, Arc::new(SystemClock))?;
/// assert_eq!(core.statfs()?.n_inodes, 1);
/// # Ok(())
/// # }
/// ```
pub struct Core {
    pub(crate) db: Arc<Db>,
    pub(crate) committer: Committer,
    pub(crate) locks: Locks,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chunk_bytes: u32,
    pub(crate) publications: PublicationState,
    pub(crate) activity: Arc<Activity>,
    pub(crate) uses: LastUses,
    pub(crate) open_files: OpenFiles,
    pub(crate) room: Room,
    /// The last place in a listing that a restore gave out.
    pub(crate) restored_cookies: Mutex<u64>,
    residency_listener: OnceLock<ResidencyListener>,
}

/// What publications leave behind, and what is told of them.
pub(crate) struct PublicationState {
    /// One publication at a time.
    pub(crate) publishing: Mutex<()>,
    pub(crate) segments: Segments,
    /// The KVS snapshots that are held, by the last transaction that each shows.
    pub(crate) snapshots: Mutex<BTreeMap<Xid, Arc<KvsSnapshot>>>,
    pub(crate) listeners: Mutex<Vec<PublicationListener>>,
    /// Transactions up to this one were published by another filesystem, or never made.
    pub(crate) floor: Xid,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("chunk_bytes", &self.chunk_bytes).finish_non_exhaustive()
    }
}

impl Core {
    /// Makes a filesystem in an empty directory, with a root directory owned by root.
    pub fn create(
        path: &Path,
        options: &KvfsOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FsError> {
        Self::create_empty(path, options)?;
        let core = Self::open(path, options, clock)?;
        core.make_root()?;
        core.fsync()?;
        Ok(core)
    }

    fn make_root(&self) -> Result<(), FsError> {
        let committed = self.committer.commit(1, move |draft| {
            draft.log(Operation::Mkdir { ino: Ino::ROOT, link: None });
            draft.put_new_inode(&FileAttr {
                ino: Ino::ROOT,
                kind: FileKind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                nlink: 2,
                size_bytes: 0,
                accessed: draft.time,
                modified: draft.time,
                changed: draft.time,
                created: draft.time,
                xid: draft.xid,
            });
        })?;
        assert_eq!(committed.xid.get(), Ino::ROOT.get(), "an inode's number is its xid");
        Ok(())
    }

    /// Makes a filesystem without even a root directory, to be restored into.
    pub fn create_empty(path: &Path, options: &KvfsOptions) -> Result<(), FsError> {
        options.check()?;
        let failed = |operation| move |source| FsError::io(operation, source);
        for directory in [path.to_path_buf(), segments_path(path)] {
            std::fs::create_dir_all(&directory).map_err(failed("create the directory of"))?;
        }
        let synced = std::fs::File::open(path).and_then(|directory| directory.sync_all());
        synced.map_err(failed("sync the directory of"))?;
        tracing::info!(path = %path.display(), options.chunk_bytes, "making a filesystem");
        Db::open(&kvs_path(path), options, true)?.initialise(options.chunk_bytes)
    }

    /// Opens a filesystem, repairs what a crash left between two steps of a publication, and
    /// deletes orphans, which no handle holds any more.
    pub fn open(
        path: &Path,
        options: &KvfsOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FsError> {
        let db = Arc::new(Db::open(&kvs_path(path), options, false)?);
        let chunk_bytes = db.reader().chunk_bytes()?;
        let counters = db.reader().counters()?.unwrap_or_else(|| {
            tracing::warn!("the totals of the filesystem cannot be read; repair them");
            Counters::default()
        });
        let publications = PublicationState {
            publishing: Mutex::new(()),
            segments: Segments::open(&segments_path(path))?,
            snapshots: Mutex::default(),
            listeners: Mutex::default(),
            floor: db.reader().xid_floor()?,
        };
        // Before anything is committed: the next id is behind everything that was ever logged.
        let published = publications.published();
        let last = recover_log(&db, published)?;
        let committer = Committer::new(Arc::clone(&db), Arc::clone(&clock), last.next(), counters);
        let activity = Arc::<Activity>::default();
        let core = Self {
            room: Room::new(Arc::clone(&db), Arc::clone(&activity), options),
            db,
            committer,
            locks: Locks::new(),
            clock,
            chunk_bytes,
            publications,
            activity,
            uses: LastUses::default(),
            open_files: OpenFiles::default(),
            restored_cookies: Mutex::new(COOKIE_PARENT),
            residency_listener: OnceLock::new(),
        };
        // While names may be wrong no inode is deleted for the want of one.
        if !core.db.reader().is_repairing()? {
            core.delete_orphans()?;
        }
        tracing::info!(path = %path.display(), %last, %published, chunk_bytes, "filesystem opened");
        Ok(core)
    }

    /// Registers a listener that is called when data of an inode leaves the store or comes back;
    /// only the first one counts. It is called without locks held, and must be quick.
    pub fn on_residency_change(&self, listener: ResidencyListener) {
        let _ = self.residency_listener.set(listener);
    }

    pub(crate) fn residency_changed(&self, ino: Ino) {
        if let Some(listener) = self.residency_listener.get() {
            listener(ino);
        }
    }

    /// The time by the filesystem's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The size of a chunk in bytes.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// Makes everything done so far durable.
    pub fn fsync(&self) -> Result<(), FsError> {
        self.committer.sync()
    }

    /// What is in it, and how much more can be.
    pub fn statfs(&self) -> Result<StatFs, FsError> {
        self.room.statfs(&self.committer.counters(), self.chunk_bytes)
    }

    /// How full the store's disk is.
    pub fn disk_space(&self) -> Result<DiskSpace, FsError> {
        space::disk_space(&self.db)
    }

    /// Whether there is room for more. An operation that frees room goes on without.
    pub(crate) fn check_room(&self) -> Result<(), FsError> {
        self.room.check()
    }

    /// No transaction id up to `xid`, and so no inode number, is given out from the next opening
    /// on. For a filesystem that is to be restored into.
    pub fn set_xid_floor(&self, xid: Xid) -> Result<(), FsError> {
        self.db.set_xid_floor(xid)
    }

    /// The key-value store's own statistics, by table.
    pub fn statistics(&self) -> Result<Vec<TableStatistics>, FsError> {
        self.db.statistics()
    }

    /// Writes one line for each row of the tables whose name starts with `prefix`.
    pub fn dump(&self, prefix: &str, out: &mut dyn std::io::Write) -> Result<(), FsError> {
        store::dump(&self.db, prefix, out)
    }

    /// The store as it is, for an operation: that counts as foreground activity.
    pub(crate) fn reader(&self) -> StoreReader<'_> {
        self.activity.note_use();
        self.db.reader()
    }

    pub(crate) fn size_of(&self, attr: &FileAttr) -> FileSize {
        FileSize { bytes: attr.size_bytes, chunk_bytes: self.chunk_bytes }
    }

    pub(crate) fn note_use(&self, ino: Ino) {
        self.activity.note_use();
        self.uses.note(ino, self.clock.now());
    }
}

impl PublicationState {
    /// The last published transaction.
    pub(crate) fn published(&self) -> Xid {
        self.segments.last().map_or(self.floor, |last| last.max(self.floor))
    }
}

/// Finishes a publication that a crash interrupted between the segment and the release of its
/// records, and tells the last transaction, published or not.
fn recover_log(db: &Db, published: Xid) -> Result<Xid, FsError> {
    db.release_log(published)?;
    let reader = db.reader();
    if reader.first_logged()?.is_some_and(|first| first != published.next()) {
        return Err(FsError::damaged_store(Damage::LogRecords));
    }
    let last = reader.last_logged()?.unwrap_or(published);
    assert!(last >= published, "the records go on behind what is published");
    Ok(last)
}

/// A filesystem: its storage, and the way back for evicted data. All operations of [`Core`] can be
/// called on it as well.
///
/// ```
/// use std::sync::Arc;
///
/// use kvfs::ops::NewNode;
/// use kvfs::{Core, Kvfs, KvfsOptions, NoArchive};
/// use tier_types::{FileKind, FileName, Ino, SystemClock};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dir = tempfile::tempdir()?;
/// let core = Core::create(dir.path(), &KvfsOptions::default(), Arc::new(SystemClock))?;
/// let fs = Kvfs::new(Arc::new(core), Arc::new(NoArchive));
///
/// let name = FileName::new(b"hello").expect("a name");
/// let node = NewNode { kind: FileKind::Regular, mode: 0o644, uid: 0, gid: 0, inherit: None };
/// let ino = fs.create_node(Ino::ROOT, &name, &node)?.ino;
/// fs.write(ino, 0, b"hello, world")?;
/// fs.truncate(ino, 5)?;
/// assert_eq!(fs.read(ino, 0, 100)?, b"hello");
/// assert_eq!(fs.lookup(Ino::ROOT, &name)?.size_bytes, 5);
/// fs.fsync()?;
/// # Ok(())
/// # }
/// ```
pub struct Kvfs {
    core: Arc<Core>,
    pub(crate) recall: Arc<dyn Recall>,
}

impl Kvfs {
    /// Joins a filesystem's storage and the way back for its evicted data; one without an archive
    /// is given [`NoArchive`](crate::NoArchive).
    pub fn new(core: Arc<Core>, recall: Arc<dyn Recall>) -> Self {
        Self { core, recall }
    }

    /// The storage: what the ports of tiering are implemented by.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Deref for Kvfs {
    type Target = Arc<Core>;

    fn deref(&self) -> &Arc<Core> {
        &self.core
    }
}

impl std::fmt::Debug for Kvfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kvfs").field("core", &self.core).finish_non_exhaustive()
    }
}

fn kvs_path(path: &Path) -> PathBuf {
    path.join("kvs")
}

fn segments_path(path: &Path) -> PathBuf {
    path.join("segments")
}
