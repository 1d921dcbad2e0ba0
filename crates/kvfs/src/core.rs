//! The filesystem as a whole: opening, what all operations share, statistics.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tier_log::Operation;
use tier_types::{Clock, FileAttr, FileKind, Ino, Recall, Timestamp, Xid};

use crate::commit::Committer;
use crate::counters::Counters;
use crate::db::{Changes, Db, Reader};
use crate::demand::Demand;
use crate::locks::InodeLocks;
use crate::publish::Publications;
use crate::schema::{self, META_CHUNK_BYTES, META_COUNTERS, META_XID_FLOOR, Table};
use crate::view::View;
use crate::{FsError, value};

/// The store gets no full disk to see: so many write buffers stay free, for the write-ahead log, for
/// what is being flushed, and for a compaction.
const RESERVE_BUFFERS: u64 = 6;
/// With less room than so many reserves nothing that makes more gives way.
const CROWDED_RESERVES: u64 = 4;
/// How often somebody looks how much is left.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Inodes whose last use is remembered.
const N_USES_MAX: usize = 100_000;

/// Settings of a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvfsOptions {
    /// Size of a chunk; fixed when the filesystem is made.
    pub chunk_bytes: u32,
    /// Cache of blocks.
    pub cache_bytes: usize,
    /// Changes that are not yet in files.
    pub write_buffer_bytes: usize,
}

impl Default for KvfsOptions {
    fn default() -> Self {
        Self { chunk_bytes: 64 << 10, cache_bytes: 32 << 20, write_buffer_bytes: 48 << 20 }
    }
}

/// Told of inodes.
pub type ResidencyListener = Box<dyn Fn(Ino) + Send + Sync>;

/// What statfs says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    /// Inodes.
    pub n_inodes: u64,
    /// Inodes that can still be made.
    pub n_inodes_free: u64,
    /// Bytes of file data, in the store or evicted.
    pub data_bytes: u64,
    /// Bytes that the disk has left for more.
    pub free_bytes: u64,
    /// Size of a chunk.
    pub chunk_bytes: u32,
    /// Longest name.
    pub name_bytes_max: u32,
}

/// A filesystem. Threads share it.
pub struct Kvfs {
    pub(crate) db: Arc<Db>,
    pub(crate) committer: Committer,
    pub(crate) locks: InodeLocks,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chunk_bytes: u32,
    pub(crate) publications: Publications,
    pub(crate) demand: Arc<Demand>,
    /// Renames of directories, one at a time, so that none becomes its own ancestor.
    pub(crate) tree: Mutex<()>,
    pub(crate) restored_cookies: Mutex<u64>,
    handles: Mutex<HashMap<Ino, u64>>,
    uses: Mutex<HashMap<Ino, Timestamp>>,
    recall: OnceLock<Arc<dyn Recall>>,
    residency_listener: OnceLock<ResidencyListener>,
    /// What was left on the disk when somebody last looked.
    free_bytes: Mutex<Option<(Instant, u64)>>,
    reserve_bytes: u64,
}

impl std::fmt::Debug for Kvfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kvfs").field("chunk_bytes", &self.chunk_bytes).finish_non_exhaustive()
    }
}

/// An open file: as long as one is held, an inode without names lives on.
#[derive(Debug)]
pub struct OpenHandle {
    fs: Arc<Kvfs>,
    ino: Ino,
}

impl OpenHandle {
    /// Which inode.
    pub fn ino(&self) -> Ino {
        self.ino
    }
}

impl Drop for OpenHandle {
    fn drop(&mut self) {
        // An orphan that cannot be removed now is removed when the filesystem is opened again.
        let _ = self.fs.close(self.ino);
    }
}

