//! The key-value store: rows and bytes, and the only directory that names RocksDB.
//!
//! Above it stand typed reads ([`StoreReader`], the same for the live store and for a KVS snapshot,
//! and [`OrderedTables`] for walks), and a [`Batch`] of changes that become visible together. Which
//! tables there are, how keys are ordered and how values are encoded is known here (`keys`,
//! `rows`), to the row writers of a transaction's draft, and to nothing else. Published log
//! segments lie beside the tables, as files, and so does the witness of what was synced; `opening`
//! compares them all before anything is written.

mod agreement;
mod batch;
mod compaction;
mod cursor;
mod cuts;
mod db;
mod decode;
mod dump;
pub(crate) mod extents;
mod failure;
pub(crate) mod keys;
mod opened;
mod opening;
mod ordered;
pub(crate) mod patch;
mod reader;
mod reclaim;
pub(crate) mod rows;
mod segments;
mod sizes;
mod tuning;
mod wal;
mod walks;
mod witness;

pub(crate) use batch::Batch;
pub(crate) use cuts::{CutMark, CutMarks, StoredRun};
pub(crate) use db::{Db, KvsSnapshot};
pub(crate) use dump::dump;
pub(crate) use failure::may_pass;
pub(crate) use keys::{COOKIE_PARENT, COOKIE_SELF, Table};
pub(crate) use opening::{OpenedStore, create, open, reopen};
pub(crate) use ordered::OrderedTables;
pub(crate) use reader::StoreReader;
pub(crate) use reader::chunks::StoredMap;
pub(crate) use reader::leftovers::Leftovers;
pub(crate) use rows::{
    ChunkBefore, Counters, DataSums, Dying, Entry, FILE_BYTES_MAX, RunState, Unsynced,
};
pub(crate) use segments::Segments;
#[cfg(test)]
pub(crate) use tuning::OpenAs;
pub(crate) use walks::{Gap, InodeFound, InodeRow, Owner};
pub(crate) use witness::{Synced, Witness};

pub use sizes::TableStatistics;

/// Every decoder of keys and values.
#[cfg(fuzzing)]
pub(crate) fn decode_all(key: &[u8], value: &[u8]) {
    let ino = tier_types::Ino::new(1);
    drop(rows::attr_from_bytes(ino, value));
    let _ = rows::entry_from_bytes(value);
    let _ = rows::run_from_bytes(value);
    let _ = rows::counters_from_bytes(value);
    let _ = rows::sums_from_bytes(value);
    let _ = rows::dying_from_bytes(value);
    drop(rows::cuts_from_bytes(value));
    let _ = rows::number_from_bytes(value);
    let _ = rows::chunk_size_from_bytes(value);
    drop(extents::Content::from_bytes(value).map(|_| ()));
    let _ = rows::freed_from_bytes(value);
    drop(rows::unsynced_from_bytes(value));
    let _ = rows::place_from_bytes(value);
    let _ = keys::parse_freed(key);
    let _ = keys::parse_ino(key);
    let _ = keys::parse_second(key);
    drop(keys::parse_link(key));
    drop(decode::parse_run(ino, key, value));
}
