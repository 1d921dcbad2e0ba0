//! A store as far as its archive goes: settings, keys, object stores, and the lock.

use std::path::Path;
use std::sync::Arc;

use tier_agent::{Arrival, CloudPort};
use tier_cloud::{DirStore, ObjectCache};
use tier_persist::{Archive, FilesystemId, History, Keys, NextStep, WriterToken};
use tier_status::Place;
use tier_types::{CacheStore, Clock, CloudId, Epoch, ObjectStore, SnapshotId, SystemClock, Xid};

use crate::cloud::{Abilities, Ability, KnownCloud, ThawingCloud, Thaws, open_cloud, open_limited};
use crate::config::{FormerCloud, Verify};
use crate::identity::load_keys;
use crate::lock::StoreLock;
use crate::{Config, Layout, StoreError, rebuilt};

/// A store whose filesystem and index are not open, but which no other process opens meanwhile. It
/// is what a rebuild works on, and the first half of opening a [`Store`](crate::Store).
pub struct StoreDir {
    /// Where everything lies.
    pub layout: Layout,
    /// The settings.
    pub config: Config,
    /// Which filesystem.
    pub filesystem: FilesystemId,
    /// This store as a writer; `None` for a follower.
    pub writer: Option<WriterToken>,
    /// Its keys.
    pub keys: Arc<Keys>,
    /// Where tarballs are written, and dropped when the cloud has them and their room is wanted.
    pub local: Arc<dyn CacheStore>,
    /// Where they are uploaded to.
    pub cloud: Option<CloudPort>,
    /// Where they were uploaded to before.
    pub former_clouds: Vec<Arc<dyn ObjectStore>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The last field, and so the last one to be dropped.
    _lock: StoreLock,
}

impl std::fmt::Debug for StoreDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A store is told apart in a log by its path; its settings and keys have no place there.
        f.debug_struct("StoreDir").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// The cloud that the settings name. Nothing is asked of it: a store opens without it.
fn known_cloud(layout: &Layout, config: &Config) -> Result<Option<CloudPort>, StoreError> {
    let Some(cloud) = &config.cloud else { return Ok(None) };
    let id = cloud.id();
    let store = Arc::new(KnownCloud::new(open_limited(&cloud.url, cloud.limits())?, id));
    let abilities = config.cloud_place().and_then(|at| Abilities::remembered(layout, &at));
    let arrival = match cloud.verify {
        Verify::Checksum if abilities.is_some_and(|seen| seen.has(Ability::RefusesChanged)) => {
            Arrival::Refused
        }
        Verify::Checksum | Verify::Full => Arrival::Read,
    };
    Ok(Some(CloudPort { store, id, arrival }))
}

fn former_clouds(config: &Config) -> Result<Vec<Arc<dyn ObjectStore>>, StoreError> {
    let former = config.former_clouds.iter().map(|FormerCloud { url, id }| {
        let known = KnownCloud::new(open_cloud(url)?, id.as_deref().and_then(CloudId::parse));
        let known: Arc<dyn ObjectStore> = Arc::new(known);
        Ok(known)
    });
    former.collect()
}

