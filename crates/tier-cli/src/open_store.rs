//! An open store with its filesystem: where kvfs and the tiering parts meet.
//!
//! The order of opening is that of the locks: the store's directory first, which no other process
//! has open then; the storage of the filesystem in it; then what tiers that. The filesystem itself
//! is made last, because it is given the recall. Dropped, the store lets go in the opposite order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kvfs::{Core, FsError, Kvfs, KvfsOptions, Reaper};
use tier_agent::decide::Schedule;
use tier_agent::{Scheduler, StatusBook, TieringOutAgent};
use tier_index::Index;
use tier_persist::Archive;
use tier_status::StatusSink;
use tier_store::{Config, Filesystem, Layout, RestoreTarget, Store, StoreDir};
use tier_types::{
    Clock, ErrorKind, HasKind, LogReader, MountedInstance, PortError, Recall, SystemClock, Xid,
};

use crate::console::ProgressFanOut;

/// An open store. Only one process has it open.
pub(crate) struct OpenStore {
    /// Deletes what removals and cuts left, of this command or of earlier ones. Nothing does while
    /// the store is checked or put right. Dropped first: the thread uses the filesystem.
    _reaper: Option<Reaper>,
    pub(crate) fs: Arc<Kvfs>,
    /// Shows what the agent does to the consoles that wait for it.
    pub(crate) progress: Arc<ProgressFanOut>,
    /// Dropped last: it holds the lock.
    pub(crate) store: Store,
}

/// What state a store must be in for a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpenMode {
    /// Whole, with its index brought up to the newest manifest.
    Regular,
    /// The same, even if a repair of it was interrupted; nothing but a repair may change it then.
    ForCheck,
    /// Its index may be behind, or wrong.
    IndexMayLag,
}

impl OpenStore {
    /// When its agent acts unasked.
    pub(crate) fn schedule(&self) -> Schedule {
        let settings = &self.config().agent;
        Schedule {
            snapshot_interval: Duration::from_secs(settings.snapshot_seconds),
            snapshot_operations: settings.snapshot_operations,
            marks: self.config().space.marks(),
            retry_interval: Duration::from_secs(settings.retry_seconds),
        }
    }

    /// From now on its agent acts unasked, until the scheduler is dropped.
    pub(crate) fn start_schedule(&self, schedule: Schedule) -> Result<Scheduler> {
        let instance: Arc<dyn MountedInstance> = self.fs.core().clone();
        Ok(Scheduler::start(self.agent()?, schedule, instance)?)
    }

    pub(crate) fn open(path: &Path, mode: OpenMode) -> Result<Self> {
        let dir = StoreDir::open(path)?;
        // Known before the filesystem is opened, because opening one may change it.
        let archived = match dir.archived() {
            Err(error) if mode == OpenMode::IndexMayLag => {
                tracing::debug!("the filesystem is not compared with its archive: {error}");
                Xid::new(0)
            }
            archived => archived?,
        };
        let opened = Core::open_archived(path, &kvfs_options(&dir.config), clock(), archived);
        let core = Arc::new(opened.map_err(|error| not_opened(path, error))?);
        // Before any writer has the filesystem, so that the limit is that of the whole store from
        // the first write on.
        count_also(&core, &dir.layout);
        if mode == OpenMode::Regular && core.repair_is_unfinished()? {
            let shown = path.display();
            let message = format!(
                "a repair of {shown} was interrupted; to finish it: tier fsck {shown} --repair"
            );
            return Err(PortError::new(ErrorKind::Damaged, message).into());
        }
        let filesystem = Filesystem {
            log: core.clone(),
            instance: core.clone(),
            chunk_bytes: core.chunk_bytes(),
        };
        let progress: Arc<ProgressFanOut> = Arc::default();
        let sink: Arc<dyn StatusSink> = progress.clone();
        let index = match mode {
            OpenMode::Regular | OpenMode::ForCheck => tier_store::OpenMode::Current,
            OpenMode::IndexMayLag => tier_store::OpenMode::IndexMayLag,
        };
        let store = Store::open(dir, filesystem, sink, index)?;
        // Behind everything that can refuse the store: the thread deletes, which an opening that
        // fails must not do.
        let reaper = match mode {
            OpenMode::Regular => {
                Some(Reaper::start(&core).context("cannot start the reaper's thread")?)
            }
            OpenMode::ForCheck | OpenMode::IndexMayLag => None,
        };
        let fs = Arc::new(Kvfs::new(core, store.recall()));
        Ok(Self { _reaper: reaper, fs, progress, store })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.store.dir().config
    }

