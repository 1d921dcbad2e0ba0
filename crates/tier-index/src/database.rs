//! The database below the index, on RocksDB: the only file that says `rocksdb`.
//!
//! A crash takes some of the newest batches from all tables alike and leaves what was a state of
//! the index at some moment; what it took is applied again from the manifests. A flush brings all
//! tables to the disk together (atomic flush). What can be applied again need not come so far: a
//! small commit is in the write-ahead log, which is synced. Files for each small one would be
//! merged again and again, and a log of a large one would be all of it a second time.
//!
//! All tables share one block cache, and indexes and filters count towards it, so that memory is
//! bounded by the options and not by the number of files.

use std::fmt::Write;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompactionStyle,
    DBCompressionType, DBRawIterator, DBRecoveryMode, DEFAULT_COLUMN_FAMILY_NAME, Direction,
    FlushOptions, IteratorMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};
use tier_types::ErrorKind;

use crate::IndexError;
use crate::options::IndexOptions;

/// A table of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Table {
    Extents,
    Inodes,
    Tarballs,
    Chain,
    Meta,
}

impl Table {
    const ALL: [Self; 5] = [Self::Extents, Self::Inodes, Self::Tarballs, Self::Chain, Self::Meta];

    fn name(self) -> &'static str {
        match self {
            Self::Extents => "extents",
            Self::Inodes => "inodes",
            Self::Tarballs => "tarballs",
            Self::Chain => "chain",
            Self::Meta => "meta",
        }
    }
}

/// The database. When it is closed, its directory may be removed: fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Database {
    db: DB,
    directory: Directory,
    chunk_bytes: u32,
    /// In the log since the last flush. If these are more than may be, nothing is logged up to the
    /// next one: a crash would take what is not, and leave what came later.
    log_bytes: AtomicUsize,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    to_be_removed: AtomicBool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.to_be_removed.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            // It costs space until the store is opened again, and is in the way of nothing.
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a replaced index");
        }
    }
}

/// What a change takes in a batch: most have short keys and values.
const CHANGE_BYTES: usize = 48;
/// A larger batch is not logged.
const LOGGED_BYTES_MAX: usize = 64 << 10;
/// More is not logged: opening reads all of it. So little comes nowhere near the write buffers, and
/// a new log is begun by a flush alone: none ever stands on the end of another, which a crash may
/// take.
const LOG_BYTES_MAX: usize = 2 << 20;
/// Of the database's own text log, of which the one before is kept as well.
const TEXT_LOG_BYTES_MAX: usize = 1 << 20;

/// Changes that happen together.
pub(crate) struct Batch<'a> {
    database: &'a Database,
    changes: WriteBatch,
}

impl Batch<'_> {
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        self.changes.put_cf(self.database.family(table)?, key, value);
        Ok(())
    }

    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), IndexError> {
        self.changes.delete_cf(self.database.family(table)?, key);
        Ok(())
    }

    /// Not on disk before the next [`Database::flush`]; until then a crash takes it as a whole.
    pub(crate) fn write(self) -> Result<(), IndexError> {
        let bytes = self.changes.size_in_bytes();
        let bytes = if bytes > LOGGED_BYTES_MAX { LOG_BYTES_MAX + 1 } else { bytes };
        let before = self.database.log_bytes.fetch_add(bytes, Ordering::AcqRel);
        let mut options = WriteOptions::default();
        options.disable_wal(before + bytes > LOG_BYTES_MAX);
        let written = self.database.db.write_opt(self.changes, &options);
        written.map_err(|source| self.database.failed("write", source))
    }
}

/// Key and value, where they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairRef<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// A position in a table as it is when the cursor is made. Moving on is cheap; where the table
/// holds nothing it costs nothing.
pub(crate) struct Cursor<'a> {
    database: &'a Database,
    iterator: DBRawIterator<'a>,
    /// The table holds nothing from this key up to the position.
    empty_from: Option<Vec<u8>>,
}

impl Cursor<'_> {
    /// Moves to the first pair at or after `key`, and returns it.
    pub(crate) fn at_or_after(&mut self, key: &[u8]) -> Result<Option<PairRef<'_>>, IndexError> {
        // A seek goes down through all files. The position stays right without one as long as the
        // table holds nothing between `key` and it.
        let behind = self.empty_from.as_ref().is_none_or(|from| from.as_slice() > key);
        if behind || self.iterator.key().is_some_and(|at| at < key) {
            self.iterator.seek(key);
        }
        let empty_from = self.empty_from.get_or_insert_default();
        empty_from.clear();
        empty_from.extend_from_slice(key);
        // Not valid is the end or an error, and only the status tells which.
        if !self.iterator.valid() {
            let status = self.iterator.status();
            status.map_err(|source| self.database.failed("scan", source))?;
        }
        Ok(self.iterator.item().map(|(key, value)| PairRef { key, value }))
    }
}

