//! Settings of RocksDB: what is cached, compressed, kept apart and read ahead.
//!
//! Two kinds of tables: small rows that are looked up by key (inodes, names, maps), which live from
//! the block cache and from filters; and chunks, of which the large ones lie outside the store in
//! extent files, and the small ones are as large as all other rows together many times over, so
//! that scans of them do not go through the block cache.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel,
    Options, ReadOptions,
};
use tier_types::{to_u64, to_usize};

use super::failure::failed;
use super::keys::Table;
use super::patch;
use crate::FsError;
use crate::options::WriteSizes;

/// Patches of one chunk in memory that are put together before they are read.
const N_PATCHES_MAX: usize = 32;
/// Files of the first level below the newest, and of a merge, in a small store.
const LEVEL_FILES: u64 = 4;
/// With so many files that wait to be merged writes are slowed down, in a small store.
const PENDING_FILES: u64 = 32;
/// Files of the newest level from which on they are merged, and writes are slowed down, in a small
/// store, and from which on writes are stopped in any.
const N_NEWEST_MERGED: i32 = 2;
const N_NEWEST_SLOW: i32 = 6;
const N_NEWEST_STOP: i32 = 10_000;
/// A file with so many deletions among so many rows in turn is merged soon.
const N_DELETIONS_WINDOW: usize = 4096;
const N_DELETIONS: usize = 2048;
/// Of the database's own text log, of which the one before is kept as well.
const TEXT_LOG_BYTES_MAX: usize = 1 << 20;

/// What a store is opened as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpenAs {
    /// A new one.
    New,
    /// One whose write-ahead log must be whole.
    Strict,
    /// To read only, and as far as its write-ahead log can be read. Nothing of it is changed.
    Look,
    /// As far as its write-ahead log can be read. The rest of that is dropped.
    Tolerant,
}

/// Settings of the database as a whole.
pub(super) fn database(
    sizes: WriteSizes,
    how: OpenAs,
    preallocate: bool,
) -> Result<Options, FsError> {
    let mut database = Options::default();
    let create = how == OpenAs::New;
    database.create_if_missing(create);
    database.set_error_if_exists(create);
    database.create_missing_column_families(create);
    // Why it is opened strictly first is said in `opening`.
    database.set_wal_recovery_mode(match how {
        OpenAs::New | OpenAs::Strict => DBRecoveryMode::AbsoluteConsistency,
        OpenAs::Look | OpenAs::Tolerant => DBRecoveryMode::PointInTime,
    });
    // A log that was synced and closed must be there, as long as it was.
    database.set_track_and_verify_wals_in_manifest(true);
    let write_buffer_bytes = sizes.buffer_bytes;
    database.set_db_write_buffer_size(write_buffer_bytes);
    // A table that is seldom written keeps the log of all others alive until it is flushed.
    database.set_max_total_wal_size(4 * to_u64(write_buffer_bytes));
    // Beside those of the index and of the tarballs, which share the process's limit.
    database.set_max_open_files(512);
    // Its own text logs, of which it keeps a thousand unless told otherwise, each without end.
    database.set_keep_log_file_num(2);
    database.set_max_log_file_size(TEXT_LOG_BYTES_MAX);
    database.set_log_level(LogLevel::Warn);
    database.set_max_background_jobs(2);
    // Files are read from start to end, too: there the system's reading ahead is worth most.
    database.set_advise_random_on_open(false);
    if preallocate {
        return Ok(database);
    }
    // The binding has no other way to say it. A log of 26 MiB before its first record, and a
    // manifest of 4, would take the last room of a small or full disk.
    database
        .get_options_from_string("allow_fallocate=false")
        .map_err(|source| failed("set options of", source))
}

pub(super) fn table(table: Table, cache: &Cache, sizes: WriteSizes) -> Options {
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
    let mut settings = Options::default();
    settings.set_block_based_table_factory(&blocks);
    settings.set_compression_type(DBCompressionType::Lz4);
    settings.set_write_buffer_size(sizes.buffer_bytes / 2);
    if let Some(bytes) = sizes.file_bytes {
        settings.set_target_file_size_base(bytes);
        settings.set_max_bytes_for_level_base(LEVEL_FILES * bytes);
        settings.set_max_compaction_bytes(LEVEL_FILES * bytes);
        // All files of the newest level are merged at once: writers must not get so far ahead that
        // there is no room for that.
        settings.set_level_zero_file_num_compaction_trigger(N_NEWEST_MERGED);
        settings.set_level_zero_slowdown_writes_trigger(N_NEWEST_SLOW);
        settings.set_soft_pending_compaction_bytes_limit(to_usize(PENDING_FILES * bytes));
    }
    // A merge that found the disk full waits for room, and files of the newest level pile up
    // meanwhile. Writes must not stop for that: those of an eviction are what makes room.
    settings.set_level_zero_stop_writes_trigger(N_NEWEST_STOP);
    settings.set_hard_pending_compaction_bytes_limit(0);
    // What was deleted by an earlier process is counted by nothing else.
    settings.add_compact_on_deletion_collector_factory(N_DELETIONS_WINDOW, N_DELETIONS, 0.5);
    if table == Table::Chunks {
        settings.set_merge_operator("patch", patch::merge, patch::merge_partly);
        // A reader would have to put together what a thousand small writes left.
        settings.set_max_successive_merges(N_PATCHES_MAX);
    }
    settings
}

/// Settings of the default table, which RocksDB always has and in which nothing is. After a full
/// disk it goes on only when the largest write buffer of any table finds room: its own would be one
/// of 64 MiB, more than the ballast of a small disk and more than may ever be free there.
pub(super) fn unused(sizes: WriteSizes) -> Options {
    let mut settings = Options::default();
    settings.set_write_buffer_size(sizes.buffer_bytes / 2);
    settings
}

/// Bounds a forward scan; chunks that are scanned do not push out of the cache what is read often.
pub(super) fn scan(table: Table, until: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(until);
    if table == Table::Chunks {
        options.fill_cache(false);
    }
    options
}

/// For a walk through a table in order: what is read once must not push out what is read often.
/// RocksDB reads ahead by itself where it is read in sequence.
pub(super) fn walk() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::KvfsOptions;
    use crate::core::Core;
    use crate::testing::{StandingClock, options};

    /// The settings that a store with these options has, as RocksDB writes them down.
    fn written(options: &KvfsOptions) -> String {
        let dir = tempfile::tempdir().unwrap();
        let _core = Core::create(dir.path(), options, Arc::new(StandingClock)).unwrap();
        let names = fs::read_dir(dir.path().join("kvs")).unwrap();
        let names = names.map(|entry| entry.unwrap().path());
        let is_options = |path: &PathBuf| path.to_string_lossy().contains("/OPTIONS-");
        fs::read_to_string(names.filter(is_options).max().unwrap()).unwrap()
    }

    /// RocksDB goes on after a full disk only when the largest buffer of any table finds room.
    #[test]
    fn no_table_has_a_larger_write_buffer_than_the_options_say() {
        let text = written(&KvfsOptions { write_buffer_bytes: 6 << 20, ..options() });
        let sizes = text.lines().filter_map(|line| line.trim().strip_prefix("write_buffer_size="));
        let sizes: Vec<_> = sizes.collect();
        assert_eq!(sizes, ["3145728"; Table::ALL.len() + 1], "and the default one");
    }

    #[test]
    fn what_the_database_tells_takes_bounded_space() {
        let text = written(&options());
        assert!(text.contains("max_log_file_size=1048576") && text.contains("keep_log_file_num=2"));
    }
}
