//! Opening a store: where concrete parts meet.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use kvfs::{Core, Kvfs, KvfsOptions};
use rustix::fs::{FlockOperation, flock};
use tier_agent::{Recaller, RecallerOptions, StatusBook, StorePorts, StoreStages, TieringOutAgent};
use tier_cloud::DirStore;
use tier_evict::{AgeAndSize, Evicter};
use tier_index::{Index, IndexOptions};
use tier_persist::{
    Archive, Fetcher, FetcherOptions, FilesystemId, Keys, PersistOptions, Persister,
};
use tier_status::StatusSink;
use tier_types::{
    Clock, Epoch, ErrorKind, MountedInstance, ObjectStore, PortError, SnapshotId, SystemClock, Xid,
};

use crate::config::Config;
use crate::index_files::{index_path, settle_indexes};
use crate::progress::Audience;

/// A store as far as its tarballs go: neither filesystem nor index are open, but nobody else opens
/// them.
pub(crate) struct Base {
    pub(crate) path: PathBuf,
    pub(crate) config: Config,
    pub(crate) filesystem: FilesystemId,
    pub(crate) keys: Arc<Keys>,
    pub(crate) local: DirStore,
    pub(crate) cloud: Option<Arc<dyn ObjectStore>>,
    _lock: File,
}

impl Base {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let config = Config::read(path)?;
        let lock = lock(path)?;
        let filesystem = FilesystemId::parse(&config.filesystem)
            .ok_or_else(|| anyhow!("{}: the filesystem's id is not valid", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            filesystem,
            keys: Arc::new(load_keys(path, &config)?),
            local: DirStore::open(&local_path(path))?,
            cloud: config.cloud.as_deref().map(open_cloud).transpose()?,
            config,
            _lock: lock,
        })
    }
}

/// An open store. Only one process has it open.
pub(crate) struct Store {
    pub(crate) fs: Arc<Kvfs>,
    pub(crate) index: Arc<Index>,
    pub(crate) book: Arc<StatusBook>,
    /// Those who look on while the agent works.
    pub(crate) audience: Arc<Audience>,
    agent: OnceLock<Arc<TieringOutAgent>>,
    /// The last one to be dropped: it holds the lock.
    pub(crate) base: Base,
}

impl Store {
    /// Opens a store with its index, brought up to the newest manifest.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let store = Self::open_for_check(path)?;
        if store.fs.repair_is_unfinished()? {
            let shown = path.display();
            let message = format!(
                "a repair of {shown} was interrupted; to finish it: tier fsck {shown} --repair"
            );
            return Err(PortError::new(ErrorKind::Damaged, message).into());
        }
        Ok(store)
    }

    /// The same, even if a repair did not come to its end. Nothing but a repair may change it then.
    pub(crate) fn open_for_check(path: &Path) -> Result<Self> {
        let store = Self::open_behind(path)?;
        store.archive()?.catch_up(&store.index)?;
        Ok(store)
    }

    /// Opens a store whose index may be behind, or wrong.
    pub(crate) fn open_behind(path: &Path) -> Result<Self> {
        let base = Base::open(path)?;
        let config = &base.config;
        let core = Core::open(path, &kvfs_options(config), clock())
            .with_context(|| format!("cannot open the filesystem in {}", path.display()))?;
        if core.chunk_bytes() != config.chunk_bytes {
            bail!(
                "{} says chunk_bytes = {}, but the filesystem was made with {}; put that back",
                path.join("tier.toml").display(),
                config.chunk_bytes,
                core.chunk_bytes()
            );
        }
        let index = Arc::new(open_index(&index_path(path)?, config)?);
        // Only now, when the last one can be opened, the others go.
        settle_indexes(path)?;
        let book = Arc::new(StatusBook::open(&path.join("status"), clock())?);
        let recaller = recaller((base.filesystem, &index, &base.keys), stores_of(&base), config)?;
        Ok(Self {
            fs: Arc::new(Kvfs::new(Arc::new(core), Arc::new(recaller))),
            index,
            book,
            audience: Arc::default(),
            agent: OnceLock::new(),
            base,
        })
    }

    /// The snapshots in the local store.
    pub(crate) fn archive(&self) -> Result<Archive<'_>> {
        let Base { local, keys, filesystem, config, .. } = &self.base;
        let archive = Archive::open(local, keys, *filesystem)?;
        // What was there before a restore may have another signer, which the operator trusted.
        let newest = archive.snapshots().next_back().map_or(0, |newest| newest.epoch.get());
        if newest >= config.epoch && !archive.own_signature() {
            let message = "the newest manifest is not signed by this store's identity";
            return Err(PortError::new(ErrorKind::Damaged, message).into());
        }
        Ok(archive)
    }

    /// Stores in which tarballs are looked for, in this order.
    pub(crate) fn stores(&self) -> Vec<Arc<dyn ObjectStore>> {
        stores_of(&self.base)
    }

    /// The agent, which is started when somebody first asks for it.
    pub(crate) fn agent(&self) -> Result<Arc<TieringOutAgent>> {
        self.agent_as_nice_as(0)
    }

    /// The agent of a filesystem in use, whose persisting gives way to that.
    pub(crate) fn agent_in_background(&self) -> Result<Arc<TieringOutAgent>> {
        self.agent_as_nice_as(self.base.config.persist.nice)
    }

    fn agent_as_nice_as(&self, nice: u8) -> Result<Arc<TieringOutAgent>> {
        if let Some(agent) = self.agent.get() {
            return Ok(Arc::clone(agent));
        }
        let agent = Arc::new(self.start_agent(nice)?);
        // Whoever came first has the one that counts; the other one ends unused.
        Ok(Arc::clone(self.agent.get_or_init(|| agent)))
    }

    fn start_agent(&self, nice: u8) -> Result<TieringOutAgent> {
        let Base { path, config, filesystem, keys, local, cloud, .. } = &self.base;
        let spill_dir = path.join("tmp");
        let evict_dir = path.join("evict");
        for folder in [&spill_dir, &evict_dir] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let options = PersistOptions {
            level: config.persist.level,
            tarball_bytes: config.persist.tarball_bytes,
            frame_bytes: tier_types::to_usize(config.persist.frame_bytes),
            bytes_per_second_max: Some(config.persist.bytes_per_second_max).filter(|n| *n > 0),
            busy_percent: config.persist.busy_percent,
            ..PersistOptions::default()
        };
        let persister = Persister::new(
            *filesystem,
            Arc::new(local.clone()),
            Arc::clone(keys),
            Arc::clone(&self.index),
            (clock(), options),
        );
        let policy = AgeAndSize {
            age_seconds_min: config.evict.age_seconds_min,
            resident_bytes_min: config.evict.resident_bytes_min,
        };
        let evicter = Evicter::new(&evict_dir, Box::new(policy), clock());
        let instance: Arc<dyn MountedInstance> = self.fs.core().clone();
        let ports = StorePorts {
            filesystem: *filesystem,
            epoch: Epoch::new(config.epoch),
            floor: (Xid::new(config.xid_floor), SnapshotId::new(config.snapshot_floor)),
            log: self.fs.core().clone(),
            instance,
            local: Arc::new(local.clone()),
            cloud: cloud.clone(),
            keys: Arc::clone(keys),
            index: Arc::clone(&self.index),
            book: Arc::clone(&self.book),
            spill_dir,
        };
        let progress: Arc<dyn StatusSink> = self.audience.clone();
        let stages = StoreStages::new(ports, persister, evicter, progress).with_nice(nice);
        Ok(TieringOutAgent::start(Box::new(stages))?)
    }
}