impl Database {
    pub(crate) fn open(
        path: &Path,
        chunk_bytes: u32,
        options: &IndexOptions,
    ) -> Result<Self, IndexError> {
        match Self::open_as(path, chunk_bytes, options, AtOpening::Flush) {
            // What is in its log has no room in tables: it stays where it is.
            Err(IndexError::NoSpace { .. }) => {
                Self::open_as(path, chunk_bytes, options, AtOpening::KeepLog)
            }
            opened => opened,
        }
    }

    /// To be read only. It costs no sync, and changes nothing.
    pub(crate) fn look(
        path: &Path,
        chunk_bytes: u32,
        options: &IndexOptions,
    ) -> Result<Self, IndexError> {
        Self::open_as(path, chunk_bytes, options, AtOpening::Look)
    }

    fn open_as(
        path: &Path,
        chunk_bytes: u32,
        options: &IndexOptions,
        at_opening: AtOpening,
    ) -> Result<Self, IndexError> {
        let db = open_tables(path, options, at_opening)?;
        let to_be_removed = AtomicBool::new(false);
        let directory = Directory { path: path.to_path_buf(), to_be_removed };
        let log_bytes = match at_opening {
            AtOpening::Flush | AtOpening::Look => 0,
            AtOpening::KeepLog => LOG_BYTES_MAX + 1,
        };
        Ok(Self { db, directory, chunk_bytes, log_bytes: AtomicUsize::new(log_bytes) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory.path
    }

    /// The filesystem's chunk size in bytes, as the index was opened with it.
    pub(crate) fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// This database was replaced: when its last reader is done, its directory goes.
    pub(crate) fn remove_when_closed(&self) {
        // Relaxed: the owner that closes the database comes after all others let go of their `Arc`,
        // which orders the two.
        self.directory.to_be_removed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let family = self.family(table)?;
        self.db.get_cf(family, key).map_err(|source| self.failed("read", source))
    }

    /// The pairs of a table from `from` on, up to and not including `until`.
    pub(crate) fn scan(
        &self,
        table: Table,
        from: &[u8],
        until: Option<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<Pair, IndexError>> + '_, IndexError> {
        let family = self.family(table)?;
        let mut options = ReadOptions::default();
        if let Some(until) = until {
            // A bound and not a look at each key: the database need not step over what lies behind.
            options.set_iterate_upper_bound(until);
        }
        let mode = IteratorMode::From(from, Direction::Forward);
        let pairs = self.db.iterator_cf_opt(family, options, mode);
        Ok(pairs.map(|pair| pair.map_err(|source| self.failed("scan", source))))
    }

    /// Makes everything durable that survives no damage of the log: what is in it can be applied
    /// again from the manifests.
    pub(crate) fn sync(&self) -> Result<(), IndexError> {
        if self.log_bytes.load(Ordering::Acquire) > LOG_BYTES_MAX {
            return self.flush();
        }
        self.db.flush_wal(true).map_err(|source| self.failed("sync the log of", source))
    }

    /// Makes everything durable, in tables.
    pub(crate) fn flush(&self) -> Result<(), IndexError> {
        let families: Vec<_> =
            Table::ALL.into_iter().map(|table| self.family(table)).collect::<Result<_, _>>()?;
        // One call for all of them: table by table, a crash could leave a state that never was.
        let flushed = self.db.flush_cfs_opt(&families, &FlushOptions::default());
        flushed.map_err(|source| self.failed("flush", source))?;
        // The one writer flushes what it wrote: nothing came between.
        self.log_bytes.store(0, Ordering::Release);
        Ok(())
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        self.batch_of(0)
    }

    /// A batch with room for about so many changes.
    pub(crate) fn batch_of(&self, n_changes: usize) -> Batch<'_> {
        let bytes = n_changes.saturating_mul(CHANGE_BYTES);
        Batch { database: self, changes: WriteBatch::with_capacity_bytes(bytes) }
    }

    pub(crate) fn cursor(&self, table: Table) -> Result<Cursor<'_>, IndexError> {
        let iterator = self.db.raw_iterator_cf(self.family(table)?);
        Ok(Cursor { database: self, iterator, empty_from: None })
    }

