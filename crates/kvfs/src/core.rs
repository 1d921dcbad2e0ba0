//! The filesystem's two types, [`Core`] and [`Kvfs`], and what all operations share.
//!
//! They are two because there are two sides. Tiering needs a storage that it can read, evict from
//! and restore into, and must never trigger a recall by it; a user needs files whose data is there
//! whenever it is read. So [`Core`] holds the store and can do everything that needs no evicted
//! data, and [`Kvfs`] is a core and a way back. A recall can therefore be made from parts that hold
//! the core, and no part holds the filesystem that holds it.
//!
//! Opening a core brings it into a state that every operation can rely on: all parts of the store
//! agree on its last transaction. Inodes that only a handle kept alive are left to the reaper,
//! because no handle survives a restart, and they may be many. A filesystem that is behind its own
//! archive is the exception: no operation is done in it, neither at its opening nor later, because
//! each would take an id that was given out before.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tier_log::Operation;
use tier_types::{
    Clock, FileAttr, FileKind, Ino, PublicationListener, Recall, Timestamp, Xid, with_causes,
};

use crate::access_times::AccessTimes;
use crate::activity::{Activity, LastUses};
use crate::freed::FreedSpace;
use crate::reaping::Reaping;
use crate::references::References;
use crate::space::{self, Disk, Purpose, Room, StatFs, StoreDisk, UsedElsewhere};
use crate::store::{
    self, COOKIE_PARENT, Counters, Db, KvsSnapshot, OpenedStore, Segments, StoreReader,
    TableStatistics,
};
use crate::tx::{ChunkWriter, Committer, FileSize, LastIds, Locks};
use crate::unsynced::undo_unsynced;
use crate::{FsError, KvfsOptions, Loss};

/// What the rows and the log record of an operation take at most, but for names, attributes and
/// data that its caller gives.
pub(crate) const ROWS_BYTES: u64 = 4096;

/// Bytes of extents that no sync covers, from which on an operation syncs.
const UNSYNCED_BYTES_MAX: u64 = 256 << 20;

/// Called with an inode whose data left the store or came back.
pub type ResidencyListener = Box<dyn Fn(Ino) + Send + Sync>;

/// The storage of a filesystem: everything that needs no evicted data. Threads share it.
///
/// ```
/// use std::sync::Arc;
///
/// use kvfs::{Core, KvfsOptions};
/// use tier_types::{Ino, LogReader, LogService, SystemClock};
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
    pub(crate) chunk_writer: ChunkWriter,
    pub(crate) freed: FreedSpace,
    pub(crate) publications: PublicationState,
    pub(crate) activity: Arc<Activity>,
    pub(crate) uses: LastUses,
    pub(crate) access_times: AccessTimes,
    pub(crate) references: References,
    pub(crate) reaping: Reaping,
    pub(crate) room: Arc<Room>,
    /// The last place in a listing that a restore gave out.
    pub(crate) restored_cookies: Mutex<u64>,
    residency_listener: OnceLock<ResidencyListener>,
}

