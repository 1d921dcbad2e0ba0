//! The history that an index includes, kept in memory.
//!
//! A store takes snapshots for years. No step of that reads what the steps before it wrote: the
//! index has a row for each, which is read once, and after that only what was added.

use std::sync::Arc;

use parking_lot::Mutex;
use tier_index::Index;
use tier_types::ObjectStore;

use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::names::FilesystemId;
use crate::read::chain::Archive;
use crate::read::link::{Chain, ChainLink};

/// How often the rows are read before they are taken to be wrong.
const N_READS: usize = 4;

/// The history of one filesystem as its index includes it.
pub struct History {
    index: Arc<Index>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Of the index.
    generation: u64,
    chain: Arc<Chain>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History")
            .field("n_known", &self.known.lock().chain.len())
            .finish_non_exhaustive()
    }
}

impl History {
    /// The history that this index includes. Nothing is read before it is asked for.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, known: Mutex::default() }
    }

    /// The index.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The snapshots of the history. Manifests are read from the first of these stores that has
    /// them undamaged, and so are tarballs; the first one is the archive's own.
    pub fn archive<'a>(
        &self,
        stores: Vec<&'a dyn ObjectStore>,
        keys: &'a Keys,
        filesystem: FilesystemId,
    ) -> Result<Archive<'a>, PersistError> {
        Archive::over(self.chain()?, stores, keys, filesystem)
    }

    /// All steps that the index includes.
    pub(crate) fn chain(&self) -> Result<Arc<Chain>, PersistError> {
        let mut known = self.known.lock();
        // Before any row is read: another index in its place is read anew the next time.
        let generation = self.index.generation();
        if known.generation != generation {
            *known = Known { generation, chain: Arc::default() };
        }
        let applied = || -> Result<_, PersistError> {
            Ok(self.index.applied()?.map(|applied| applied.manifest_digest))
        };
        let last = |chain: &Chain| chain.last().map(|link| link.reference.digest);
        // A commit, or another index in its place, may come between two reads; then they are made
        // again. After the first time all rows are read: they may be of another history than
        // before.
        for _ in 0..N_READS {
            if last(&known.chain) == applied()? {
                return Ok(Arc::clone(&known.chain));
            }
            self.read_rest(&mut known)?;
            if last(&known.chain) == applied()? {
                return Ok(Arc::clone(&known.chain));
            }
            known.chain = Arc::default();
        }
        let problem = "its rows of the history do not end with the manifest that it includes";
        Err(PersistError::damaged("the index", problem))
    }

    fn read_rest(&self, known: &mut Known) -> Result<(), PersistError> {
        let after = known.chain.last().map(|link| link.summary.snapshot);
        let rows = self.index.chain_after(after)?;
        let chain = Arc::make_mut(&mut known.chain);
        for row in rows {
            let problem = "a row of the history cannot be read; rebuild it";
            let link = ChainLink::from_bytes(&row);
            chain.push(Arc::new(link.ok_or_else(|| PersistError::damaged("the index", problem))?));
        }
        Ok(())
    }
}