    /// The database's own statistics, as text to be read and not parsed.
    pub(crate) fn statistics(&self) -> String {
        let mut out = String::new();
        for table in Table::ALL {
            let property = |name| {
                let family = self.family(table).ok()?;
                // Only shown: a property that cannot be had is unknown, and no error.
                self.db.property_int_value_cf(family, name).ok().flatten()
            };
            let text = |n: Option<u64>| n.map_or_else(|| "unknown".to_string(), |n| n.to_string());
            let entries = text(property(rocksdb::properties::ESTIMATE_NUM_KEYS));
            let bytes = text(property(rocksdb::properties::TOTAL_SST_FILES_SIZE));
            let name = table.name();
            let _ = writeln!(out, "{name}: about {entries} entries, {bytes} bytes in tables");
        }
        out
    }

    pub(crate) fn damaged(&self, problem: &'static str) -> IndexError {
        IndexError::Damaged { path: self.directory.path.clone(), problem }
    }

    fn family(&self, table: Table) -> Result<&rocksdb::ColumnFamily, IndexError> {
        self.db.cf_handle(table.name()).ok_or_else(|| self.damaged("a table is missing"))
    }

    fn failed(&self, operation: &'static str, source: rocksdb::Error) -> IndexError {
        failed(operation, &self.directory.path, source)
    }
}

/// What happens to what is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AtOpening {
    /// It goes into tables.
    Flush,
    /// It is in memory and stays in the log, and nothing more is logged.
    KeepLog,
    /// It is in memory. No file is changed, and nothing can be written.
    Look,
}

fn open_tables(
    path: &Path,
    options: &IndexOptions,
    at_opening: AtOpening,
) -> Result<DB, IndexError> {
    let db_options = db_options(path, options, at_opening)?;
    let cache = Cache::new_lru_cache(options.cache_bytes);
    let tables = Table::ALL.map(|table| {
        ColumnFamilyDescriptor::new(table.name(), table_options(table, &cache, options))
    });
    // Nothing is in the default table, but after a full disk RocksDB goes on only when the
    // largest buffer of any table finds room, and without this it would be one of 64 MiB.
    let mut unused = Options::default();
    unused.set_write_buffer_size(options.write_buffer_bytes);
    let unused = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, unused);
    let tables = tables.into_iter().chain(iter::once(unused));
    let opened = match at_opening {
        AtOpening::Look => DB::open_cf_descriptors_read_only(&db_options, path, tables, false),
        AtOpening::Flush | AtOpening::KeepLog => DB::open_cf_descriptors(&db_options, path, tables),
    };
    opened.map_err(|source| failed("open", path, source))
}

fn db_options(
    path: &Path,
    options: &IndexOptions,
    at_opening: AtOpening,
) -> Result<Options, IndexError> {
    let mut db_options = Options::default();
    db_options.create_if_missing(true);
    db_options.create_missing_column_families(true);
    // Of all tables together: the limit for each table, set below, would allow four times as
    // much.
    db_options.set_db_write_buffer_size(options.write_buffer_bytes);
    // Descriptors are bounded as memory is; a file beyond them is opened again when it is read.
    db_options.set_max_open_files(256);
    // There are few files: threads that open them cost more than they gain.
    db_options.set_max_file_opening_threads(1);
    // Its own text logs, of which it keeps a thousand unless told otherwise, each without end:
    // with a page for every flush.
    db_options.set_keep_log_file_num(2);
    db_options.set_max_log_file_size(TEXT_LOG_BYTES_MAX);
    db_options.set_log_level(LogLevel::Warn);
    // The rest of a log that a crash or a bad disk has cut is applied again from the manifests.
    db_options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // Each flush adds to the file that says which files there are, and opening reads all of it.
    // It is begun anew when it is a few times as long as what it comes to.
    db_options.set_max_manifest_file_size(1 << 20);
    // What is not logged must reach the disk from all tables together.
    db_options.set_atomic_flush(true);
    // The binding has no other way to say these. A log as long as it may get before its first
    // record would take the last room of a small or full disk.
    let keeps_log = at_opening == AtOpening::KeepLog;
    let others = format!("allow_fallocate=false;avoid_flush_during_recovery={keeps_log}");
    db_options
        .get_options_from_string(others)
        .map_err(|source| failed("set options of", path, source))
}

fn table_options(table: Table, cache: &Cache, options: &IndexOptions) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_format_version(5);
    blocks.set_block_size(8 << 10);
    // In small pieces, so that the cache holds those that are used.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    // The top of an index in pieces is small, and every lookup goes through it.
    blocks.set_pin_top_level_index_and_filter(true);
    let mut table_options = Options::default();
    table_options.set_block_based_table_factory(&blocks);
    // The bottom level holds most of the bytes and is rewritten least: there size counts,
    // and above it time.
    table_options.set_compression_type(DBCompressionType::Lz4);
    table_options.set_bottommost_compression_type(DBCompressionType::Zstd);
    table_options.set_write_buffer_size(options.write_buffer_bytes);
    // Inodes come in order: new files hardly overlap, and few of them need no merging.
    table_options.set_level_zero_file_num_compaction_trigger(8);
    if matches!(table, Table::Tarballs | Table::Chain) {
        // They grow at their ends alone, by a little with each snapshot. In levels every
        // file would stay where it is and what it is, and each flush looks at all of them.
        table_options.set_compaction_style(DBCompactionStyle::Universal);
    }
    table_options
}

