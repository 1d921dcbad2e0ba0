//! The database: opening, writing, syncing, measuring, and raw reads for the rest of this
//! directory.
//!
//! A batch is written without a sync and is then visible, and safe from the end of the process; a
//! sync of the write-ahead log makes everything before it safe from a loss of power. The few writes
//! that are no transaction (a new store's settings, the floor of a restore, the mark of a repair)
//! are functions here, each of which says whether it syncs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{
    BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DBRawIterator, Direction, IteratorMode, ReadOptions, WriteBatch, WriteOptions,
};
use self_cell::self_cell;
use tier_types::Xid;

use super::batch::{Batch, Change};
use super::compaction::Compaction;
use super::failure::{self, failed};
use super::keys::{self, META_CHUNK_BYTES, META_COUNTERS, META_REPAIRING, META_XID_FLOOR, Table};
use super::rows::{self, Counters};
use super::tuning;
use crate::error::UnreadableRows;
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
}

/// The key-value store.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "RocksDB's own name for what is wrapped here")]
pub(crate) struct Db {
    db: DB,
    path: PathBuf,
    compaction: Compaction,
}

self_cell!(
    /// A point-in-time view that keeps its store alive.
    pub(crate) struct KvsSnapshot {
        owner: Arc<Db>,
        #[covariant]
        dependent: BorrowedSnapshot,
    }
);

type BorrowedSnapshot<'a> = rocksdb::Snapshot<'a>;

/// How large a table of the key-value store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableStatistics {
    /// The table's name.
    pub table: &'static str,
    /// About how many keys it has.
    pub n_keys: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
}

impl Db {
    pub(crate) fn open(path: &Path, options: &KvfsOptions, create: bool) -> Result<Self, FsError> {
        let cache = Cache::new_lru_cache(options.cache_bytes);
        let compaction = Compaction::of(path);
        let tables = Table::ALL.map(|table| {
            let mut settings = tuning::table(table, &cache, options);
            settings.set_disable_auto_compactions(compaction.is_off());
            ColumnFamilyDescriptor::new(table.name(), settings)
        });
        let opened = DB::open_cf_descriptors(&tuning::database(options, create), path, tables);
        let not_opened =
            |source| if create { failed("make", source) } else { failure::not_opened(source) };
        Ok(Self { db: opened.map_err(not_opened)?, path: path.to_path_buf(), compaction })
    }

    /// Writes a batch: all of it or nothing becomes visible, and survives the end of the process.
    /// It survives a loss of power only from the next [`sync`](Self::sync) on.
    pub(crate) fn write(&self, batch: Batch) -> Result<(), FsError> {
        let written = self.db.write_opt(self.write_batch(batch), &WriteOptions::default());
        written.map_err(|source| self.not_written("write to", source))
    }

    /// The error of a write. One that names damage is that of a compaction before it.
    fn not_written(&self, operation: &'static str, source: rocksdb::Error) -> FsError {
        let error = failed(operation, source);
        if error.is_damage() {
            self.compaction.stop(&self.db, &error);
        }
        error
    }

    /// The error of a read. Damage that a reader met would be met by a compaction as well.
    pub(super) fn not_read(&self, rows: UnreadableRows, source: rocksdb::Error) -> FsError {
        let error = failure::not_read(rows, source);
        if error.is_damage() {
            self.compaction.stop(&self.db, &error);
        }
        error
    }

    fn write_batch(&self, changes: Batch) -> WriteBatch {
        // With room for the lengths and types of each change, so that it does not grow while it is
        // filled.
        let mut batch = WriteBatch::with_capacity_bytes(changes.bytes() + 1024);
        for change in changes.into_changes() {
            match change {
                Change::Put(table, key, value) => batch.put_cf(self.family(table), key, value),
                Change::Merge(table, key, patch) => batch.merge_cf(self.family(table), key, patch),
                Change::Delete(table, key) => batch.delete_cf(self.family(table), key),
                Change::DeleteRange(table, from, until) => {
                    batch.delete_range_cf(self.family(table), from, until);
                }
            }
        }
        batch
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        self.db.flush_wal(true).map_err(|source| self.not_written("sync", source))
    }

