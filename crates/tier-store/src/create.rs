//! Making a new store.
//!
//! The settings are written last: a directory without them is no store, so that a crash or an error
//! half way leaves something that can be removed and nothing that looks usable. The filesystem's
//! own files are made by the caller, between [`NewStore::prepare`] and [`PreparedStore::finish`].

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tier_persist::{Claims, FilesystemId, Keys, WriterToken};
use tier_types::{Call, Clock, CloudPlace, Epoch, ErrorKind, ObjectStore, SystemClock};

use crate::cloud::{Abilities, completed, id, make_cloud, may_be_made, open_cloud};
use crate::config::{self, Config};
use crate::identity::{new_identity, read_identity};
use crate::{Layout, StoreError, durable, ownership};

/// What a new store is to be.
///
/// ```
/// use tier_store::{NewStore, StoreDir};
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("store");
/// let prepared = NewStore::default().prepare(&path)?;
/// // … the filesystem makes its own files below `path` …
/// prepared.finish()?;
/// let store = StoreDir::open(&path)?;
/// assert!(store.cloud.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NewStore {
    /// Where to upload to.
    pub cloud: Option<String>,
    /// Whether that may be a cloud already.
    pub adopt_cloud: bool,
    /// An identity file; without one a new identity is made in the store.
    pub identity: Option<PathBuf>,
    /// Extra recipients, `age1…`.
    pub recipients: Vec<String>,
    /// Whether tarballs are encrypted.
    pub encryption: bool,
    /// zstd level.
    pub level: i32,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
}

impl Default for NewStore {
    fn default() -> Self {
        Self {
            cloud: None,
            adopt_cloud: false,
            identity: None,
            recipients: Vec::new(),
            encryption: true,
            level: config::Persist::default().level,
            chunk_bytes: Config::CHUNK_BYTES,
        }
    }
}

/// A directory that becomes a store when it is finished.
#[derive(Debug)]
pub struct PreparedStore {
    layout: Layout,
    config: Config,
    filesystem: FilesystemId,
    keys: Keys,
    adopt_cloud: bool,
}

impl NewStore {
    /// Makes the directory, which must be empty if it is there, with the identity in it.
    pub fn prepare(&self, path: &Path) -> Result<PreparedStore, StoreError> {
        let cloud = self.cloud.as_deref().map(completed).transpose()?;
        let this = &Self { cloud, ..self.clone() };
        this.prepare_completed(path)
    }

    fn prepare_completed(&self, path: &Path) -> Result<PreparedStore, StoreError> {
        // What cannot be is found out before anything is made.
        if let Some(url) = &self.cloud {
            self.check_cloud(url)?;
            make_cloud(url)?;
        }
        let mut keys = match &self.identity {
            Some(path) => read_identity(path)?,
            None => Keys::generate()?,
        };
        for recipient in &self.recipients {
            keys.add_recipient(recipient)?;
        }
        let layout = Layout::new(path);
        let filesystem = FilesystemId::random()?;
        let config = self.config(filesystem, Some(WriterToken::random()?));
        if let Some(problem) = config.unsound() {
            return Err(StoreError::Config { path: layout.config(), problem: problem.into() });
        }
        prepare_directory(&layout, &keys)?;
        let keys = if self.encryption { keys } else { keys.without_encryption() };
        let adopt_cloud = self.adopt_cloud;
        Ok(PreparedStore { layout, config, filesystem, keys, adopt_cloud })
    }

    /// An error if a cloud may not be given to this store. That its directory is not there yet is
    /// none.
    fn check_cloud(&self, url: &str) -> Result<(), StoreError> {
        match id::read(&Call::bulk(), open_cloud(url)?.as_ref()) {
            Ok(Some(found)) if !self.adopt_cloud => Err(id::is_there_already(found, url)),
            Err(error) if error.kind() == ErrorKind::Away && may_be_made(url) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    /// The settings of a store that begins with its first transaction.
    pub(crate) fn config(&self, filesystem: FilesystemId, writer: Option<WriterToken>) -> Config {
        Config {
            filesystem: filesystem.to_string(),
            epoch: 1,
            writer: writer.map(|writer| writer.to_string()),
            chunk_bytes: self.chunk_bytes,
            xid_floor: 0,
            snapshot_floor: 0,
            identity: Layout::IDENTITY.into(),
            recipients: self.recipients.clone(),
            encryption: self.encryption,
            cloud: self.cloud.clone().map(config::Cloud::new),
            former_clouds: Vec::new(),
            persist: config::Persist { level: self.level, ..config::Persist::default() },
            memory: config::Memory::default(),
            recall: config::Recall::default(),
            evict: config::Evict::default(),
            agent: config::Agent::default(),
            space: config::Space::default(),
            cache: config::Cache::default(),
            mount: config::Mount::default(),
        }
    }
}

impl PreparedStore {
    /// The settings that the store will have.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where everything will lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The identity's public key, `age1…`.
    pub fn public_key(&self) -> String {
        self.keys.public_key()
    }

    /// Claims the first epoch of an archive that nothing else has written to.
    fn claim(&self, cloud: &dyn ObjectStore) -> Result<(), StoreError> {
        let Some(writer) = self.config.writer_token().ok().flatten() else { return Ok(()) };
        let (epoch, clock) = (Epoch::new(self.config.epoch), &SystemClock);
        let claim = ownership::claim(&self.keys, self.filesystem, epoch, writer, clock);
        Ok(Claims::new(cloud, &self.keys, self.filesystem).create(&Call::bulk(), &claim)?)
    }

    /// Makes it a store, and its cloud a cloud: last, so that an attempt that failed before can be
    /// repeated without adopting what it left.
    /// Returns what the cloud was seen to do.
    pub fn finish(mut self) -> Result<Option<Abilities>, StoreError> {
        let mut abilities = None;
        // The settings state the identity, so that the cloud comes first. A crash between the two
        // leaves an identity and no store; the next attempt must then be told to adopt it.
        if let Some(url) = self.config.cloud_url() {
            let cloud = open_cloud(url)?;
            let seen = Abilities::find_out(self.filesystem, cloud.as_ref())?;
            seen.check_usable(url)?;
            let id = id::make(cloud.as_ref(), self.adopt_cloud)?;
            self.claim(cloud.as_ref())?;
            seen.remember(&self.layout, &CloudPlace { id, url: url.to_owned() })?;
            tracing::info!(url, %id, ?seen, "the store has a cloud");
            abilities = Some(seen);
            let settings = self.config.cloud.take();
            let id = Some(id.to_string());
            self.config.cloud = settings.map(|cloud| config::Cloud { id, ..cloud });
        }
        assert!(self.config.unsound().is_none(), "checked when it was prepared");
        tracing::info!(path = %self.layout.root().display(), "store made");
        self.config.write(&self.layout)?;
        Ok(abilities)
    }
}

/// Makes the directory of a store, which must be empty if it is there, and puts the keys into it.
pub(crate) fn prepare_directory(layout: &Layout, keys: &Keys) -> Result<(), StoreError> {
    let store = layout.root();
    durable::make_directory(store)?;
    // Before anything is changed: a directory that is refused stays as it is.
    let mut entries = fs::read_dir(store).map_err(StoreError::io("list", store))?;
    if entries.next().is_some() {
        return Err(StoreError::NotEmpty(store.to_path_buf()));
    }
    // What the permissions of the filesystem keep from other users lies in here.
    fs::set_permissions(store, fs::Permissions::from_mode(0o700))
        .map_err(StoreError::io("create", store))?;
    let clock: &dyn Clock = &SystemClock;
    new_identity(&layout.identity(), keys, clock)
}