/// Key and value.
pub(crate) type Pair = (Box<[u8]>, Box<[u8]>);

fn failed(operation: &'static str, path: &Path, source: rocksdb::Error) -> IndexError {
    let (kind, path) = (kind(&source), path.to_path_buf());
    // RocksDB then refuses to write until it has flushed, which it tries by itself again and again.
    if kind == ErrorKind::NoSpace {
        return IndexError::NoSpace { operation, path, source: source.into() };
    }
    IndexError::Database { operation, path, kind, source: source.into() }
}

/// How the database's own lock answers, by this process or by another one.
const LOCKED: [&str; 2] = ["IO error: lock hold by current process", "IO error: While lock file: "];
/// How a full disk answers, and a limit of space.
const FULL: [&str; 2] = ["IO error: No space left on device", "IO error: Space limit reached"];

/// What a caller can do about an error. The binding hands errors out as text: a kind, for some a
/// second word right behind it that says it more precisely, and then the file and the reason.
/// Nothing is looked for behind the second word, where any path may stand.
fn kind(error: &rocksdb::Error) -> ErrorKind {
    let text: &str = error.as_ref();
    let starts_with_one_of = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
    let is_io = error.kind() == rocksdb::ErrorKind::IOError;
    let is_damaged = error.kind() == rocksdb::ErrorKind::Corruption
        // The settings are this crate's own: what does not fit them is a database from which a file
        // is gone, or a table.
        || error.kind() == rocksdb::ErrorKind::InvalidArgument
        || (is_io && text.starts_with("IO error: No such file or directory"))
        || (is_io && text.ends_with(": Input/output error"));
    if is_damaged {
        ErrorKind::Damaged
    } else if is_io && starts_with_one_of(&LOCKED) {
        ErrorKind::Busy
    } else if is_io && starts_with_one_of(&FULL) {
        ErrorKind::NoSpace
    } else {
        ErrorKind::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RocksDB goes on after a full disk only when the largest buffer of any table finds room.
    #[test]
    fn no_table_has_a_larger_write_buffer_than_the_options_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let options = IndexOptions { write_buffer_bytes: 3 << 20, ..IndexOptions::default() };
        let _database = Database::open(&path, 4096, &options).unwrap();
        let names = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
        let is_options = |path: &PathBuf| path.to_string_lossy().contains("/OPTIONS-");
        let text = fs::read_to_string(names.filter(is_options).max().unwrap()).unwrap();
        let sizes = text.lines().filter_map(|line| line.trim().strip_prefix("write_buffer_size="));
        let sizes: Vec<_> = sizes.collect();
        assert_eq!(sizes, ["3145728"; Table::ALL.len() + 1], "and the default one");
    }

    /// Opens it and puts a pair.
    fn put(path: &Path, at_opening: AtOpening, key: &[u8]) {
        let options = IndexOptions::default();
        let database = Database::open_as(path, 4096, &options, at_opening).unwrap();
        let mut batch = database.batch();
        batch.put(Table::Meta, key, b"value").unwrap();
        batch.write().unwrap();
        database.sync().unwrap();
    }

    fn n_logs(path: &Path) -> usize {
        let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
        let is_log = |name: PathBuf| name.extension().is_some_and(|extension| extension == "log");
        let logs = files.filter(|file| is_log(file.path()));
        logs.filter(|file| file.metadata().unwrap().len() > 0).count()
    }

    #[test]
    fn a_log_for_which_tables_have_no_room_is_kept_up_to_the_next_flush() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), AtOpening::Flush, b"first");
        assert_eq!(n_logs(dir.path()), 1);
        let options = IndexOptions::default();
        drop(Database::open_as(dir.path(), 4096, &options, AtOpening::KeepLog).unwrap());
        assert_eq!(n_logs(dir.path()), 1, "it is where it was");
        put(dir.path(), AtOpening::KeepLog, b"second");
        assert_eq!(n_logs(dir.path()), 0, "no log stands on another one");
        let database = Database::open(dir.path(), 4096, &options).unwrap();
        for key in [&b"first"[..], b"second"] {
            assert_eq!(database.get(Table::Meta, key).unwrap(), Some(b"value".to_vec()));
        }
    }
}
