//! Components by name: each function makes one part of a store from its settings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tier_agent::{
    DeletionQueue, Floor, FrozenReads, Recaller, RecallerOptions, StatusBook, StorePorts,
    StoreStages,
};
use tier_evict::{AgeAndSize, Evicter};
use tier_index::{Index, IndexOptions};
use tier_persist::{Fetcher, FetcherOptions, History, PersistOptions, Persister};
use tier_status::StatusSink;
use tier_types::{Epoch, ObjectStore, SnapshotId, Xid, to_usize};

use crate::config::{self, Config};
use crate::dir::StoreDir;
use crate::filesystem::Filesystem;
use crate::room::RoomAsking;
use crate::{StoreError, durable};

fn index_options(config: &Config) -> IndexOptions {
    IndexOptions {
        cache_bytes: config.memory.index_cache,
        write_buffer_bytes: config.memory.index_write_buffer,
    }
}

/// An index to read only.
pub(crate) fn look_into_index(path: &Path, config: &Config) -> Result<Index, StoreError> {
    Ok(Index::look(path, config.chunk_bytes, &index_options(config))?)
}

pub(crate) fn open_index(path: &Path, config: &Config) -> Result<Index, StoreError> {
    let options = index_options(config);
    // The chunk size is the filesystem's and no option: an index made for another one is refused.
    Ok(Index::open(path, config.chunk_bytes, &options)?)
}

/// The status logs of a store.
pub fn status_book(dir: &StoreDir) -> Result<StatusBook, StoreError> {
    Ok(StatusBook::open(&dir.layout.status(), Arc::clone(&dir.clock))?)
}

/// How often a reader that waits for frozen data looks whether it is there.
const THAW_INTERVAL: Duration = Duration::from_secs(10);

/// The way back for evicted data, which looks for tarballs in these stores.
pub(crate) fn recaller(
    dir: &StoreDir,
    index: &Arc<Index>,
    copies: Vec<Arc<dyn ObjectStore>>,
) -> Result<Recaller, StoreError> {
    let cache_bytes = dir.config.memory.frame_cache;
    let options = FetcherOptions { cache_bytes, ..FetcherOptions::default() };
    let keys = Arc::clone(&dir.keys);
    // The index is shared with the persister, so that a recall finds what was committed a moment
    // ago.
    let fetcher = Fetcher::new(dir.filesystem, Arc::clone(index), keys, copies, options);
    let timeout = Duration::from_secs(dir.config.recall.timeout_seconds);
    let frozen = match dir.config.recall.frozen {
        config::Frozen::Refuse => FrozenReads::Refuse,
        config::Frozen::Wait => FrozenReads::Wait { interval: THAW_INTERVAL },
    };
    let options = RecallerOptions { timeout, frozen, ..RecallerOptions::default() };
    Ok(Recaller::start(fetcher, options)?)
}

fn persister(dir: &StoreDir, filesystem: &Filesystem, index: &Arc<Index>) -> Persister {
    let settings = &dir.config.persist;
    let options = PersistOptions {
        level: settings.level,
        tarball_bytes: settings.tarball_bytes,
        part_bytes: settings.part_bytes,
        // The bounds of the setting make it fit: 16 MiB at most.
        frame_bytes: to_usize(settings.frame_bytes),
        // Zero stands for no limit.
        bytes_per_second_max: Some(settings.bytes_per_second_max).filter(|n| *n > 0),
        unread_percent_max: settings.unread_percent_max,
        busy_percent: settings.busy_percent,
        ..PersistOptions::default()
    };
    // Tarballs lie on the disk of the filesystem, which keeps the account of its room.
    let local =
        RoomAsking { store: Arc::clone(&dir.local), instance: Arc::clone(&filesystem.instance) };
    Persister::new(
        dir.filesystem,
        Arc::new(local),
        Arc::clone(&dir.keys),
        Arc::clone(index),
        Arc::clone(&dir.clock),
        options,
    )
    .with_copies(dir.elsewhere().collect())
}

fn evicter(dir: &StoreDir) -> Result<Evicter, StoreError> {
    let directory = dir.layout.evict();
    durable::make_directory(&directory)?;
    let policy = AgeAndSize {
        // What the policy retains is carried over to the next pass, so that these settings lose no
        // candidate.
        age_seconds_min: dir.config.evict.age_seconds_min,
        resident_bytes_min: dir.config.evict.resident_bytes_min,
    };
    Ok(Evicter::new(&directory, Box::new(policy), Arc::clone(&dir.clock)))
}

/// What the agent has done: persisting, uploading and evicting, at this priority (as nice(1)
/// counts it).
pub(crate) fn stages(
    dir: &StoreDir,
    filesystem: &Filesystem,
    history: &Arc<History>,
    book: &Arc<StatusBook>,
    progress: Arc<dyn StatusSink>,
    nice: u8,
) -> Result<StoreStages, StoreError> {
    // Net changes that do not fit into memory are sorted in files, which must lie on the store's
    // disk: a system's directory for temporary files may be in memory.
    let spill_dir = dir.layout.temporary();
    durable::make_directory(&spill_dir)?;
    let config = &dir.config;
    let ports = StorePorts {
        filesystem: dir.filesystem,
        epoch: Epoch::new(config.epoch),
        writer: dir.writer,
        // Before these numbers there is nothing to persist: another epoch has done it.
        floor: Floor {
            xid: Xid::new(config.xid_floor),
            snapshot: SnapshotId::new(config.snapshot_floor),
        },
        log: Arc::clone(&filesystem.log),
        instance: Arc::clone(&filesystem.instance),
        local: Arc::clone(&dir.local),
        cloud: dir.cloud.clone(),
        former_clouds: dir.former_clouds.clone(),
        keys: Arc::clone(&dir.keys),
        history: Arc::clone(history),
        book: Arc::clone(book),
        deletions: DeletionQueue::open(&dir.layout.deletions(), Arc::clone(&dir.clock)),
        spill_dir,
        checkpoint_bytes: config.persist.checkpoint_bytes,
        marks: config.space.marks(),
    };
    // The evicter knows no archive: what may go is what the index answers, through a port.
    let (persister, evicter) = (persister(dir, filesystem, history.index()), evicter(dir)?);
    // Only persisting and reading back are nice; what holds locks of the filesystem is not.
    Ok(StoreStages::new(ports, persister, evicter, progress).with_nice(nice))
}