impl Kvfs {
    /// Makes a filesystem in an empty folder, with a root directory owned by root.
    pub fn create(
        path: &Path,
        options: &KvfsOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FsError> {
        Self::create_empty(path, options)?;
        let fs = Self::open(path, options, clock)?;
        let committed = fs.committer.commit(1, move |draft| {
            draft.operations.push(Operation::Mkdir { ino: Ino::ROOT, link: None });
            let attr = FileAttr {
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
            };
            draft.counters.n_inodes += 1;
            draft.changes.put(Table::Inodes, &schema::ino(Ino::ROOT), value::attr_to_bytes(&attr));
        })?;
        debug_assert_eq!(committed.xid.get(), Ino::ROOT.get(), "an inode's number is its xid");
        fs.fsync()?;
        Ok(fs)
    }

    /// Makes a filesystem without even a root directory, to be restored into.
    pub fn create_empty(path: &Path, options: &KvfsOptions) -> Result<(), FsError> {
        if options.chunk_bytes < 512 || options.chunk_bytes > 1 << 20 {
            return Err(FsError::Invalid("a chunk has 512 bytes to 1 MiB"));
        }
        for folder in [path.to_path_buf(), segments_path(path)] {
            std::fs::create_dir_all(&folder).map_err(|source| FsError::Store {
                operation: "create the folder of",
                source: source.into(),
            })?;
        }
        std::fs::File::open(path).and_then(|folder| folder.sync_all()).map_err(|source| {
            FsError::Store { operation: "sync the folder of", source: source.into() }
        })?;
        let db = Db::open(&kvs_path(path), options, true)?;
        let mut changes = Changes::default();
        let chunk_bytes = options.chunk_bytes.to_le_bytes().to_vec();
        changes.put(Table::Meta, META_CHUNK_BYTES, chunk_bytes);
        let counters = value::counters_to_bytes(&Counters::default());
        changes.put(Table::Meta, META_COUNTERS, counters);
        db.write(changes)?;
        db.sync()
    }

    /// Opens a filesystem, repairs what a crash left between two steps of a publication, and
    /// removes orphans that nobody can reach any more.
    pub fn open(
        path: &Path,
        options: &KvfsOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FsError> {
        let db = Arc::new(Db::open(&kvs_path(path), options, false)?);
        let damaged = |problem| FsError::Damaged { ino: Ino::new(0), problem };
        let chunk_bytes = db.get(Table::Meta, META_CHUNK_BYTES)?;
        let chunk_bytes =
            chunk_bytes.and_then(|bytes| Some(u32::from_le_bytes(*bytes.first_chunk()?)));
        let chunk_bytes = chunk_bytes.filter(|&n| n > 0).ok_or_else(|| damaged("no chunk size"))?;
        let counters = db.get(Table::Meta, META_COUNTERS)?;
        let counters = counters.and_then(|bytes| value::counters_from_bytes(&bytes));
        let counters = counters.unwrap_or_else(|| {
            tracing::warn!("the totals of the filesystem cannot be read; repair them");
            Counters::default()
        });
        let floor = read_floor(&db)?;
        let (publications, last) = Publications::open(&segments_path(path), &db, floor)?;
        let committer = Committer::new(Arc::clone(&db), Arc::clone(&clock), last.next(), counters);
        let fs = Self {
            db,
            committer,
            locks: InodeLocks::new(),
            clock,
            chunk_bytes,
            publications,
            demand: Arc::default(),
            tree: Mutex::new(()),
            restored_cookies: Mutex::new(schema::COOKIE_PARENT),
            handles: Mutex::new(HashMap::new()),
            uses: Mutex::new(HashMap::new()),
            recall: OnceLock::new(),
            residency_listener: OnceLock::new(),
            free_bytes: Mutex::new(None),
            reserve_bytes: RESERVE_BUFFERS * tier_types::to_u64(options.write_buffer_bytes),
        };
        // While names may be wrong nothing ends for the want of one.
        if !fs.repair_is_unfinished()? {
            fs.remove_orphans()?;
        }
        Ok(fs)
    }

    /// Gives the filesystem the way back for evicted data. Only the first one counts.
    pub fn set_recall(&self, recall: Arc<dyn Recall>) {
        let _ = self.recall.set(recall);
    }

    /// Names somebody who is told when data of an inode leaves the store or comes back; only the
    /// first one counts. He is called without locks held, and must be quick.
    pub fn on_residency_change(&self, listener: ResidencyListener) {
        let _ = self.residency_listener.set(listener);
    }

    pub(crate) fn residency_changed(&self, ino: Ino) {
        if let Some(listener) = self.residency_listener.get() {
            listener(ino);
        }
    }

    pub(crate) fn recall(&self) -> Option<&Arc<dyn Recall>> {
        self.recall.get()
    }

    /// The time as the filesystem sees it.
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

    /// Whether there is room for more. What takes something away may go on without.
    pub(crate) fn check_room(&self) -> Result<(), FsError> {
        let mut last = self.free_bytes.lock();
        let free_bytes = match *last {
            Some((at, free_bytes)) if at.elapsed() < LOOK_INTERVAL => free_bytes,
            _ => {
                let free_bytes = self.db.free_bytes()?;
                *last = Some((Instant::now(), free_bytes));
                if free_bytes < CROWDED_RESERVES * self.reserve_bytes {
                    self.demand.note_crowded();
                }
                free_bytes
            }
        };
        match free_bytes > self.reserve_bytes {
            true => Ok(()),
            false => Err(FsError::NoSpace("the disk of the store is full but for a reserve")),
        }
    }

    /// What is in it.
    pub fn statfs(&self) -> Result<StatFs, FsError> {
        let counters = self.committer.counters();
        let data_bytes = counters.resident_bytes + counters.cold_bytes;
        Ok(StatFs {
            n_inodes: u64::try_from(counters.n_inodes).unwrap_or(0),
            // A number is never used again, and there are more than anybody can use.
            n_inodes_free: u64::from(u32::MAX),
            free_bytes: self.db.free_bytes()?.saturating_sub(self.reserve_bytes),
            data_bytes: u64::try_from(data_bytes).unwrap_or(0),
            chunk_bytes: self.chunk_bytes,
            name_bytes_max: 255,
        })
    }

    /// Bytes that are in use on the store's disk, by whomever, and the size of the disk.
    pub fn disk_bytes(&self) -> Result<(u64, u64), FsError> {
        self.db.disk_bytes()
    }

    /// The store's own statistics: table, about how many keys, bytes in files.
    pub fn statistics(&self) -> Vec<(&'static str, u64, u64)> {
        self.db.statistics()
    }

    /// Holds an inode open.
    pub fn open_handle(self: &Arc<Self>, ino: Ino) -> Result<OpenHandle, FsError> {
        let _guard = self.locks.lock(&[ino]);
        self.live().attr(ino)?;
        self.count_handle(ino);
        Ok(OpenHandle { fs: Arc::clone(self), ino })
    }

    /// A handle of an inode whose count is already taken.
    pub(crate) fn counted_handle(self: &Arc<Self>, ino: Ino) -> OpenHandle {
        OpenHandle { fs: Arc::clone(self), ino }
    }

    pub(crate) fn count_handle(&self, ino: Ino) {
        *self.handles.lock().entry(ino).or_default() += 1;
    }

    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.handles.lock().contains_key(&ino)
    }

    fn close(&self, ino: Ino) -> Result<(), FsError> {
        let _guard = self.locks.lock(&[ino]);
        {
            let mut handles = self.handles.lock();
            if let Some(n) = handles.get_mut(&ino) {
                *n -= 1;
                if *n > 0 {
                    return Ok(());
                }
                handles.remove(&ino);
            }
        }
        if self.db.get(Table::Orphans, &schema::ino(ino))?.is_some() {
            self.end_orphan(ino)?;
        }
        Ok(())
    }

    /// The filesystem as it is, and not as a snapshot has it: whoever looks at it wants something now.
    pub(crate) fn live(&self) -> View<'_> {
        self.demand.note();
        View(self.db.as_ref())
    }

    pub(crate) fn note_use(&self, ino: Ino) {
        self.demand.note();
        let now = self.clock.now();
        let mut uses = self.uses.lock();
        if uses.len() >= N_USES_MAX {
            // Forgetting a use makes a file look older than it is: it may be evicted sooner.
            uses.clear();
        }
        uses.insert(ino, now);
    }

    pub(crate) fn last_use(&self, ino: Ino) -> Option<Timestamp> {
        self.uses.lock().get(&ino).copied()
    }
}

pub(crate) fn kvs_path(path: &Path) -> PathBuf {
    path.join("kvs")
}

fn segments_path(path: &Path) -> PathBuf {
    path.join("segments")
}

fn read_floor(db: &Db) -> Result<Xid, FsError> {
    let floor = db.get(Table::Meta, META_XID_FLOOR)?;
    let floor = floor.and_then(|bytes| Some(u64::from_le_bytes(*bytes.first_chunk()?)));
    Ok(Xid::new(floor.unwrap_or(0)))
}

/// Publications by the last transaction of each.
pub(crate) type ByLastXid<T> = BTreeMap<Xid, T>;