impl StoreDir {
    /// Reads the settings, takes the lock, and opens the object stores.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Arc::new(SystemClock))
    }

    /// The same with a clock of the caller's.
    pub fn open_with(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let layout = Layout::new(path);
        // Settings come before the lock: taking the lock makes a file, which must not appear in a
        // directory that is no store.
        Config::read(&layout)?;
        let lock = StoreLock::take(&layout)?;
        // What a takeover left to be done; with it come other settings.
        rebuilt::finish(&layout)?;
        let config = Config::read(&layout)?;
        // The id is the prefix of every object's name; a wrong one would make the archive look
        // empty.
        let filesystem = FilesystemId::parse(&config.filesystem).ok_or_else(|| {
            let problem = "the filesystem's id is not valid".into();
            StoreError::Config { path: layout.config(), problem }
        })?;
        let writer = config.writer_token().map_err(|problem| StoreError::Config {
            path: layout.config(),
            problem: problem.into(),
        })?;
        tracing::info!(path = %path.display(), %filesystem, config.epoch, cloud = ?config.cloud_url(), "store opened");
        Ok(Self {
            filesystem,
            writer,
            keys: Arc::new(load_keys(&layout, &config)?),
            local: Arc::new(ObjectCache::new(
                Arc::new(DirStore::create(&layout.tarballs())?),
                config.cache.bytes_max,
            )),
            // A URL that cannot be used is an error here, and not only at the first upload.
            cloud: known_cloud(&layout, &config)?,
            former_clouds: former_clouds(&config)?,
            layout,
            config,
            clock,
            _lock: lock,
        })
    }

    /// The last transaction that the local archive has, or that this store was restored behind. A
    /// filesystem that ends before it was put back to an earlier state, and must not write.
    pub fn archived(&self) -> Result<Xid, StoreError> {
        let floor = Xid::new(self.config.xid_floor);
        let newest = Archive::newest(self.local.as_ref(), &self.keys, self.filesystem)?;
        Ok(newest.map_or(floor, |newest| newest.last_xid.max(floor)))
    }

    /// An error while a takeover is under way: what is here may not fit together.
    pub fn check_not_being_taken_over(&self) -> Result<(), StoreError> {
        if self.layout.pending_claim().exists() {
            let store = self.layout.root().display();
            return Err(StoreError::Unusable(format!(
                "a takeover of {store} was interrupted: repeat tier takeover, or remove the file claim \
                 in it if it was given up"
            )));
        }
        Ok(())
    }

    /// Where a snapshot counts as safe once it was verified; `None` while that is not known.
    pub fn safe_place(&self) -> Option<Place> {
        match &self.cloud {
            Some(cloud) => cloud.place().map(Place::Cloud),
            None => Some(Place::Local),
        }
    }

    /// The same, for as long as the store is open.
    pub(crate) fn stores(&self) -> Vec<&dyn ObjectStore> {
        let local: &dyn ObjectStore = self.local.as_ref();
        let cloud = self.cloud.iter().map(|cloud| cloud.store.as_ref());
        let former = self.former_clouds.iter().map(AsRef::as_ref);
        std::iter::once(local).chain(cloud).chain(former).collect()
    }

    /// Brings the index up to what a crash kept from it, unless that is out of reach.
    pub(crate) fn catch_up(&self, history: &History) -> Result<(), StoreError> {
        let keys = &self.keys;
        let newest = history.archive(self.stores(), keys, self.filesystem)?;
        let newest = newest.snapshots().next_back().map(|newest| newest.snapshot);
        let last = newest.max(Some(SnapshotId::new(self.config.snapshot_floor)));
        let snapshot = last.map_or(SnapshotId::new(1), SnapshotId::next);
        let (epoch, writer) = (Epoch::new(self.config.epoch), self.writer);
        let next = NextStep { epoch, snapshot, writer };
        Ok(history
            .catch_up_if_within_reach(&self.stores(), keys, self.filesystem, next)
            .map(drop)?)
    }

    /// The stores in which tarballs are looked for, in this order.
    pub fn copies(&self) -> Vec<Arc<dyn ObjectStore>> {
        // The local copy comes first: it costs no request, and a damaged one is caught by its
        // digest.
        let local: Arc<dyn ObjectStore> = self.local.clone();
        std::iter::once(local).chain(self.elsewhere()).collect()
    }

    /// The same for recalls: what is frozen is thawed when it is wanted.
    pub(crate) fn thawing_copies(&self, thaws: &Arc<Thaws>) -> Vec<Arc<dyn ObjectStore>> {
        let local: Arc<dyn ObjectStore> = self.local.clone();
        let elsewhere = self.elsewhere().map(|inner| {
            let thawing: Arc<dyn ObjectStore> =
                Arc::new(ThawingCloud { inner, thaws: Arc::clone(thaws) });
            thawing
        });
        std::iter::once(local).chain(elsewhere).collect()
    }

    /// The same without the local one.
    pub(crate) fn elsewhere(&self) -> impl Iterator<Item = Arc<dyn ObjectStore>> {
        let cloud = self.cloud.iter().map(|cloud| Arc::clone(&cloud.store));
        cloud.chain(self.former_clouds.iter().cloned())
    }
}