    /// Whether it reads its archive and does not write to it.
    pub(crate) fn is_follower(&self) -> bool {
        self.store.dir().writer.is_none()
    }

    /// The store's directory.
    pub(crate) fn path(&self) -> &Path {
        self.store.dir().layout.root()
    }

    pub(crate) fn index(&self) -> &Arc<Index> {
        self.store.index()
    }

    pub(crate) fn book(&self) -> &StatusBook {
        self.store.book()
    }

    /// The snapshots in the local store.
    pub(crate) fn archive(&self) -> Result<Archive<'_>> {
        Ok(self.store.archive()?)
    }

    /// The agent, which is started when it is first asked for.
    pub(crate) fn agent(&self) -> Result<Arc<TieringOutAgent>> {
        Ok(self.store.agent()?)
    }
}

fn not_opened(path: &Path, error: FsError) -> anyhow::Error {
    let is_damaged = error.kind().is_of_object();
    let shown = path.display();
    let advice =
        if is_damaged { "; tier restore makes a new store of what is in the archive" } else { "" };
    anyhow::Error::from(error).context(format!("cannot open the filesystem in {shown}{advice}"))
}

/// An empty filesystem for a restore to fill.
#[derive(Default)]
pub(crate) struct RestoredFilesystem(Option<Arc<Core>>);

impl RestoredFilesystem {
    /// The filesystem that was filled, with a way back for its data.
    pub(crate) fn open(self, recall: Arc<dyn Recall>) -> Result<Arc<Kvfs>> {
        let core = self.0.context("nothing was restored")?;
        Ok(Arc::new(Kvfs::new(core, recall)))
    }
}

impl RestoreTarget for RestoredFilesystem {
    fn create(
        &mut self,
        path: &Path,
        config: &Config,
        floor: Xid,
    ) -> Result<Arc<dyn MountedInstance>, PortError> {
        assert!(self.0.is_none(), "a restore makes one filesystem");
        let options = kvfs_options(config);
        Core::create_empty(path, &options, floor)?;
        let core = Arc::new(Core::open(path, &options, clock())?);
        count_also(&core, &Layout::new(path));
        self.0 = Some(Arc::clone(&core));
        Ok(core)
    }

    fn last_xid(&mut self, path: &Path, config: &Config) -> Result<Xid, PortError> {
        let core = Core::open(path, &kvfs_options(config), clock())?;
        Ok(LogReader::last_xid(&core))
    }

    fn finish(&mut self) -> Result<(), PortError> {
        match &self.0 {
            Some(core) => Ok(core.fsync()?),
            None => Ok(()),
        }
    }
}

/// The filesystem keeps the account of the store's room, and does not know the rest of the store.
fn count_also(core: &Core, layout: &Layout) {
    let layout = layout.clone();
    core.count_also(Box::new(move || {
        layout.used_bytes().map_err(|source| {
            let message = format!("cannot measure {}", layout.root().display());
            PortError::new(ErrorKind::of_io(&source), message).with_source(source)
        })
    }));
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

pub(crate) fn kvfs_options(config: &Config) -> KvfsOptions {
    KvfsOptions {
        chunk_bytes: config.chunk_bytes,
        cache_bytes: config.memory.kvs_cache,
        write_buffer_bytes: config.memory.kvs_write_buffer,
        capacity_bytes: config.space.capacity_bytes,
        critical_percent: config.space.critical_percent,
        room_wait: Duration::from_secs(config.space.stall_seconds),
        ..KvfsOptions::default()
    }
}
