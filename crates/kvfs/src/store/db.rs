//! The database: opening, writing, syncing, measuring, and raw reads for the rest of this
//! directory.
//!
//! A batch is written without a sync and is then visible, and safe from the end of the process; a
//! sync of the write-ahead log makes everything before it safe from a loss of power. The few writes
//! that are no transaction (a new store's settings, publications, the mark of a repair)
//! are functions here, each of which says whether it syncs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, CompactOptions, DBRawIterator, Direction,
    FlushOptions, IteratorMode, ReadOptions, WriteBatch, WriteOptions,
};
use self_cell::self_cell;
use tier_types::{Ino, Xid, XidRange};

use super::batch::{Batch, Change};
use super::extents::{ExtentFiles, Pin, Pins, Place};
use super::failure::{self, failed};
use super::keys::{
    self, META_CHUNK_BYTES, META_COUNTERS, META_EXTENTS_FLOOR, META_LAST_XID, META_REPAIRING,
    META_XID_FLOOR, Table,
};
use super::opened::{Held, OpenDb, Slot};
use super::reclaim::{self, DeletedRows, TableFile};
use super::rows::{self, Counters};
use super::tuning::{self, OpenAs};
use crate::{FsError, KvfsOptions};

/// Key and value.
pub(super) type Pair = (Box<[u8]>, Box<[u8]>);

/// Pairs in order of keys.
pub(super) type Pairs<'a> = Box<dyn Iterator<Item = Result<Pair, FsError>> + 'a>;