/// What publications leave behind, and what is told of them.
pub(crate) struct PublicationState {
    /// One publication at a time.
    pub(crate) publishing: Mutex<()>,
    pub(crate) segments: Arc<Segments>,
    /// The KVS snapshots that are held, by the last transaction that each shows.
    pub(crate) snapshots: Mutex<BTreeMap<Xid, Arc<KvsSnapshot>>>,
    pub(crate) listeners: Mutex<Vec<PublicationListener>>,
    /// Bytes that had been committed by the last publication of this opening.
    pub(crate) published_bytes: AtomicU64,
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
        Self::create_empty(path, options, Xid::new(0))?;
        let core = Self::open(path, options, clock)?;
        core.make_root()?;
        // No opening makes a root: without this a loss of power after the return could leave a
        // filesystem that has none.
        core.fsync()?;
        Ok(core)
    }

    fn make_root(&self) -> Result<(), FsError> {
        let permit = self.admit(Purpose::Growth, ROWS_BYTES)?;
        let committed = self.committer.commit(permit, 1, move |draft| {
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

    /// Makes a filesystem without even a root directory, to be restored into. No transaction id up
    /// to `floor`, and so no inode number, is given out in it.
    pub fn create_empty(path: &Path, options: &KvfsOptions, floor: Xid) -> Result<(), FsError> {
        options.check()?;
        tracing::info!(path = %path.display(), options.chunk_bytes, "making a filesystem");
        store::create(path, options, floor)
    }

    /// Opens a filesystem that no archive knows. See [`open_archived`](Self::open_archived).
    pub fn open(
        path: &Path,
        options: &KvfsOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FsError> {
        Self::open_archived(path, options, clock, Xid::new(0))
    }

    /// Opens a filesystem whose archive ends with the transaction `archived`. Removes what a crash
    /// left between two steps of a publication, and deletes orphans, which no handle holds any
    /// more. An error if transactions are missing from it; if the archive knows later ones, it can
    /// be read, and every operation that would change it is a [`Loss::BehindArchive`].
    pub fn open_archived(
        path: &Path,
        options: &KvfsOptions,
        clock: Arc<dyn Clock>,
        archived: Xid,
    ) -> Result<Self, FsError> {
        let mut opened = store::open(path, options);
        // What was in its log must be written into tables, for which the ballast is kept.
        if matches!(opened, Err(FsError::NoSpace(_))) && space::give_up_ballast(path) {
            opened = store::open(path, options);
        }
        let opened = opened?;
        let segments = Some(Arc::clone(&opened.segments));
        let disk = StoreDisk::new(Arc::clone(&opened.db), segments);
        Self::open_on(path, options, clock, opened, archived, Box::new(disk))
    }

    /// Opens it over a store that is open, on a disk that says what it has.
    pub(crate) fn open_on(
        path: &Path,
        options: &KvfsOptions,
        clock: Arc<dyn Clock>,
        opened: OpenedStore,
        archived: Xid,
        disk: Box<dyn Disk>,
    ) -> Result<Self, FsError> {
        let OpenedStore { db, segments, witness, synced, floor, last } = opened;
        let behind = (last < archived).then_some(Loss::BehindArchive { last, archived });
        if let Some(loss) = &behind {
            tracing::warn!(path = %path.display(), "nothing can be written: {loss}");
        }
        let chunk_bytes = db.reader().chunk_bytes()?;
        // The totals are sums that the repair counts anew, and no read of a file goes by them: the
        // store opens without them.
        let counters = db.reader().counters()?.unwrap_or_else(|| {
            tracing::warn!("the totals of the filesystem cannot be read; repair them");
            Counters::default()
        });
        let publications = PublicationState {
            publishing: Mutex::new(()),
            segments,
            snapshots: Mutex::default(),
            listeners: Mutex::default(),
            published_bytes: AtomicU64::new(0),
            floor,
        };
        let published = publications.published();
        assert!(last >= published, "checked when the parts of the store were compared");
        let last_generation = db.reader().last_generation()?;
        let freed = FreedSpace::new(Arc::clone(&db), last_generation);
        let chunk_writer =
            ChunkWriter::new(Arc::clone(db.extent_files()), chunk_bytes, options.extent_bytes_min);
        let activity = Arc::<Activity>::default();
        let room = Room::new(path, disk, Arc::clone(&activity), options);
        let room = Arc::new(room);
        let last_ids = LastIds { xid: last, generation: last_generation };
        let (own_db, own_room) = (Arc::clone(&db), Arc::clone(&room));
        let time = Arc::clone(&clock);
        let committer = Committer::new(own_db, own_room, witness, time, last_ids, counters);
        let committer = committer.refusing(behind);
        let core = Self {
            room,
            db,
            committer,
            locks: Locks::new(),
            clock,
            chunk_bytes,
            chunk_writer,
            freed,
            publications,
            activity,
            uses: LastUses::default(),
            access_times: AccessTimes::default(),
            references: References::default(),
            reaping: Reaping::default(),
            restored_cookies: Mutex::new(COOKIE_PARENT),
            residency_listener: OnceLock::new(),
        };
        // In this order: the sync has the witness say that all is durable, and a chunk whose bytes
        // did not survive would be damaged from then on instead of undone.
        undo_unsynced(&core.db, &core.room, &core.committer, chunk_bytes, synced)?;
        core.committer.sync_at_opening()?;
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
        // A sync does not open the store again: without this a program that does nothing but sync
        // would be refused for good.
        self.recover()?;
        self.committer.sync()
    }

    /// What is in it, and how much more can be.
    pub fn statfs(&self) -> Result<StatFs, FsError> {
        self.room.statfs(&self.committer.counters(), self.chunk_bytes)
    }

    /// Counts what the other parts of a store take against its capacity as well; only the first
    /// call counts.
    pub fn count_also(&self, used_elsewhere: UsedElsewhere) {
        self.room.count_also(used_elsewhere);
    }

    /// Gives space back to the disk that is free and that no snapshot needs, all of it. Makes all
    /// changes durable.
    pub(crate) fn give_back(&self) -> Result<(), FsError> {
        self.freed.give_back(&self.committer)
    }

    /// Bounds what operations leave behind: space that is free and not given back, and extents that
    /// no sync covers, each of which an opening after a loss of power would have to look at. To be
    /// called after an operation, without locks.
    pub(crate) fn bound_backlogs(&self) {
        self.freed.give_back_if_due(&self.committer);
        // Asked second, because giving space back syncs as well and then leaves nothing to do here.
        if self.committer.unsynced_bytes() >= UNSYNCED_BYTES_MAX
            && let Err(error) = self.committer.sync()
        {
            // An operation that asks for a sync hears of it, and what follows is refused.
            tracing::warn!(error = %with_causes(&error), "chunk data cannot be synced");
        }
    }

    /// Opens the key-value store again, if an error of the disk made that necessary.
    pub(crate) fn recover(&self) -> Result<(), FsError> {
        if !self.committer.is_poisoned() {
            return Ok(());
        }
        // A publication under way holds a snapshot, and ends with an error soon; or another thread
        // is at it.
        let Some(_publishing) = self.publications.publishing.try_lock() else {
            return self.committer.refusal().map_or(Ok(()), Err);
        };
        // What was to be persisted from them is published again, as after a crash.
        // They keep the old database from being closed, and could not be read after it anyway.
        self.publications.snapshots.lock().clear();
        self.committer.reopen(|db| store::reopen(db, &self.publications.segments))
    }

    /// Whether operations are accepted: an error if the filesystem is behind its archive.
    pub fn check_writable(&self) -> Result<(), FsError> {
        self.committer.check_writable()
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
