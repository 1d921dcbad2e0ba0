//! The key-value store: rows and bytes, and the only directory that names RocksDB.
//!
//! Above it stand typed reads ([`StoreReader`], the same for the live store and for a KVS snapshot,
//! and [`OrderedReader`] for walks), and a [`Batch`] of changes that become visible together. Which
//! tables there are, how keys are ordered and how values are encoded is known here (`keys`,
//! `rows`), to the row writers of a transaction's draft, and to nothing else. Published log
//! segments lie beside the tables, as files.

mod batch;
mod compaction;
mod cursor;
mod db;
mod decode;
mod dump;
mod failure;
pub(crate) mod keys;
pub(crate) mod patch;
mod reader;
pub(crate) mod rows;
mod segments;
mod tuning;
mod walks;

pub(crate) use batch::Batch;
pub(crate) use cursor::OrderedReader;
pub(crate) use db::{Db, KvsSnapshot};
pub(crate) use decode::resident_bytes;
pub(crate) use dump::dump;
pub(crate) use keys::{COOKIE_PARENT, COOKIE_SELF, Table};
pub(crate) use reader::StoreReader;
pub(crate) use rows::{Counters, Entry, FILE_BYTES_MAX, RunState};
pub(crate) use segments::Segments;
pub(crate) use walks::{Gap, InodeFound, InodeRow, Owner};

pub use db::TableStatistics;

/// Every decoder of keys and values.
#[cfg(fuzzing)]
pub(crate) fn decode_all(key: &[u8], value: &[u8]) {
    let ino = tier_types::Ino::new(1);
    drop(rows::attr_from_bytes(ino, value));
    let _ = rows::entry_from_bytes(value);
    let _ = rows::run_from_bytes(value);
    let _ = rows::counters_from_bytes(value);
    let _ = rows::number_from_bytes(value);
    let _ = rows::chunk_size_from_bytes(value);
    let _ = keys::parse_ino(key);
    let _ = keys::parse_second(key);
    drop(keys::parse_link(key));
    drop(decode::parse_run(ino, key, value));
}