/// Raw reads of the store, as it is or as it was.
pub(super) trait RawTables {
    /// Shows `visit` the value, if there is one, where it is.
    fn visit(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<(), FsError>;

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, FsError> {
        let mut value = None;
        self.visit(table, key, &mut |bytes| value = Some(bytes.to_vec()))?;
        Ok(value)
    }

    /// Whether there is a row, without a copy of it.
    fn contains(&self, table: Table, key: &[u8]) -> Result<bool, FsError> {
        let mut found = false;
        self.visit(table, key, &mut |_| found = true)?;
        Ok(found)
    }

    /// The pairs from `from` up to and not including `until`.
    fn scan(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Pairs<'_>, FsError>;

    /// The last pair from `lower` up to and including `upper`.
    fn last(&self, table: Table, lower: &[u8], upper: &[u8]) -> Result<Option<Pair>, FsError>;

    /// Where large chunks lie.
    fn files(&self) -> &ExtentFiles;
}

/// The key-value store. The database below it may be exchanged (see `opened`).
#[derive(Debug)]
pub(crate) struct Db {
    slot: Slot,
    path: PathBuf,
    options: KvfsOptions,
    files: Arc<ExtentFiles>,
    pins: Arc<Pins>,
    deleted: DeletedRows,
}

self_cell!(
    /// A point-in-time view that keeps its database open.
    pub(crate) struct KvsSnapshot {
        owner: SnapshotOwner,
        #[covariant]
        dependent: BorrowedSnapshot,
    }
);

type BorrowedSnapshot<'a> = rocksdb::Snapshot<'a>;

/// What a snapshot keeps: its database, and the extents that it can see.
struct SnapshotOwner {
    held: Held,
    files: Arc<ExtentFiles>,
    _pin: Pin,
}

self_cell!(
    /// A walk that keeps its database open.
    struct Walk {
        owner: Arc<OpenDb>,
        #[not_covariant]
        dependent: BorrowedWalk,
    }
);

type BorrowedWalk<'a> = rocksdb::DBIterator<'a>;

impl Db {
    pub(crate) fn open(path: &Path, options: &KvfsOptions, how: OpenAs) -> Result<Self, FsError> {
        let opened = OpenDb::open(path, options, how)?;
        let chunk_bytes = recorded_chunk_bytes(&opened)?.unwrap_or(options.chunk_bytes);
        let directory = path.with_file_name("chunks");
        let used = recorded_floor(&opened)?.file;
        let files = Arc::new(ExtentFiles::open(&directory, u64::from(chunk_bytes), used)?);
        Ok(Self {
            slot: Slot::new(opened),
            path: path.to_path_buf(),
            options: *options,
            files,
            pins: Arc::default(),
            deleted: DeletedRows::default(),
        })
    }

    /// Closes the database and opens it again, which ends every snapshot of it. All rows that it
    /// had are durable then, and after a failed sync so are the extents to which they refer. If
    /// something still reads from it, nothing happens. What `check` finds wrong between the two
    /// prevents it; `look` is asked if its log is damaged.
    pub(crate) fn reopen(
        &self,
        check: impl FnOnce() -> Result<(), FsError>,
        look: impl FnOnce(FsError) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let n_writes = self.n_writes()?;
        self.slot.reopen(&self.path, &self.options, check, look)?;
        // Compared by rows: evictions and recalls leave no trace in the last transaction id.
        if self.n_writes()? < n_writes {
            tracing::error!("an error of the disk took writes that were not synced");
            return Err(FsError::Poisoned);
        }
        // An extent that a batch was to name has its row, or will never have one.
        for (place, _) in self.files.abandoned() {
            let is_referred = self.contains(Table::Unsynced, &keys::place(place))?;
            self.files.resolve(place, is_referred)?;
        }
        if self.files.needs_rewrite() {
            self.files.rewrite(&self.reader().unsynced_extents()?)?;
        }
        Ok(())
    }

    pub(super) fn options(&self) -> &KvfsOptions {
        &self.options
    }

    pub(super) fn opened(&self) -> Result<Arc<OpenDb>, FsError> {
        self.slot.get()
    }

    /// Writes a batch: all of it or nothing becomes visible, and survives the end of the process.
    /// It survives a loss of power only from the next [`sync`](Self::sync) on.
    pub(crate) fn write(&self, batch: Batch) -> Result<(), FsError> {
        let opened = self.opened()?;
        let deleted: Vec<Ino> = batch.deleted_chunks().collect();
        let written = opened.db.write_opt(write_batch(&opened, batch), &WriteOptions::default());
        if written.is_ok() {
            self.deleted.note(deleted);
        }
        written.map_err(|source| opened.not_written("write to", source))
    }

    /// Makes everything written so far durable: first the extents that rows refer to, then the
    /// rows. Returns the place before which all extents are durable or free.
    pub(crate) fn sync(&self) -> Result<Place, FsError> {
        // Taken before the sync, which need not cover what is appended after this moment.
        let floor = self.files.floor();
        self.files.sync()?;
        self.opened()?.db.flush_wal(true).map_err(|source| failed("sync", source))?;
        Ok(floor)
    }

    /// Where large chunks lie.
    pub(crate) fn extent_files(&self) -> &Arc<ExtentFiles> {
        &self.files
    }

    /// The number of the next KVS snapshot.
    pub(crate) fn next_snapshot(&self) -> u64 {
        self.pins.next()
    }

    /// Whether a KVS snapshot lives that was taken before the one with this number.
    pub(crate) fn has_snapshot_before(&self, number: u64) -> bool {
        self.pins.has_before(number)
    }

    /// Writes what every store needs, into a new one, durably.
    pub(crate) fn initialise(&self, chunk_bytes: u32, floor: Xid) -> Result<(), FsError> {
        let mut batch = Batch::default();
        batch.put(Table::Meta, META_CHUNK_BYTES, rows::chunk_size_to_bytes(chunk_bytes));
        let counters = rows::counters_to_bytes(&Counters::default());
        batch.put(Table::Meta, META_COUNTERS, counters);
        for key in [META_XID_FLOOR, META_LAST_XID] {
            batch.put(Table::Meta, key, rows::number_to_bytes(floor.get()));
        }
        self.write_durably(batch)
    }

    fn write_durably(&self, batch: Batch) -> Result<(), FsError> {
        self.write(batch)?;
        self.sync().map(drop)
    }

    /// Records whether a repair is under way.
    pub(crate) fn set_repairing(&self, is_repairing: bool) -> Result<(), FsError> {
        let mut batch = Batch::default();
        if is_repairing {
            batch.put(Table::Meta, META_REPAIRING, Vec::new());
        } else {
            batch.delete(Table::Meta, META_REPAIRING);
        }
        self.write(batch)
    }

    /// Records a log segment, whose file is durable, as published, and deletes the log records that
    /// are in it. Not synced: if a crash undoes it, the records are here and the file is a
    /// leftover.
    pub(crate) fn record_published(&self, range: XidRange) -> Result<(), FsError> {
        let mut batch = Batch::default();
        batch.delete_range(Table::Log, &keys::xid(range.start()), &keys::xid(range.end()));
        let first = rows::number_to_bytes(range.start().get());
        batch.put(Table::Segments, &keys::xid(range.last()), first);
        self.write(batch)
    }

    /// Records that log segments are retired: their files may go as soon as that is synced.
    pub(crate) fn record_retired(&self, ranges: &[XidRange]) -> Result<(), FsError> {
        let mut batch = Batch::default();
        for range in ranges {
            batch.delete(Table::Segments, &keys::xid(range.last()));
        }
        self.write(batch)
    }

    /// Deletes the rows of free extents from a key up to and not including another.
    pub(crate) fn forget_freed(&self, from: &[u8], until: &[u8]) -> Result<(), FsError> {
        let mut batch = Batch::default();
        batch.delete_range(Table::Freed, from, until);
        self.write(batch)
    }

    /// Deletes the rows of extents that are not free after all.
    pub(crate) fn forget_freed_extents(&self, extents: &[(u64, Place)]) -> Result<(), FsError> {
        let mut batch = Batch::default();
        for (generation, place) in extents {
            batch.delete(Table::Freed, &keys::freed(*generation, *place));
        }
        self.write(batch)
    }

    /// Notes, durably, that all extents of earlier processes are durable or free.
    pub(crate) fn forget_unsynced(&self) -> Result<(), FsError> {
        // The rows are the only list of what may not have survived: what they name, and what was
        // undone of it, must be durable before they go.
        self.sync()?;
        let mut batch = Batch::default();
        let (start, floor) = (Place { file: 0, offset: 0 }, self.files.floor());
        batch.delete_range(Table::Unsynced, &keys::place(start), &keys::place(floor));
        batch.put(Table::Meta, META_EXTENTS_FLOOR, rows::place_to_bytes(floor));
        self.write_durably(batch)
    }

    /// Rewrites one file of the chunk table of which much was deleted, no larger than this. Whether
    /// there was one.
    pub(crate) fn reclaim_file(&self, bytes_max: u64) -> Result<bool, FsError> {
        let opened = self.opened()?;
        if opened.compaction.is_off() {
            tracing::warn!("no space is given back: the key-value store is damaged; run fsck");
            return Ok(false);
        }
        let Some(found) = self.deleted.most_worthwhile(&self.chunk_files()?, bytes_max) else {
            return Ok(false);
        };
        let TableFile { bytes, start, end, .. } = &found.file;
        tracing::debug!(bytes, found.garbage_bytes, "rewriting a file of the key-value store");
        let mut options = CompactOptions::default();
        // Files of the last level are left alone as a rule: they hold what was deleted above them.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        let family = opened.family(Table::Chunks);
        opened.db.compact_range_cf_opt(family, Some(start), Some(end), &options);
        self.deleted.forget(&found.file);
        Ok(true)
    }

    /// Writes the deletions of chunks that are in memory into a file: without that nothing goes.
    pub(crate) fn flush_deletions(&self) -> Result<(), FsError> {
        if self.deleted.n_rows() == 0 {
            return Ok(());
        }
        let opened = self.opened()?;
        let flushed = opened.db.flush_cf(opened.family(Table::Chunks));
        flushed.map_err(|source| failed("flush", source))
    }

    /// About how many bytes of small chunks were deleted and are still in files.
    pub(crate) fn garbage_bytes(&self) -> Result<u64, FsError> {
        let row_bytes = reclaim::row_bytes(&self.chunk_files()?);
        Ok(self.deleted.n_rows().saturating_mul(row_bytes))
    }

    fn chunk_files(&self) -> Result<Vec<TableFile>, FsError> {
        let files =
            self.opened()?.db.live_files().map_err(|source| failed("list files of", source))?;
        let is_chunks = |file: &rocksdb::LiveFile| file.column_family_name == Table::Chunks.name();
        Ok(files.into_iter().filter(is_chunks).filter_map(TableFile::of).collect())
    }

    /// Reads every row there is, and if none is damaged, the store is compacted again. A check goes
    /// by inodes, and does not come by all that lies between them.
    pub(crate) fn compact_if_whole(&self) -> Result<(), FsError> {
        let opened = self.opened()?;
        if !opened.compaction.is_off() {
            return Ok(());
        }
        for table in Table::ALL {
            let mut rows = opened.db.raw_iterator_cf_opt(opened.family(table), tuning::walk());
            rows.seek_to_first();
            while rows.valid() {
                rows.next();
            }
            let read = rows.status().map_err(|source| {
                opened.not_read(failure::rows_between(table, &[], &keys::AFTER_ALL), source)
            });
            match read {
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, "the store stays uncompacted");
                    return Ok(());
                }
                read => read?,
            }
        }
        opened.compaction.resume(&opened.db);
        Ok(())
    }

