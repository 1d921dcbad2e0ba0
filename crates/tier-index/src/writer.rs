//! How an index changes: contents go in, or another index takes its place.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::changes::Changes;
use crate::merge::Merge;
use crate::store::{Store, Table};
use crate::tables::META_APPLIED;
use crate::{Applied, Contents, Index, IndexError, TarballId, key, wire};

/// The only one who changes an index, as long as it is held. All of a manifest goes in through one
/// writer, so that nobody comes between its tarballs and the word that it was applied.
#[derive(Debug)]
pub struct IndexWriter<'a> {
    index: &'a Index,
    store: Arc<Store>,
    changes: MutexGuard<'a, Changes>,
}

impl<'a> IndexWriter<'a> {
    pub(crate) fn new(index: &'a Index, changes: MutexGuard<'a, Changes>) -> Self {
        Self { index, store: index.store(), changes }
    }

    /// The filesystem's chunk size in bytes.
    pub fn chunk_bytes(&self) -> u32 {
        self.index.chunk_bytes()
    }

    /// Makes a tarball known, with the bytes that its reader will need. To be called before its
    /// contents are applied; again with the same bytes it changes nothing.
    pub fn add_tarball(&mut self, id: TarballId, row: &[u8]) -> Result<(), IndexError> {
        let live_chunks = self.store.tarball(id)?.map_or(0, |(live_chunks, _)| live_chunks);
        let mut batch = self.store.batch();
        batch.put(Table::Tarballs, &key::tarball(id), &wire::tarball_to_bytes(live_chunks, row))?;
        batch.write()
    }

    /// Takes in contents. What they say wins where their transactions are later than what is
    /// known, so that applying them twice, or late, does no harm.
    pub fn apply(&mut self, contents: &Contents) -> Result<(), IndexError> {
        let chunk_bytes = self.chunk_bytes();
        if contents.chunk_bytes != chunk_bytes {
            return Err(IndexError::ChunkSize {
                index: chunk_bytes,
                contents: contents.chunk_bytes,
            });
        }
        // In order, so that what is known is read with two cursors that only move forward.
        let mut entries: Vec<_> = contents.entries.iter().collect();
        entries.sort_by_key(|entry| entry.ino());
        let mut merge =
            Merge::new(&self.store, (contents.tarball, chunk_bytes), &mut self.changes)?;
        for entries in entries.chunk_by(|a, b| a.ino() == b.ino()) {
            if let Some(ino) = entries.first().map(|entry| entry.ino()) {
                merge.inode(ino, entries)?;
            }
        }
        merge.write()
    }

    /// Says that all contents of a manifest were applied. It reaches the disk with them, or not at
    /// all: at the latest with the next [`flush`](Self::flush).
    pub fn set_applied(&mut self, applied: &Applied) -> Result<(), IndexError> {
        let mut batch = self.store.batch();
        batch.put(Table::Meta, META_APPLIED, &wire::applied_to_bytes(applied))?;
        batch.write()
    }

    /// Makes everything that was applied durable.
    pub fn flush(&mut self) -> Result<(), IndexError> {
        self.store.flush()
    }

    /// Puts a whole index in the place of this one, for every reader at once: who is reading goes on
    /// with the one that he began with, and with the last of them its folder goes. One that
    /// includes less is refused; an index that cannot tell what it includes includes nothing.
    pub fn replace_by(self, new: Index) -> Result<(), IndexError> {
        let (ours, theirs) = (self.chunk_bytes(), new.chunk_bytes());
        if ours != theirs {
            return Err(IndexError::ChunkSize { index: ours, contents: theirs });
        }
        let order = |applied: Applied| (applied.epoch, applied.snapshot);
        let known = self.store.applied().ok().flatten();
        if new.applied()?.map(order) < known.map(order) {
            return Err(IndexError::Behind);
        }
        self.store.remove_when_closed();
        let old = self.index.exchange_store(new.into_store());
        // Closing takes its time, which the next writer need not wait for.
        drop(self.changes);
        drop(old);
        Ok(())
    }
}
