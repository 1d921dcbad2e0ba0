//! The one writer of an index: contents go in, or another index takes its place.
//!
//! All of a manifest goes in through one writer: each tarball is made known and its contents are
//! applied, then the manifest is noted as applied. Nothing of it is durable before a
//! [`sync`](IndexWriter::sync) or a [`flush`](IndexWriter::flush), which brings all of it to the
//! disk at once or, after a crash, an earlier state. The note can therefore not be on the disk
//! without the contents: it was written after them, and what a crash takes is always the newest.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::contents::Contents;
use crate::database::{Database, Table};
use crate::delta::Delta;
use crate::index::Index;
use crate::location::TarballId;
use crate::merge::{self, Merge};
use crate::rows::{Applied, IndexedTarball};
use crate::tables::META_APPLIED;
use crate::{IndexError, key, wire};

/// As long as it is held, nothing else changes the index. All of a manifest goes in through one
/// writer, so that nothing comes between its tarballs and the note that it was applied.
#[derive(Debug)]
pub struct IndexWriter<'a> {
    index: &'a Index,
    database: Arc<Database>,
    delta: MutexGuard<'a, Delta>,
}

impl Index {
    /// The way in for contents. There is one writer at a time; others wait for it.
    pub fn writer(&self) -> IndexWriter<'_> {
        // The lock first: a writer that waited for it must not go on with a database that was
        // replaced meanwhile.
        let delta = self.lock_delta();
        IndexWriter { index: self, database: self.database(), delta }
    }
}

impl IndexWriter<'_> {
    /// The filesystem's chunk size in bytes.
    pub fn chunk_bytes(&self) -> u32 {
        self.index.chunk_bytes()
    }

    /// Makes a tarball known, with the bytes that its reader will need. To be called before its
    /// contents are applied; again with the same bytes it changes nothing.
    pub fn add_tarball(&mut self, id: TarballId, row: &[u8]) -> Result<(), IndexError> {
        // Known already after a crash, or from another copy: its extents are counted once, and the
        // count goes on.
        let live_chunks = self.database.tarball(id)?.map_or(0, |tarball| tarball.live_chunks);
        let tarball = IndexedTarball { live_chunks, reader_row: row.to_vec() };
        let mut batch = self.database.batch();
        batch.put(Table::Tarballs, &key::tarball(id), &wire::tarball_to_bytes(&tarball))?;
        batch.write()
    }

    /// Whether a tarball is known.
    pub fn has_tarball(&self, id: TarballId) -> Result<bool, IndexError> {
        Ok(self.database.tarball(id)?.is_some())
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
        // A stable sort: entries of one inode stay in the order of their members.
        entries.sort_by_key(|entry| entry.ino());
        let tarball = contents.tarball;
        let mut merge = self.merge()?;
        for entries in entries.chunk_by(|a, b| a.ino() == b.ino()) {
            let [first, ..] = entries else { continue };
            let said: Vec<_> =
                entries.iter().filter_map(|entry| merge::inode_location(tarball, entry)).collect();
            let extents = entries.iter().filter_map(|entry| merge::extent(tarball, entry));
            merge.inode(first.ino(), &said, extents.collect())?;
        }
        merge.write()
    }

    /// The database and the memory of its changes.
    pub(crate) fn parts(&mut self) -> (&Database, &mut Delta) {
        (&self.database, &mut self.delta)
    }

    pub(crate) fn merge(&mut self) -> Result<Merge<'_>, IndexError> {
        Merge::new(&self.database, &mut self.delta)
    }

    /// Says that all contents of a manifest were applied, with what its reader needs to know of
    /// that step of the history. It reaches the disk with the contents, or not at all: at the
    /// latest with the next [`flush`](Self::flush).
    pub fn set_applied(&mut self, applied: &Applied, step: &[u8]) -> Result<(), IndexError> {
        let mut batch = self.database.batch();
        tracing::debug!(?applied, "a manifest is in the index");
        batch.put(Table::Chain, &key::chain(applied.snapshot), step)?;
        batch.put(Table::Meta, META_APPLIED, &wire::applied_to_bytes(applied))?;
        batch.write()
    }

    /// Makes what was applied durable as far as the manifests of the store have it as well: what is
    /// little is in a log, and damage in that takes the newest of it.
    pub fn sync(&mut self) -> Result<(), IndexError> {
        self.database.sync()
    }

    /// Makes everything that was applied durable.
    pub fn flush(&mut self) -> Result<(), IndexError> {
        self.database.flush()
    }

    /// Puts a whole index in the place of this one, for every reader at once: a reader that is
    /// under way goes on with the one that it began with, and with the last of them its directory
    /// goes. One that includes less is refused; an index that cannot tell what it includes includes
    /// nothing.
    pub fn replace_by(self, new: Index) -> Result<(), IndexError> {
        let (live, offered) = (self.chunk_bytes(), new.chunk_bytes());
        if live != offered {
            return Err(IndexError::ChunkSize { index: live, contents: offered });
        }
        let order = |applied: Applied| (applied.epoch, applied.snapshot);
        let includes = new.applied()?;
        // A row that cannot be read may be why the index is replaced.
        let included = self.database.applied().unwrap_or_else(|error| {
            tracing::debug!(%error, "the index that is replaced cannot tell what it includes");
            None
        });
        // `None` is the lowest, so that an index in use that cannot tell what it includes never
        // stands in the way of a new one.
        if includes.map(order) < included.map(order) {
            return Err(IndexError::Behind);
        }
        // From here on nothing fails: the old one may be marked before the new one is in its place.
        self.database.remove_when_closed();
        let new = new.into_database();
        tracing::info!(
            old = %self.database.path().display(),
            new = %new.path().display(),
            snapshot = includes.map(|applied| applied.snapshot.get()),
            "index replaced"
        );
        let old = self.index.exchange_database(new);
        // Closing takes its time, which the next writer need not wait for.
        drop(self.delta);
        drop(old);
        Ok(())
    }
}