    /// Writes what is in memory into tables, after which the write-ahead log is empty.
    pub(crate) fn flush(&self) -> Result<(), FsError> {
        let opened = self.opened()?;
        let families = Table::ALL.map(|table| opened.family(table));
        let flushed = opened.db.flush_cfs_opt(&families, &FlushOptions::default());
        flushed.map_err(|source| failed("flush", source))
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The chunk size of a store that was made before.
fn recorded_chunk_bytes(opened: &OpenDb) -> Result<Option<u32>, FsError> {
    let row = opened.db.get_cf(opened.family(Table::Meta), META_CHUNK_BYTES);
    let row = row.map_err(|source| failed("read", source))?;
    Ok(row.and_then(|row| rows::chunk_size_from_bytes(&row)))
}

/// The place before which extents are durable or free: no later process appends before it.
fn recorded_floor(opened: &OpenDb) -> Result<Place, FsError> {
    let row = opened.db.get_cf(opened.family(Table::Meta), META_EXTENTS_FLOOR);
    let row = row.map_err(|source| failed("read", source))?;
    let floor = row.and_then(|row| rows::place_from_bytes(&row));
    Ok(floor.unwrap_or(Place { file: 0, offset: 0 }))
}

impl KvsSnapshot {
    pub(crate) fn take(db: &Db) -> Result<Self, FsError> {
        // The pin comes first: what is freed until then is kept for the snapshot.
        let pin = db.pins.pin();
        let held = Held::new(db.opened()?);
        let owner = SnapshotOwner { held, files: Arc::clone(&db.files), _pin: pin };
        Ok(Self::new(owner, |owner| owner.held.opened.db.snapshot()))
    }

    /// Whether it can still be read: after an exchange of the database it cannot.
    pub(super) fn check(&self) -> Result<(), FsError> {
        self.borrow_owner().held.check()
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        self.borrow_owner().held.opened.family(table)
    }

    pub(super) fn opened(&self) -> &OpenDb {
        &self.borrow_owner().held.opened
    }

    pub(super) fn raw_iterator(&self, table: Table, options: ReadOptions) -> DBRawIterator<'_> {
        self.borrow_dependent().raw_iterator_cf_opt(self.family(table), options)
    }

    /// Where large chunks lie.
    pub(super) fn extent_files(&self) -> &ExtentFiles {
        &self.borrow_owner().files
    }
}

impl RawTables for Db {
    fn visit(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<(), FsError> {
        let opened = self.opened()?;
        let value = opened.db.get_pinned_cf(opened.family(table), key);
        let at = || failure::row_at(table, key);
        if let Some(value) = value.map_err(|source| opened.not_read(at(), source))? {
            visit(&value);
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Pairs<'_>, FsError> {
        let mode = IteratorMode::From(from, Direction::Forward);
        let options = tuning::scan(table, until);
        let rows = failure::rows_between(table, from, until);
        let mut walk = Walk::new(self.opened()?, |opened| {
            opened.db.iterator_cf_opt(opened.family(table), options, mode)
        });
        Ok(Box::new(std::iter::from_fn(move || {
            walk.with_dependent_mut(|opened, pairs| {
                pairs.next().map(|pair| pair.map_err(|source| opened.not_read(rows, source)))
            })
        })))
    }

    fn last(&self, table: Table, lower: &[u8], upper: &[u8]) -> Result<Option<Pair>, FsError> {
        let mode = IteratorMode::From(upper, Direction::Reverse);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        let opened = self.opened()?;
        let mut pairs = opened.db.iterator_cf_opt(opened.family(table), options, mode);
        let rows = || failure::rows_between(table, lower, upper);
        pairs.next().transpose().map_err(|source| opened.not_read(rows(), source))
    }

    fn files(&self) -> &ExtentFiles {
        &self.files
    }
}

impl RawTables for KvsSnapshot {
    fn visit(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<(), FsError> {
        self.check()?;
        let family = self.family(table);
        let value = self.borrow_dependent().get_pinned_cf(family, key);
        let at = || failure::row_at(table, key);
        if let Some(value) = value.map_err(|source| self.opened().not_read(at(), source))? {
            visit(&value);
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Pairs<'_>, FsError> {
        self.check()?;
        let mode = IteratorMode::From(from, Direction::Forward);
        let family = self.family(table);
        let options = tuning::scan(table, until);
        let pairs = self.borrow_dependent().iterator_cf_opt(family, options, mode);
        let rows = failure::rows_between(table, from, until);
        Ok(Box::new(
            pairs.map(move |pair| pair.map_err(|source| self.opened().not_read(rows, source))),
        ))
    }

    fn last(&self, table: Table, lower: &[u8], upper: &[u8]) -> Result<Option<Pair>, FsError> {
        self.check()?;
        let mode = IteratorMode::From(upper, Direction::Reverse);
        let family = self.family(table);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        let mut pairs = self.borrow_dependent().iterator_cf_opt(family, options, mode);
        let rows = || failure::rows_between(table, lower, upper);
        pairs.next().transpose().map_err(|source| self.opened().not_read(rows(), source))
    }

    fn files(&self) -> &ExtentFiles {
        self.extent_files()
    }
}

fn write_batch(opened: &OpenDb, changes: Batch) -> WriteBatch {
    // With room for the lengths and types of each change, so that it does not grow while it is
    // filled.
    let mut batch = WriteBatch::with_capacity_bytes(changes.bytes() + 1024);
    for change in changes.into_changes() {
        match change {
            Change::Put(table, key, value) => batch.put_cf(opened.family(table), key, value),
            Change::Merge(table, key, patch) => batch.merge_cf(opened.family(table), key, patch),
            Change::Delete(table, key) => batch.delete_cf(opened.family(table), key),
            Change::DeleteRange(table, from, until) => {
                batch.delete_range_cf(opened.family(table), from, until);
            }
        }
    }
    batch
}