    /// Writes what every store needs, into a new one, durably.
    pub(crate) fn initialise(&self, chunk_bytes: u32) -> Result<(), FsError> {
        let mut batch = Batch::default();
        batch.put(Table::Meta, META_CHUNK_BYTES, rows::chunk_size_to_bytes(chunk_bytes));
        let counters = rows::counters_to_bytes(&Counters::default());
        batch.put(Table::Meta, META_COUNTERS, counters);
        self.write(batch)?;
        self.sync()
    }

    /// Records, durably, that no transaction id up to `xid` may be given out.
    pub(crate) fn set_xid_floor(&self, xid: Xid) -> Result<(), FsError> {
        let mut batch = Batch::default();
        batch.put(Table::Meta, META_XID_FLOOR, rows::number_to_bytes(xid.get()));
        self.write(batch)?;
        self.sync()
    }

    /// Records, durably, whether a repair is under way.
    pub(crate) fn set_repairing(&self, is_repairing: bool) -> Result<(), FsError> {
        let mut batch = Batch::default();
        if is_repairing {
            batch.put(Table::Meta, META_REPAIRING, Vec::new());
        } else {
            batch.delete(Table::Meta, META_REPAIRING);
        }
        self.write(batch)?;
        self.sync()
    }

    /// Deletes the log records up to `last`, which are in a published segment. Not synced: a crash
    /// brings them back, and opening the filesystem releases them again.
    pub(crate) fn release_log(&self, last: Xid) -> Result<(), FsError> {
        if self.reader().first_logged()?.is_none_or(|first| first > last) {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.delete_range(Table::Log, &keys::xid(Xid::new(0)), &keys::xid(last.next()));
        self.write(batch)
    }

    /// Gives the space of evicted data and of released log records back to the disk.
    pub(crate) fn reclaim(&self) -> Result<(), FsError> {
        if self.compaction.is_off() {
            tracing::warn!("no space is given back: the key-value store is damaged; run fsck");
            return Ok(());
        }
        for table in [Table::Chunks, Table::Map, Table::Log] {
            self.compact(table)?;
        }
        Ok(())
    }

    /// The whole store was read, and no row of it is damaged.
    pub(crate) fn note_wholeness(&self) {
        self.compaction.resume(&self.db);
    }

    /// Drops what was deleted from the files of a table.
    fn compact(&self, table: Table) -> Result<(), FsError> {
        let family = self.family(table);
        let set = |cutoff| {
            self.db
                .set_options_cf(family, &[(tuning::BLOB_AGE_CUTOFF_OPTION, cutoff)])
                .map_err(|source| failed("set options of", source))
        };
        // In normal compactions only old blob files are rewritten; here all of them are.
        if table == Table::Chunks {
            set("1.0")?;
        }
        // Files of the last level are left alone as a rule: they hold what was deleted above them.
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        // Deletions that are still in memory would free nothing.
        self.db.flush_cf(family).map_err(|source| failed("flush", source))?;
        self.db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
        if table == Table::Chunks {
            set(tuning::BLOB_AGE_CUTOFF)?;
        }
        Ok(())
    }

    /// About the bytes that the store takes on the disk: its table and blob files, and for its
    /// write-ahead log, whose size RocksDB does not tell, what of it is in memory. Asked once a
    /// second, so that no file is looked at.
    pub(crate) fn physical_bytes(&self) -> Result<u64, FsError> {
        let bytes = |table: Table| {
            let in_files = self.file_bytes(table)?;
            Ok(in_files + self.property(table, "rocksdb.cur-size-all-mem-tables")?)
        };
        Table::ALL.into_iter().map(bytes).sum()
    }

    /// The filesystem on which the store's files are.
    pub(crate) fn statvfs(&self) -> Result<rustix::fs::StatVfs, FsError> {
        let asked = rustix::fs::statvfs(&self.path);
        asked.map_err(|errno| FsError::io("measure the disk of", errno.into()))
    }

    pub(crate) fn statistics(&self) -> Result<Vec<TableStatistics>, FsError> {
        let statistics = |table: Table| {
            Ok(TableStatistics {
                table: table.name(),
                n_keys: self.property(table, "rocksdb.estimate-num-keys")?,
                file_bytes: self.file_bytes(table)?,
            })
        };
        Table::ALL.into_iter().map(statistics).collect()
    }

    fn file_bytes(&self, table: Table) -> Result<u64, FsError> {
        let sst_bytes = self.property(table, "rocksdb.total-sst-files-size")?;
        Ok(sst_bytes + self.property(table, "rocksdb.total-blob-file-size")?)
    }

    fn property(&self, table: Table, name: &str) -> Result<u64, FsError> {
        let value = self.db.property_int_value_cf(self.family(table), name);
        let value = value.map_err(|source| failed("measure a table of", source))?;
        value.ok_or_else(|| {
            let unknown = format!("it does not know its {name}");
            FsError::io("measure a table of", std::io::Error::other(unknown))
        })
    }

    #[expect(clippy::expect_used, reason = "a store cannot be opened without any of its tables")]
    pub(super) fn family(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("every table is opened with the store")
    }
}

impl KvsSnapshot {
    pub(crate) fn take(db: &Arc<Db>) -> Self {
        Self::new(Arc::clone(db), |db| db.db.snapshot())
    }

