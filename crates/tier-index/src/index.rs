//! The index: what it answers, and how a whole one takes the place of another.
//!
//! **One copy.** An index is derived from the tarballs and can be made anew, and sometimes must be:
//! after damage, or to be compared with the one in use. A new index is built beside the live one,
//! in a directory of its own, while the live one goes on to answer recalls and to take in what is
//! persisted. There is never a third state: the `Arc` in the [`Index`] points to the one database
//! or to the other, and a holder of the index needs no new handle.
//!
//! *Readers.* A question takes its own reference to the database first and keeps it to its end. A
//! dump that began before the replacement therefore finishes over the database that it began with;
//! it does not block the replacement and never sees a mixture. When the last such reader is done,
//! the old database is closed and its directory removed, in this order.
//!
//! *The writer.* There is one at a time, and replacing is the writer's doing
//! ([`IndexWriter::replace_by`](crate::IndexWriter::replace_by)): it consumes the writer, so that
//! nothing can be applied to the old database afterwards. A writer that waited meanwhile takes its
//! reference only when it has the lock, and so writes into the new one. An index that includes less
//! than the live one is refused; otherwise a manifest that was committed while the new one was
//! built would be lost from it.
//!
//! *Answers that are remembered.* An answer may be kept by its asker, as a tarball's row is by the
//! fetcher. It remains true of the tarball; but a row of a damaged index may have been wrong. Each
//! replacement therefore raises the [generation](Index::generation), which is kept with the answer
//! and compared. It is raised after the exchange, so that a new answer may be kept under the old
//! generation, which costs one more question, and never an old one under the new.
//!
//! *Crashes.* What is on the disk is decided by names alone, outside this crate: a new index is
//! whole, flushed and renamed before it is put in the place of the old one, and of the directories
//! that a crash leaves the newest counts (`docs/formats/index.md`).

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tier_types::{ChunkNo, Ino, SnapshotId, Xid};

use crate::database::{Database, Table};
use crate::delta::Delta;
use crate::location::{Extent, ExtentContent, InodeLocation, TarballId};
use crate::options::IndexOptions;
use crate::rows::Applied;
use crate::tables::META_SAFE;
use crate::{IndexError, key};

const META_CHUNK_BYTES: &[u8] = b"chunk-bytes";

/// Where everything is. One process opens it; threads share it.
///
/// ```
/// use tier_index::{Contents, Entry, Index, IndexOptions, TarballId};
/// use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, Persisted, SnapshotId, Xid};
///
/// let dir = tempfile::tempdir()?;
/// let index = Index::open(dir.path(), 4096, &IndexOptions::default())?;
/// let tarball = TarballId { epoch: Epoch::new(1), snapshot: SnapshotId::new(3), part: 0 };
/// let (ino, data_xid) = (Ino::new(7), Xid::new(50));
/// let chunks = ChunkRange::new(ChunkNo::new(0), ChunkNo::new(4)).expect("four chunks");
/// let data = Entry::Data { ino, chunks, data_xid, frame: 9, offset: 512, short_bytes: 0 };
///
/// let mut writer = index.writer();
/// writer.add_tarball(tarball, b"what its reader needs")?;
/// writer.apply(&Contents { tarball, chunk_bytes: 4096, entries: vec![data] })?;
/// drop(writer);
///
/// let extent = index.find(ino, ChunkNo::new(2))?.expect("the chunk is known");
/// assert_eq!(extent.data().map(|data| data.location.frame), Some(9));
/// assert!(index.is_persisted(ino, chunks, data_xid)?);
/// assert!(!index.is_persisted(ino, chunks, data_xid.next())?, "another version");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Index {
    /// Another one may take its place; a reader stays with the one that it began with.
    database: RwLock<Arc<Database>>,
    n_replacements: AtomicU64,
    chunk_bytes: u32,
    /// Held by the one writer; its memory is used again.
    delta: Mutex<Delta>,
}

