//! The key-value store below: with `patch`, the only file that says `rocksdb`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily,
    ColumnFamilyDescriptor, CompactOptions, DB, DBCompressionType, DBRawIterator, Direction,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};
use self_cell::self_cell;
use tier_types::{Ino, to_u64};

use crate::schema::Table;
use crate::{FsError, KvfsOptions, patch};

/// Key and value.
pub(crate) type Pair = (Box<[u8]>, Box<[u8]>);

/// Key and value, where they are.
pub(crate) type Item<'a> = (&'a [u8], &'a [u8]);

/// Pairs in order of keys.
pub(crate) type Pairs<'a> = Box<dyn Iterator<Item = Result<Pair, FsError>> + 'a>;

/// Reads the store, as it is or as it was.
pub(crate) trait Reader {
    /// Shows `visit` the value, if there is one, where it is.
    fn visit(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<(), FsError>;

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, FsError> {
        let mut value = None;
        self.visit(table, key, &mut |bytes| value = Some(bytes.to_vec()))?;
        Ok(value)
    }

    /// The pairs from `from` up to and not including `until`.
    fn scan(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Pairs<'_>, FsError>;

    /// The last pair from `lower` up to and including `upper`.
    fn last(&self, table: Table, lower: &[u8], upper: &[u8]) -> Result<Option<Pair>, FsError>;
}

#[derive(Debug)]
pub(crate) struct Db {
    db: DB,
    path: PathBuf,
}

self_cell!(
    /// A point-in-time view that keeps its store alive.
    pub(crate) struct SnapshotView {
        owner: Arc<Db>,
        #[covariant]
        dependent: BorrowedSnapshot,
    }
);

type BorrowedSnapshot<'a> = rocksdb::Snapshot<'a>;

/// Changes that happen together.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<Change>);

#[derive(Debug)]
enum Change {
    Put(Table, Vec<u8>, Vec<u8>),
    Merge(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
    DeleteRange(Table, Vec<u8>, Vec<u8>),
}

impl Changes {
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.0.push(Change::Put(table, key.to_vec(), value));
    }

    /// Changes a value by a [`patch`].
    pub(crate) fn merge(&mut self, table: Table, key: &[u8], patch: Vec<u8>) {
        self.0.push(Change::Merge(table, key.to_vec(), patch));
    }

    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) {
        self.0.push(Change::Delete(table, key.to_vec()));
    }

    pub(crate) fn delete_range(&mut self, table: Table, from: &[u8], until: &[u8]) {
        self.0.push(Change::DeleteRange(table, from.to_vec(), until.to_vec()));
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn bytes(&self) -> usize {
        let bytes = |change: &Change| match change {
            Change::Put(_, key, value) | Change::Merge(_, key, value) => key.len() + value.len(),
            Change::Delete(_, key) => key.len(),
            Change::DeleteRange(_, from, until) => from.len() + until.len(),
        };
        self.0.iter().map(bytes).sum()
    }
}

impl Db {
    pub(crate) fn open(path: &Path, options: &KvfsOptions, create: bool) -> Result<Self, FsError> {
        let cache = Cache::new_lru_cache(options.cache_bytes);
        let mut db_options = Options::default();
        db_options.create_if_missing(create);
        db_options.set_error_if_exists(create);
        db_options.create_missing_column_families(create);
        db_options.set_db_write_buffer_size(options.write_buffer_bytes);
        db_options.set_max_total_wal_size(4 * to_u64(options.write_buffer_bytes));
        db_options.set_max_open_files(512);
        db_options.set_keep_log_file_num(2);
        db_options.set_max_background_jobs(2);
        // Files are read from start to end, too: there the system's reading ahead is worth most.
        db_options.set_advise_random_on_open(false);
        let tables = Table::ALL.map(|table| {
            ColumnFamilyDescriptor::new(table.name(), table_options(table, &cache, options))
        });
        let db = DB::open_cf_descriptors(&db_options, path, tables).map_err(|source| {
            let locked = source.to_string().contains("lock");
            if locked { FsError::Busy } else { failed("open", source) }
        })?;
        Ok(Self { db, path: path.to_path_buf() })
    }

    pub(crate) fn write(&self, changes: Changes) -> Result<(), FsError> {
        let mut batch = WriteBatch::with_capacity_bytes(changes.bytes() + 1024);
        for change in changes.0 {
            match change {
                Change::Put(table, key, value) => batch.put_cf(self.family(table)?, key, value),
                Change::Merge(table, key, patch) => batch.merge_cf(self.family(table)?, key, patch),
                Change::Delete(table, key) => batch.delete_cf(self.family(table)?, key),
                Change::DeleteRange(table, from, until) => {
                    batch.delete_range_cf(self.family(table)?, from, until);
                }
            }
        }
        let written = self.db.write_opt(batch, &WriteOptions::default());
        written.map_err(|source| failed("write to", source))
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        self.db.flush_wal(true).map_err(|source| failed("sync", source))
    }

    /// Drops what was deleted from the files of a table.
    pub(crate) fn compact(&self, table: Table) -> Result<(), FsError> {
        let family = self.family(table)?;
        let set = |cutoff| {
            self.db
                .set_options_cf(family, &[("blob_garbage_collection_age_cutoff", cutoff)])
                .map_err(|source| failed("set options of", source))
        };
        // In normal compactions only old blob files are rewritten; here all of them are.
        if table == Table::Chunks {
            set("1.0")?;
        }
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db.flush_cf(family).map_err(|source| failed("flush", source))?;
        self.db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
        if table == Table::Chunks {
            set(BLOB_AGE_CUTOFF)?;
        }
        Ok(())
    }

    /// Bytes of all files of the store.
    pub(crate) fn physical_bytes(&self) -> Result<u64, FsError> {
        let io =
            |source: std::io::Error| FsError::Store { operation: "measure", source: source.into() };
        let mut bytes = 0;
        for entry in std::fs::read_dir(&self.path).map_err(io)? {
            match entry.map_err(io)?.metadata() {
                Ok(metadata) => bytes += metadata.len(),
                // The store removes its files while we look.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(error)),
            }
        }
        Ok(bytes)
    }

    /// Bytes that its disk has left for those who are not root.
    pub(crate) fn free_bytes(&self) -> Result<u64, FsError> {
        let stat = self.statvfs()?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Bytes in use on its disk, and the size of the disk.
    pub(crate) fn disk_bytes(&self) -> Result<(u64, u64), FsError> {
        let stat = self.statvfs()?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
        Ok((used, used.saturating_add(stat.f_bavail.saturating_mul(stat.f_frsize))))
    }

    fn statvfs(&self) -> Result<rustix::fs::StatVfs, FsError> {
        rustix::fs::statvfs(&self.path).map_err(|errno| FsError::Store {
            operation: "measure the disk of",
            source: std::io::Error::from(errno).into(),
        })
    }

    /// The store's own statistics, for people.
    pub(crate) fn statistics(&self) -> Vec<(&'static str, u64, u64)> {
        let row = |table: Table| {
            let property = |name: &str| -> Option<u64> {
                let family = self.family(table).ok()?;
                self.db.property_int_value_cf(family, name).ok().flatten()
            };
            let keys = property("rocksdb.estimate-num-keys").unwrap_or(0);
            let sst = property("rocksdb.total-sst-files-size").unwrap_or(0);
            let blob = property("rocksdb.total-blob-file-size").unwrap_or(0);
            (table.name(), keys, sst + blob)
        };
        Table::ALL.map(row).to_vec()
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily, FsError> {
        let missing = FsError::Damaged { ino: Ino::new(0), problem: "a table is missing" };
        self.db.cf_handle(table.name()).ok_or(missing)
    }
}

impl SnapshotView {
    pub(crate) fn take(db: &Arc<Db>) -> Self {
        Self::new(Arc::clone(db), |db| db.db.snapshot())
    }

    /// A place in a table, for a reader that goes through it in order.
    pub(crate) fn cursor(&self, table: Table) -> Result<Cursor<'_>, FsError> {
        let mut options = ReadOptions::default();
        // What is read once must not push out what is read often. The store reads ahead by itself
        // where it is read in sequence.
        options.fill_cache(false);
        let family = self.borrow_owner().family(table)?;
        let iterator = self.borrow_dependent().raw_iterator_cf_opt(family, options);
        // A step over a chunk reads it.
        let n_steps_max = if table == Table::Chunks { 1 } else { N_STEPS_MAX };
        Ok(Cursor { iterator, n_steps_max, empty_from: None })
    }
}

/// Pairs that a cursor steps over before it seeks.
const N_STEPS_MAX: usize = 16;

/// A place in a table of a snapshot that mostly moves forward: a step there is far cheaper than a
/// seek, and no move at all where the table is known to be empty.
pub(crate) struct Cursor<'a> {
    iterator: DBRawIterator<'a>,
    n_steps_max: usize,
    /// The table holds nothing from this key up to the place; `None` before the first move.
    empty_from: Option<Vec<u8>>,
}

impl Cursor<'_> {
    /// Moves to the first pair at or after `key`, and returns it.
    pub(crate) fn at_or_after(&mut self, key: &[u8]) -> Result<Option<Item<'_>>, FsError> {
        let forward = self.empty_from.as_ref().is_some_and(|from| from.as_slice() <= key);
        let mut n_steps = 0;
        let behind = |iterator: &DBRawIterator<'_>| iterator.key().is_some_and(|at| at < key);
        while forward && n_steps < self.n_steps_max && behind(&self.iterator) {
            self.iterator.next();
            n_steps += 1;
        }
        // An error of a pair that was only stepped over is not one of this key.
        if !forward || behind(&self.iterator) || self.iterator.status().is_err() {
            self.iterator.seek(key);
        }
        let empty_from = self.empty_from.get_or_insert_default();
        empty_from.clear();
        empty_from.extend_from_slice(key);
        self.item()
    }