fn stores_of(base: &Base) -> Vec<Arc<dyn ObjectStore>> {
    let mut stores: Vec<Arc<dyn ObjectStore>> = vec![Arc::new(base.local.clone())];
    stores.extend(base.cloud.clone());
    stores
}

/// The way back for the data of a filesystem.
pub(crate) fn recaller(
    (filesystem, index, keys): (FilesystemId, &Arc<Index>, &Arc<Keys>),
    stores: Vec<Arc<dyn ObjectStore>>,
    config: &Config,
) -> Result<Recaller> {
    let options = FetcherOptions { cache_bytes: config.memory.frame_cache, ..Default::default() };
    let fetcher = Fetcher::new(filesystem, Arc::clone(index), Arc::clone(keys), stores, options);
    let timeout = Duration::from_secs(config.recall.timeout_seconds);
    Ok(Recaller::start(fetcher, RecallerOptions { timeout, ..RecallerOptions::default() })?)
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

pub(crate) fn kvfs_options(config: &Config) -> KvfsOptions {
    KvfsOptions {
        chunk_bytes: config.chunk_bytes,
        cache_bytes: config.memory.kvs_cache,
        write_buffer_bytes: config.memory.kvs_write_buffer,
    }
}

pub(crate) fn open_index(path: &Path, config: &Config) -> Result<Index> {
    let options = IndexOptions {
        cache_bytes: config.memory.index_cache,
        write_buffer_bytes: config.memory.index_write_buffer,
    };
    Ok(Index::open(path, config.chunk_bytes, &options)?)
}

pub(crate) fn local_path(store: &Path) -> PathBuf {
    store.join("tarballs")
}

/// The object store that a URL names.
pub(crate) fn open_cloud(url: &str) -> Result<Arc<dyn ObjectStore>> {
    match url.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => {
            Ok(Arc::new(DirStore::open(Path::new(path))?))
        }
        Some((scheme @ ("s3" | "gs" | "az"), _)) => {
            bail!("this build of tier has no support for {scheme}:// yet; use file:///dir")
        }
        _ => bail!("{url} is not a URL of a cloud store; expected file:///dir"),
    }
}

/// Reads an identity file.
pub(crate) fn read_identity(path: &Path) -> Result<Keys> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the identity file {}", path.display()))?;
    Keys::from_identity_file(&text)
        .with_context(|| format!("{} is not an identity file", path.display()))
}

/// Writes a new file with a secret, readable by the owner only.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)?;
    file.sync_all().with_context(failed)
}

fn load_keys(store: &Path, config: &Config) -> Result<Keys> {
    let mut keys = read_identity(&store.join(&config.identity))?;
    for recipient in &config.recipients {
        keys.add_recipient(recipient)?;
    }
    Ok(if config.encryption { keys } else { keys.without_encryption() })
}

/// Takes the store's lock, which the system lets go of when the process ends.
pub(crate) fn lock(store: &Path) -> Result<File> {
    let path = store.join("lock");
    let failed = || format!("cannot lock {}", path.display());
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = file.with_context(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // Without the holder's number the message is still true.
        let _ = file.read_to_string(&mut holder);
        let message = format!("{} is in use by process {}", store.display(), holder.trim());
        return Err(PortError::new(ErrorKind::Busy, message).into());
    }
    file.set_len(0).with_context(failed)?;
    file.rewind().with_context(failed)?;
    writeln!(file, "{}", std::process::id()).with_context(failed)?;
    Ok(file)
}