    pub(super) fn db(&self) -> &Db {
        self.borrow_owner()
    }

    pub(super) fn raw_iterator(&self, table: Table, options: ReadOptions) -> DBRawIterator<'_> {
        self.borrow_dependent().raw_iterator_cf_opt(self.borrow_owner().family(table), options)
    }
}

impl RawTables for Db {
    fn visit(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<(), FsError> {
        let value = self.db.get_pinned_cf(self.family(table), key);
        let at = || failure::row_at(table, key);
        if let Some(value) = value.map_err(|source| self.not_read(at(), source))? {
            visit(&value);
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Pairs<'_>, FsError> {
        let mode = IteratorMode::From(from, Direction::Forward);
        let pairs = self.db.iterator_cf_opt(self.family(table), tuning::scan(table, until), mode);
        let rows = failure::rows_between(table, from, until);
        Ok(Box::new(pairs.map(move |pair| pair.map_err(|source| self.not_read(rows, source)))))
    }

    fn last(&self, table: Table, lower: &[u8], upper: &[u8]) -> Result<Option<Pair>, FsError> {
        let mode = IteratorMode::From(upper, Direction::Reverse);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        let mut pairs = self.db.iterator_cf_opt(self.family(table), options, mode);
        let rows = || failure::rows_between(table, lower, upper);
        pairs.next().transpose().map_err(|source| self.not_read(rows(), source))
    }
}

impl RawTables for KvsSnapshot {
    fn visit(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<(), FsError> {
        let value = self.borrow_dependent().get_pinned_cf(self.borrow_owner().family(table), key);
        let at = || failure::row_at(table, key);
        if let Some(value) = value.map_err(|source| self.db().not_read(at(), source))? {
            visit(&value);
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Pairs<'_>, FsError> {
        let mode = IteratorMode::From(from, Direction::Forward);
        let (family, options) = (self.borrow_owner().family(table), tuning::scan(table, until));
        let pairs = self.borrow_dependent().iterator_cf_opt(family, options, mode);
        let rows = failure::rows_between(table, from, until);
        Ok(Box::new(pairs.map(move |pair| pair.map_err(|source| self.db().not_read(rows, source)))))
    }

    fn last(&self, table: Table, lower: &[u8], upper: &[u8]) -> Result<Option<Pair>, FsError> {
        let mode = IteratorMode::From(upper, Direction::Reverse);
        let family = self.borrow_owner().family(table);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        let mut pairs = self.borrow_dependent().iterator_cf_opt(family, options, mode);
        let rows = || failure::rows_between(table, lower, upper);
        pairs.next().transpose().map_err(|source| self.db().not_read(rows(), source))
    }
}
