//! The open database, and how another one takes its place.
//!
//! After an error of the disk RocksDB refuses to write until it is opened again. A mount that had
//! to be ended for that would be gone for its programs; so the database is exchanged in place,
//! below everything that holds the [`Db`](super::Db). RocksDB lets a directory be open once, so
//! that the old database must be closed before the new one is opened, and it cannot be closed while
//! anything reads from it.
//!
//! A read holds the database only while it lasts; a walk and a KVS snapshot hold it longer. The
//! exchange therefore ends every snapshot that there is, which turns its further reads into errors,
//! so that its holder lets go of it; and it waits for nothing. If the database is
//! still held it stays as it is, readable and refusing writes, and the next attempt tries again. If
//! the new one cannot be opened (the disk may not take writes at all), it is opened for reading.
//!
//! It is opened as at a start: not if there is a hole in its log, strictly, and tolerantly only
//! after a look has shown that nothing is missing but what the failed write left torn (see
//! `opening`).

use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::RwLock;
use rocksdb::{Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME};

use super::compaction::Compaction;
use super::failure::{self, failed};
use super::keys::Table;
use super::tuning::{self, OpenAs};
use crate::error::UnreadableRows;
use crate::options::WriteSizes;
use crate::{FsError, KvfsOptions};

/// How often a short read is given the processor to end before an exchange gives up.
const N_YIELDS: usize = 1000;
/// With less room on its disk nothing is preallocated: it would be taken from the recovery.
const PREALLOCATION_BYTES_MIN: u64 = 2 << 30;

/// An open database.
#[derive(Debug)]
pub(super) struct OpenDb {
    pub(super) db: DB,
    pub(super) compaction: Compaction,
    /// How often another one was to take its place.
    n_endings: AtomicU64,
}

/// The database as a snapshot holds it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) opened: Arc<OpenDb>,
    n_endings: u64,
}

impl Held {
    pub(super) fn new(opened: Arc<OpenDb>) -> Self {
        let n_endings = opened.n_endings.load(Ordering::Relaxed);
        Self { opened, n_endings }
    }

    /// Whether the snapshot may still be read.
    pub(super) fn check(&self) -> Result<(), FsError> {
        // A read that has passed this question may go on while the number rises: the database is
        // not closed as long as it is held here.
        let ended = self.opened.n_endings.load(Ordering::Relaxed) != self.n_endings;
        if ended { Err(FsError::Reopened) } else { Ok(()) }
    }
}

/// The database that is open now.
#[derive(Debug)]
pub(super) struct Slot(RwLock<Option<Arc<OpenDb>>>);

impl OpenDb {
    pub(super) fn open(path: &Path, options: &KvfsOptions, how: OpenAs) -> Result<Self, FsError> {
        // What is set apart in a store with a capacity would be taken from that.
        let preallocate = options.capacity_bytes == 0 && may_preallocate(path);
        let sizes = options.write_sizes(disk_bytes(path));
        let settings = tuning::database(sizes, how, preallocate)?;
        let compaction = Compaction::of(path, how);
        let tables = tables(options.cache_bytes, sizes, &compaction);
        let opened = match how {
            OpenAs::Look => DB::open_cf_descriptors_read_only(&settings, path, tables, false),
            OpenAs::New | OpenAs::Strict | OpenAs::Tolerant => {
                DB::open_cf_descriptors(&settings, path, tables)
            }
        };
        let db = opened.map_err(|source| match how {
            OpenAs::New => failed("make", source),
            OpenAs::Look | OpenAs::Strict | OpenAs::Tolerant => failure::not_opened(source),
        })?;
        Ok(Self { db, compaction, n_endings: AtomicU64::new(0) })
    }

    /// The error of a write. One that names damage is that of a compaction before it.
    pub(super) fn not_written(&self, operation: &'static str, source: rocksdb::Error) -> FsError {
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

    #[expect(clippy::expect_used, reason = "a store cannot be opened without any of its tables")]
    pub(super) fn family(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("every table is opened with the store")
    }
}

/// Bytes of the disk of a database; one that cannot be asked is taken for large.
fn disk_bytes(path: &Path) -> u64 {
    let disk = path.parent().unwrap_or(path);
    rustix::fs::statvfs(disk).map_or(u64::MAX, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Whether the disk has so much room that the log may take some of it beforehand.
fn may_preallocate(path: &Path) -> bool {
    // The directory of a new store is not there yet. A disk that cannot be asked is taken for full.
    let disk = path.parent().unwrap_or(path);
    rustix::fs::statvfs(disk)
        .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= PREALLOCATION_BYTES_MIN)
}

fn tables(
    cache_bytes: usize,
    sizes: WriteSizes,
    compaction: &Compaction,
) -> impl Iterator<Item = ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(cache_bytes);
    let is_off = compaction.is_off();
    let tables = Table::ALL.map(|table| {
        let mut settings = tuning::table(table, &cache, sizes);
        settings.set_disable_auto_compactions(is_off);
        ColumnFamilyDescriptor::new(table.name(), settings)
    });
    let unused = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, tuning::unused(sizes));
    tables.into_iter().chain(iter::once(unused))
}

impl Slot {
    pub(super) fn new(opened: OpenDb) -> Self {
        Self(RwLock::new(Some(Arc::new(opened))))
    }

    pub(super) fn get(&self) -> Result<Arc<OpenDb>, FsError> {
        self.0.read().as_ref().map(Arc::clone).ok_or(FsError::Poisoned)
    }

    /// Closes the database and opens it again, if nothing reads from it, and if `check` finds
    /// nothing wrong with what is closed. `look` says whether a database whose log is damaged has
    /// all that it must have.
    pub(super) fn reopen(
        &self,
        path: &Path,
        options: &KvfsOptions,
        check: impl FnOnce() -> Result<(), FsError>,
        look: impl FnOnce(FsError) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        // Held over the whole exchange: reads wait for its end, and find no empty slot meanwhile.
        let mut slot = self.0.write();
        if let Some(old) = slot.take() {
            // Before it is known whether this attempt succeeds: snapshots become useless either
            // way, so that the next attempt finds the database let go of.
            old.n_endings.fetch_add(1, Ordering::Relaxed);
            match unshared(old) {
                Ok(old) => drop(old),
                Err(old) => {
                    tracing::info!("the key-value store is still read from: it is reopened later");
                    *slot = Some(old);
                    return Err(FsError::Poisoned);
                }
            }
        }
        let strictly = |()| match OpenDb::open(path, options, OpenAs::Strict) {
            Err(error) if error.is_damage() => {
                look(error)?;
                OpenDb::open(path, options, OpenAs::Tolerant)
            }
            opened => opened,
        };
        // The check reads the log, which the database may write to until it is closed.
        let opened = check().and_then(strictly);
        match opened {
            Ok(opened) => {
                *slot = Some(Arc::new(opened));
                Ok(())
            }
            Err(error) => {
                // Without it every read would fail as well; the error that counts is the first one.
                if let Ok(opened) = OpenDb::open(path, options, OpenAs::Look) {
                    *slot = Some(Arc::new(opened));
                }
                Err(error)
            }
        }
    }
}

/// The database, once nothing else holds it. Nothing new takes hold of it meanwhile.
fn unshared(mut shared: Arc<OpenDb>) -> Result<OpenDb, Arc<OpenDb>> {
    for _ in 0..N_YIELDS {
        match Arc::try_unwrap(shared) {
            Ok(opened) => return Ok(opened),
            Err(still_shared) => shared = still_shared,
        }
        thread::yield_now();
    }
    Err(shared)
}