impl Index {
    /// Opens the index in this directory, or makes an empty one for chunks of this size in bytes.
    ///
    /// # Panics
    /// If a chunk has no bytes.
    pub fn open(path: &Path, chunk_bytes: u32, options: &IndexOptions) -> Result<Self, IndexError> {
        assert!(chunk_bytes > 0, "a chunk has bytes");
        let database = Database::open(path, chunk_bytes, options)?;
        match database.get(Table::Meta, META_CHUNK_BYTES)? {
            Some(stored) if stored == chunk_bytes.to_le_bytes() => {}
            // The same chunk number would mean other bytes of the file.
            Some(_) => return Err(database.damaged("it was made for another chunk size")),
            None => {
                let mut batch = database.batch();
                batch.put(Table::Meta, META_CHUNK_BYTES, &chunk_bytes.to_le_bytes())?;
                batch.write()?;
                // Before any contents: without the size they could be opened as chunks of another
                // one.
                database.flush()?;
            }
        }
        tracing::info!(path = %path.display(), chunk_bytes, "index opened");
        Ok(Self::of(database, chunk_bytes))
    }

    /// Opens one that is there to read only, and changes nothing of it.
    pub fn look(path: &Path, chunk_bytes: u32, options: &IndexOptions) -> Result<Self, IndexError> {
        Ok(Self::of(Database::look(path, chunk_bytes, options)?, chunk_bytes))
    }

    fn of(database: Database, chunk_bytes: u32) -> Self {
        let (database, delta) = (RwLock::new(Arc::new(database)), Mutex::default());
        Self { database, n_replacements: AtomicU64::new(0), chunk_bytes, delta }
    }

    /// The filesystem's chunk size in bytes.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// The last manifest that the index includes; `None` for an empty index.
    pub fn applied(&self) -> Result<Option<Applied>, IndexError> {
        self.database().applied()
    }

    /// The rows of the history's steps after this one, as they were given to
    /// [`IndexWriter::set_applied`](crate::IndexWriter::set_applied), in the order of their
    /// numbers.
    pub fn chain_after(&self, after: Option<SnapshotId>) -> Result<Vec<Vec<u8>>, IndexError> {
        self.database().chain_after(after)
    }

    /// What was remembered with [`remember_safe`](Self::remember_safe).
    pub fn safe(&self) -> Result<Option<Vec<u8>>, IndexError> {
        self.database().get(Table::Meta, META_SAFE)
    }

    /// Remembers how far the history is known to be safe, in its reader's own bytes; durably, or
    /// with the next flush. It is lost with the index, and found again from what it was told by.
    pub fn remember_safe(&self, bytes: &[u8], durably: bool) -> Result<(), IndexError> {
        // Held by the writer, so that it is not written to an index that is being replaced.
        let _writer = self.lock_delta();
        let database = self.database();
        let mut batch = database.batch();
        batch.put(Table::Meta, META_SAFE, bytes)?;
        batch.write()?;
        if durably { database.flush() } else { Ok(()) }
    }

