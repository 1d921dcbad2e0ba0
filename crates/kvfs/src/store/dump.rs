//! The store in readable form, for the search for a fault.

use std::io::Write;

use tier_log::LogRecord;
use tier_types::{Ino, Xid};

use super::cuts::CutMark;
use super::db::{Db, RawTables};
use super::extents::Content;
use super::keys::{self, Table};
use super::rows;
use crate::FsError;

/// Writes one line for each key of the tables whose name starts with `prefix`.
pub(crate) fn dump(db: &Db, prefix: &str, out: &mut dyn Write) -> Result<(), FsError> {
    let failed = |source| FsError::io("write the dump of", source);
    for table in Table::ALL.into_iter().filter(|table| table.name().starts_with(prefix)) {
        for pair in db.scan(table, &[], &[0xff; 32])? {
            let (key, value) = pair?;
            let (key, value) = (key_text(table, &key), value_text(table, &key, &value));
            writeln!(out, "{} {key} {value}", table.name()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Keys that cannot be decoded are shown as bytes.
fn key_text(table: Table, key: &[u8]) -> String {
    let parsed = match table {
        Table::Meta => Some(key.escape_ascii().to_string()),
        Table::Unsynced => {
            keys::parse_place(key).map(|place| format!("{} {}", place.file, place.offset))
        }
        Table::Freed => keys::parse_freed(key)
            .map(|(generation, place)| format!("{generation} {} {}", place.file, place.offset)),
        Table::Inodes
        | Table::Resident
        | Table::Cuts
        | Table::Log
        | Table::Segments
        | Table::Orphans
        | Table::Dying
        | Table::Warm
        | Table::Pins => keys::take_number(key).map(|(number, _)| number.to_string()),
        Table::Entries | Table::Xattrs => {
            keys::take_number(key).map(|(number, name)| format!("{number} {}", name.escape_ascii()))
        }
        Table::Cookies | Table::Map | Table::Chunks => keys::take_number(key)
            .zip(keys::parse_second(key))
            .map(|((first, _), second)| format!("{first} {second}")),
        Table::Links => keys::take_number(key).and_then(|(ino, rest)| {
            let (parent, name) = keys::take_number(rest)?;
            Some(format!("{ino} {parent} {}", name.escape_ascii()))
        }),
    };
    parsed.unwrap_or_else(|| format!("{key:02x?}"))
}

fn content_text(content: Content<'_>) -> String {
    match content {
        Content::Inline(bytes) => format!("{} bytes", bytes.len()),
        Content::InFile(extent, patches) => {
            let place = extent.place;
            let patched: usize = patches.iter().map(|(_, bytes)| bytes.len()).sum();
            format!(
                "{} bytes in file {} at {}, {patched} patched",
                extent.len, place.file, place.offset
            )
        }
    }
}

/// Values that cannot be decoded are shown as bytes.
fn value_text(table: Table, key: &[u8], bytes: &[u8]) -> String {
    let number = keys::take_number(key).map(|(number, _)| number);
    let text =
        match table {
            Table::Inodes => number
                .and_then(|ino| rows::attr_from_bytes(Ino::new(ino), bytes))
                .map(|attr| format!("{attr:?}")),
            Table::Entries => rows::entry_from_bytes(bytes)
                .map(|entry| format!("ino={} at={}", entry.ino, entry.cookie)),
            Table::Map => rows::run_from_bytes(bytes)
                .map(|run| format!("{:?} xid={}", run.state, run.data_xid)),
            Table::Log => number
                .and_then(|xid| LogRecord::from_bytes(Xid::new(xid), bytes).ok())
                .map(|record| format!("{:?}", record.operation)),
            Table::Chunks => Content::from_bytes(bytes).map(content_text),
            Table::Segments => rows::number_from_bytes(bytes).map(|first| format!("from {first}")),
            Table::Unsynced => rows::unsynced_from_bytes(bytes)
                .map(|of| format!("ino={} chunk={}", of.ino, of.chunk)),
            Table::Freed => rows::freed_from_bytes(bytes)
                .map(|(ino, chunk, len)| format!("{len} bytes of ino={ino} chunk={chunk}")),
            Table::Resident => rows::sums_from_bytes(bytes).map(|sums| sums.to_string()),
            Table::Cuts => rows::cuts_from_bytes(bytes).map(|cuts| {
                let text = |mark: &CutMark| format!("{} xid={}", mark.chunks, mark.xid);
                cuts.marks().iter().map(text).collect::<Vec<_>>().join(", ")
            }),
            Table::Dying => rows::dying_from_bytes(bytes)
                .map(|dying| format!("next={} {} bytes", dying.next, dying.resident_bytes)),
            Table::Xattrs | Table::Cookies => Some(bytes.escape_ascii().to_string()),
            Table::Links | Table::Orphans | Table::Warm | Table::Pins => Some(String::new()),
            Table::Meta => None,
        };
    text.unwrap_or_else(|| format!("{bytes:02x?}"))
}
