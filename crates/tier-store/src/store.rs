//! An open store: a filesystem's two ports, wired to index, recall and agent.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tier_agent::{Recaller, Stages, StatusBook, TieringOutAgent};
use tier_index::{Extent, ExtentContent, Index, TarballId};
use tier_persist::{Archive, History, tarball_of};
use tier_status::StatusSink;
use tier_types::{ChunkNo, Ino, Recall};

use crate::cloud::Thaws;
use crate::dir::StoreDir;
use crate::filesystem::Filesystem;
use crate::wiring::{open_index, recaller, stages, status_book};
use crate::{StoreError, index_dirs};

/// Extents that are asked of the index at a time.
const EXTENTS_PER_READ: usize = 1024;

/// What must hold of the index when a store is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// It includes the newest manifest, unless its tarballs are out of reach.
    Current,
    /// It may be behind, or wrong: enough to check the store, and no evicted data is read by it.
    IndexMayLag,
}

/// An open store. Only one process has it open.
pub struct Store {
    history: Arc<History>,
    book: Arc<StatusBook>,
    recaller: Arc<Recaller>,
    thaws: Arc<Thaws>,
    filesystem: Filesystem,
    progress: Arc<dyn StatusSink>,
    agent: Mutex<Option<Arc<TieringOutAgent>>>,
    mode: OpenMode,
    /// The last field, and so the last one to be dropped: it holds the lock.
    dir: StoreDir,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Wires a store to its filesystem. `progress` hears what the status logs hear, and more often.
    pub fn open(
        dir: StoreDir,
        filesystem: Filesystem,
        progress: Arc<dyn StatusSink>,
        mode: OpenMode,
    ) -> Result<Self, StoreError> {
        if filesystem.chunk_bytes != dir.config.chunk_bytes {
            let (settings, made) = (dir.config.chunk_bytes, filesystem.chunk_bytes);
            let problem = format!(
                "it says chunk_bytes = {settings}, but the filesystem was made with {made}; put \
                 that back"
            );
            return Err(StoreError::Config { path: dir.layout.config(), problem });
        }
        let index = Arc::new(open_index(&index_dirs::current(&dir.layout)?, &dir.config)?);
        assert_eq!(index.chunk_bytes(), filesystem.chunk_bytes, "checked when it was opened");
        // Only now, when the last one can be opened, the others go.
        index_dirs::settle(&dir.layout)?;
        let book = Arc::new(status_book(&dir)?);
        let thaws = Arc::new(Thaws::open(&dir.layout.thaws(), Arc::clone(&dir.clock)));
        let recaller = Arc::new(recaller(&dir, &index, dir.thawing_copies(&thaws))?);
        let agent = Mutex::new(None);
        let history = Arc::new(History::new(index));
        if mode == OpenMode::Current {
            dir.catch_up(&history)?;
        }
        Ok(Self { history, book, recaller, thaws, filesystem, progress, agent, mode, dir })
    }

    /// The store's directory, settings, keys and object stores.
    pub fn dir(&self) -> &StoreDir {
        &self.dir
    }

    /// The index.
    pub fn index(&self) -> &Arc<Index> {
        self.history.index()
    }

    /// The history that the index includes.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// What holds of the index.
    pub(crate) fn mode(&self) -> OpenMode {
        self.mode
    }

    /// The status logs.
    pub fn book(&self) -> &Arc<StatusBook> {
        &self.book
    }

    /// The filesystem's ports.
    pub fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    /// The way back for evicted data, for the filesystem to ask.
    pub fn recall(&self) -> Arc<dyn Recall> {
        self.recaller.clone()
    }

    /// The tarballs that were frozen and are being thawed.
    pub fn thawing(&self) -> BTreeSet<TarballId> {
        self.thaws.thawing().iter().filter_map(tarball_of).collect()
    }

    /// Whether evicted data of an inode is being thawed, of which these tarballs are.
    pub fn is_thawing(&self, ino: Ino, thawing: &BTreeSet<TarballId>) -> Result<bool, StoreError> {
        let mut from = ChunkNo::new(0);
        loop {
            let page = self.index().extents(ino, from, EXTENTS_PER_READ)?;
            let is_there = |extent: &Extent| match extent.content {
                ExtentContent::Data(data) => thawing.contains(&data.location.tarball),
                ExtentContent::Hole | ExtentContent::Lost => false,
            };
            match page.last() {
                _ if page.iter().any(is_there) => return Ok(true),
                Some(last) => from = last.chunks.end(),
                None => return Ok(false),
            }
        }
    }

    /// The snapshots that the index includes. A manifest or a tarball that the local store has lost
    /// is read from the cloud.
    pub fn archive(&self) -> Result<Archive<'_>, StoreError> {
        let StoreDir { keys, filesystem, config, .. } = &self.dir;
        let archive = self.history.archive(self.dir.stores(), keys, *filesystem)?;
        // What another store wrote may have another signer, which the operator trusted.
        let newest = archive.snapshots().next_back().map(|newest| newest.epoch.get());
        let is_writer = self.dir.writer.is_some();
        if is_writer && newest >= Some(config.epoch) && archive.signer() != Some(keys.signer()) {
            let message = "the newest manifest is not signed by this store's identity";
            return Err(StoreError::Damaged(message.into()));
        }
        Ok(archive)
    }

    /// Bytes of the index's files.
    pub fn index_bytes(&self) -> Result<u64, StoreError> {
        index_dirs::bytes(&index_dirs::current(&self.dir.layout)?)
    }

    /// The agent, which is started when it is first asked for.
    pub fn agent(&self) -> Result<Arc<TieringOutAgent>, StoreError> {
        self.agent_as_nice_as(0)
    }

    /// The agent of a filesystem in use, whose persisting yields to foreground activity.
    pub fn agent_in_background(&self) -> Result<Arc<TieringOutAgent>, StoreError> {
        self.agent_as_nice_as(self.dir.config.persist.nice)
    }

    fn agent_as_nice_as(&self, nice: u8) -> Result<Arc<TieringOutAgent>, StoreError> {
        // Held while the agent starts: it recovers first, and a second recovery would remove what
        // the first agent is writing.
        let mut started = self.agent.lock();
        if let Some(agent) = started.as_ref() {
            return Ok(Arc::clone(agent));
        }
        let progress = Arc::clone(&self.progress);
        let stages =
            stages(&self.dir, &self.filesystem, &self.history, &self.book, progress, nice)?;
        let stages: Arc<dyn Stages> = Arc::new(stages);
        let agent = Arc::new(TieringOutAgent::start(&stages)?);
        tracing::info!(nice, "agent started");
        *started = Some(Arc::clone(&agent));
        Ok(agent)
    }
}