    /// Moves to the pair after the one it is at, and returns it.
    pub(crate) fn next(&mut self) -> Result<Option<Item<'_>>, FsError> {
        if let (Some(key), Some(empty_from)) = (self.iterator.key(), &mut self.empty_from) {
            empty_from.clear();
            empty_from.extend_from_slice(key);
            empty_from.push(0);
            self.iterator.next();
        }
        self.item()
    }

    /// Moves to the last pair at or before `key`, and returns it.
    pub(crate) fn at_or_before(&mut self, key: &[u8]) -> Result<Option<Item<'_>>, FsError> {
        self.iterator.seek_for_prev(key);
        self.empty_from = self.iterator.key().map(<[u8]>::to_vec);
        self.item()
    }

    fn item(&mut self) -> Result<Option<Item<'_>>, FsError> {
        if let (None, Err(source)) = (self.iterator.key(), self.iterator.status()) {
            // What lies behind the damage is found by a seek.
            self.empty_from = None;
            return Err(failed("scan", source));
        }
        Ok(self.iterator.item())
    }
}

impl Reader for Db {
    fn visit(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<(), FsError> {
        let value = self.db.get_pinned_cf(self.family(table)?, key);
        if let Some(value) = value.map_err(|source| failed("read", source))? {
            visit(&value);
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Pairs<'_>, FsError> {
        let mode = IteratorMode::From(from, Direction::Forward);
        let pairs = self.db.iterator_cf_opt(self.family(table)?, bounded(table, until), mode);
        Ok(Box::new(pairs.map(|pair| pair.map_err(|source| failed("scan", source)))))
    }

    fn last(&self, table: Table, lower: &[u8], upper: &[u8]) -> Result<Option<Pair>, FsError> {
        let mode = IteratorMode::From(upper, Direction::Reverse);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        let mut pairs = self.db.iterator_cf_opt(self.family(table)?, options, mode);
        pairs.next().transpose().map_err(|source| failed("scan", source))
    }
}

impl Reader for SnapshotView {
    fn visit(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<(), FsError> {
        let value = self.borrow_dependent().get_pinned_cf(self.borrow_owner().family(table)?, key);
        if let Some(value) = value.map_err(|source| failed("read", source))? {
            visit(&value);
        }
        Ok(())
    }

    fn scan(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Pairs<'_>, FsError> {
        let mode = IteratorMode::From(from, Direction::Forward);
        let family = self.borrow_owner().family(table)?;
        let pairs = self.borrow_dependent().iterator_cf_opt(family, bounded(table, until), mode);
        Ok(Box::new(pairs.map(|pair| pair.map_err(|source| failed("scan", source)))))
    }

    fn last(&self, table: Table, lower: &[u8], upper: &[u8]) -> Result<Option<Pair>, FsError> {
        let mode = IteratorMode::From(upper, Direction::Reverse);
        let family = self.borrow_owner().family(table)?;
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        let mut pairs = self.borrow_dependent().iterator_cf_opt(family, options, mode);
        pairs.next().transpose().map_err(|source| failed("scan", source))
    }
}

const BLOB_AGE_CUTOFF: &str = "0.25";
/// Chunks of this many bytes and more lie outside the tree, so that compaction does not rewrite
/// them.
const BLOB_BYTES_MIN: u64 = 4096;

/// Patches of one chunk in memory that are put together before they are read.
const N_PATCHES_MAX: usize = 32;

fn table_options(table: Table, cache: &Cache, options: &KvfsOptions) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_format_version(5);
    blocks.set_block_size(8 << 10);
    // Index and filter come in small pieces: as wholes they are larger than the cache and would
    // push each other out of it.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_pin_top_level_index_and_filter(true);
    if table.has_point_reads() {
        blocks.set_bloom_filter(10.0, false);
        blocks.set_partition_filters(true);
    }
    let mut table_options = Options::default();
    table_options.set_block_based_table_factory(&blocks);
    table_options.set_compression_type(DBCompressionType::Lz4);
    table_options.set_write_buffer_size(options.write_buffer_bytes / 2);
    if table == Table::Chunks {
        table_options.set_enable_blob_files(true);
        table_options.set_min_blob_size(BLOB_BYTES_MIN);
        table_options.set_blob_compression_type(DBCompressionType::Lz4);
        table_options.set_blob_file_size(64 << 20);
        table_options.set_enable_blob_gc(true);
        table_options.set_merge_operator("patch", patch::apply, patch::combine);
        table_options.set_max_successive_merges(N_PATCHES_MAX);
    }
    table_options
}

/// Bounds a forward scan; large values are read ahead.
fn bounded(table: Table, until: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(until);
    if table == Table::Chunks {
        options.fill_cache(false);
    }
    options
}

fn failed(operation: &'static str, source: rocksdb::Error) -> FsError {
    FsError::Store { operation, source: source.into() }
}