    /// The row given to [`IndexWriter::add_tarball`](crate::IndexWriter::add_tarball).
    pub fn tarball_row(&self, id: TarballId) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.database().tarball(id)?.map(|tarball| tarball.reader_row))
    }

    /// The rows of the first `n_max` of these tarballs, in the order of writing.
    pub fn tarball_rows(
        &self,
        ids: &RangeInclusive<TarballId>,
        n_max: usize,
    ) -> Result<Vec<(TarballId, Vec<u8>)>, IndexError> {
        self.database().tarball_rows(ids, n_max)
    }

    /// The tarballs, in the order of writing, with the chunks that are still live in each.
    pub fn tarballs(&self) -> Result<Vec<(TarballId, u64)>, IndexError> {
        self.database().tarballs()
    }

    /// How often another index has taken the place of the one that was there. To be kept with an
    /// answer that is remembered.
    pub fn generation(&self) -> u64 {
        self.n_replacements.load(Ordering::Acquire)
    }

    /// The newest state of the chunk, as the extent that holds it.
    pub fn find(&self, ino: Ino, chunk: ChunkNo) -> Result<Option<Extent>, IndexError> {
        let found = self.extents(ino, chunk, 1)?.pop();
        // The first extent that ends behind the chunk may also begin behind it.
        Ok(found.filter(|extent| extent.chunks.contains(chunk)))
    }

    /// The first `n_max` extents of the inode that end after `from`.
    pub fn extents(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<Extent>, IndexError> {
        let database = self.database();
        // Both reads are of one database: another one may take the index's place between them.
        let row = database.inode(ino)?;
        let reaches = |inline: &Extent| inline.chunks.end() > from && n_max > 0;
        let inline = row.and_then(|row| row.inline).filter(reaches);
        let mut extents: Vec<_> = inline.into_iter().collect();
        let n_more = n_max - extents.len();
        if n_more == 0 {
            // A small file is told by its row alone, without a look for more.
            return Ok(extents);
        }
        // A prefix of the next inode's keys, and so before all of them.
        let until = key::inode(ino.next());
        let pairs = database.scan(Table::Extents, &key::extent(ino, from), Some(&until))?;
        for pair in pairs.take(n_more) {
            let (key, value) = pair?;
            extents.push(database.parse_extent(&key, &value)?);
        }
        Ok(extents)
    }

    /// Shows `visit` every range that is lost, in order of inodes and chunks. It reads all of the
    /// extents, and what `visit` returns ends that.
    pub fn visit_lost<E: From<IndexError>>(
        &self,
        visit: &mut dyn FnMut(&Extent) -> Result<(), E>,
    ) -> Result<(), E> {
        let database = self.database();
        // None is inline: what lies with the metadata is data.
        for pair in database.scan(Table::Extents, &[], None)? {
            let (key, value) = pair?;
            let extent = database.parse_extent(&key, &value)?;
            if extent.content == ExtentContent::Lost {
                visit(&extent)?;
            }
        }
        Ok(())
    }

    /// The newest state of the inode.
    pub fn inode(&self, ino: Ino) -> Result<Option<InodeLocation>, IndexError> {
        Ok(self.database().inode(ino)?.map(|row| row.newest))
    }

    /// Inodes above `after` of which metadata is known, in order, at most `n_max`, with its
    /// transaction; those that are gone are left out.
    pub fn inodes_after(&self, after: Ino, n_max: usize) -> Result<Vec<(Ino, Xid)>, IndexError> {
        let database = self.database();
        let mut found = Vec::new();
        for pair in database.scan(Table::Inodes, &key::inode(after.next()), None)? {
            if found.len() >= n_max {
                break;
            }
            let (key, value) = pair?;
            let damaged = || database.damaged("an inode's row cannot be read");
            let ino = key::parse_inode(&key).ok_or_else(damaged)?;
            match database.parse_inode(ino, &value)?.newest {
                InodeLocation::At { xid, .. } => found.push((ino, xid)),
                InodeLocation::Gone { .. } => {}
            }
        }
        Ok(found)
    }

    /// The database's own statistics, as text to be read and not parsed.
    pub fn statistics(&self) -> String {
        self.database().statistics()
    }

    /// The memory of the one writer; waits for the writer that has it.
    pub(crate) fn lock_delta(&self) -> MutexGuard<'_, Delta> {
        self.delta.lock()
    }

    /// The database as it is now.
    pub(crate) fn database(&self) -> Arc<Database> {
        Arc::clone(&self.database.read())
    }

    pub(crate) fn into_database(self) -> Arc<Database> {
        self.database.into_inner()
    }

    /// From now on this is the database; returns the one before.
    pub(crate) fn exchange_database(&self, new: Arc<Database>) -> Arc<Database> {
        assert_eq!(new.chunk_bytes(), self.chunk_bytes, "an index keeps its chunk size");
        // Readers hold this lock only to copy the `Arc`, so that no question is waited for.
        let old = std::mem::replace(&mut *self.database.write(), new);
        self.n_replacements.fetch_add(1, Ordering::Release);
        old
    }
}
