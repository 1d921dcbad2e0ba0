//! The index: what it answers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tier_types::{ChunkNo, Epoch, Ino, SnapshotId};

use crate::changes::Changes;
use crate::store::{Store, Table};
use crate::{Extent, IndexError, IndexWriter, InodePlace, TarballId, key};

const META_CHUNK_BYTES: &[u8] = b"chunk-bytes";

/// How much memory an index may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexOptions {
    /// Cache of blocks, filters and block indexes.
    pub cache_bytes: usize,
    /// Changes that are not yet in files.
    pub write_buffer_bytes: usize,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, write_buffer_bytes: 16 << 20 }
    }
}

/// The last manifest that an index includes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The writer's reign.
    pub epoch: Epoch,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The manifest's digest.
    pub manifest_digest: [u8; 32],
}

/// Where everything is. One process opens it; threads share it.
#[derive(Debug)]
pub struct Index {
    /// Another one may take its place; whoever reads stays with the one that he began with.
    store: RwLock<Arc<Store>>,
    n_replacements: AtomicU64,
    chunk_bytes: u32,
    /// Held by the one writer; its memory is used again.
    changes: Mutex<Changes>,
}

impl Index {
    /// Opens the index in this folder, or makes an empty one for chunks of this size in bytes.
    pub fn open(path: &Path, chunk_bytes: u32, options: &IndexOptions) -> Result<Self, IndexError> {
        let store = Store::open(path, options)?;
        match store.get(Table::Meta, META_CHUNK_BYTES)? {
            Some(stored) if stored == chunk_bytes.to_le_bytes() => {}
            Some(_) => return Err(store.damaged("it was made for another chunk size")),
            None => {
                let mut batch = store.batch();
                batch.put(Table::Meta, META_CHUNK_BYTES, &chunk_bytes.to_le_bytes())?;
                batch.write()?;
                store.flush()?;
            }
        }
        let (store, changes) = (RwLock::new(Arc::new(store)), Mutex::default());
        Ok(Self { store, n_replacements: AtomicU64::new(0), chunk_bytes, changes })
    }

    /// The filesystem's chunk size in bytes.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// The way in for contents. There is one writer at a time; others wait for it.
    pub fn writer(&self) -> IndexWriter<'_> {
        IndexWriter::new(self, self.changes.lock())
    }

    /// The last manifest that the index includes; `None` for an empty index.
    pub fn applied(&self) -> Result<Option<Applied>, IndexError> {
        self.store().applied()
    }

    /// The row given to [`IndexWriter::add_tarball`].
    pub fn tarball_row(&self, id: TarballId) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.store().tarball(id)?.map(|(_, row)| row))
    }

    /// The tarballs, in the order of writing, with the chunks that are still live in each.
    pub fn tarballs(&self) -> Result<Vec<(TarballId, u64)>, IndexError> {
        self.store().tarballs()
    }

    /// How often another index has taken the place of the one that was there: who remembers answers
    /// remembers this with them.
    pub fn generation(&self) -> u64 {
        self.n_replacements.load(Ordering::Acquire)
    }

    /// The newest state of the chunk, as the extent that holds it.
    pub fn find(&self, ino: Ino, chunk: ChunkNo) -> Result<Option<Extent>, IndexError> {
        let found = self.extents(ino, chunk, 1)?.pop();
        Ok(found.filter(|extent| extent.chunks.contains(chunk)))
    }

    /// The first `n_max` extents of the inode that end after `from`.
    pub fn extents(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<Extent>, IndexError> {
        let store = self.store();
        let whole = store.inode(ino)?.and_then(|(_, whole)| whole);
        let whole = whole.filter(|whole| whole.chunks.end() > from && n_max > 0);
        let until = key::inode(ino.next());
        let pairs = store.scan(Table::Extents, &key::extent(ino, from), Some(&until))?;
        let rest = pairs.take(n_max - usize::from(whole.is_some())).map(|pair| {
            let (key, value) = pair?;
            store.parse_extent((&key, &value))
        });
        whole.map(Ok).into_iter().chain(rest).collect()
    }

    /// The newest state of the inode.
    pub fn inode(&self, ino: Ino) -> Result<Option<InodePlace>, IndexError> {
        Ok(self.store().inode(ino)?.map(|(inode, _)| inode))
    }

    /// The database's own statistics, for people.
    pub fn statistics(&self) -> String {
        self.store().statistics()
    }

    /// The database as it is now.
    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store.read())
    }

    pub(crate) fn into_store(self) -> Arc<Store> {
        self.store.into_inner()
    }

    /// From now on this is the database; returns the one before.
    pub(crate) fn exchange_store(&self, store: Arc<Store>) -> Arc<Store> {
        let old = std::mem::replace(&mut *self.store.write(), store);
        self.n_replacements.fetch_add(1, Ordering::Release);
        old
    }
}
