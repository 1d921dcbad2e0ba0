//! The store in readable form, for people who look for a fault.

use std::io::{self, Write};

use tier_log::LogRecord;
use tier_types::{Ino, Xid};

use crate::db::Reader;
use crate::fs::Kvfs;
use crate::schema::{self, Table};
use crate::{FsError, value};

impl Kvfs {
    /// Writes one line for each key of the tables whose name starts with `prefix`.
    pub fn dump(&self, prefix: &str, out: &mut dyn Write) -> Result<(), FsError> {
        let failed = |source: io::Error| FsError::Store {
            operation: "write the dump of",
            source: source.into(),
        };
        for table in Table::ALL {
            if !table.name().starts_with(prefix) {
                continue;
            }
            for pair in self.db.scan(table, &[], &[0xff; 32])? {
                let (key, value) = pair?;
                let (key, value) = (key_text(table, &key), value_text(table, &key, &value));
                writeln!(out, "{} {key} {value}", table.name()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The records from `from` on that are not published yet.
    pub fn unpublished_records(
        &self,
        from: Xid,
        visit: &mut dyn FnMut(LogRecord) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        for pair in self.db.scan(Table::Log, &schema::xid(from), &[0xff; 9])? {
            let (key, value) = pair?;
            let damaged = FsError::Damaged { ino: Ino::new(0), problem: "a log key is wrong" };
            let (xid, _) = schema::take_number(&key).ok_or(damaged)?;
            visit(LogRecord::from_bytes(Xid::new(xid), &value)?)?;
        }
        Ok(())
    }
}

fn key_text(table: Table, key: &[u8]) -> String {
    let number = |bytes| schema::take_number(bytes).unwrap_or((0, &[]));
    let (first, rest) = number(key);
    match table {
        Table::Meta => key.escape_ascii().to_string(),
        Table::Inodes
        | Table::Resident
        | Table::Log
        | Table::Orphans
        | Table::Warm
        | Table::Pins => first.to_string(),
        Table::Entries | Table::Xattrs => format!("{first} {}", rest.escape_ascii()),
        Table::Cookies | Table::Map | Table::Chunks => format!("{first} {}", number(rest).0),
        Table::Links => {
            let (parent, name) = number(rest);
            format!("{first} {parent} {}", name.escape_ascii())
        }
    }
}

fn value_text(table: Table, key: &[u8], bytes: &[u8]) -> String {
    let first = schema::take_number(key).map_or(0, |(number, _)| number);
    let text = match table {
        Table::Inodes => {
            value::attr_from_bytes(Ino::new(first), bytes).map(|attr| format!("{attr:?}"))
        }
        Table::Entries => {
            value::entry_from_bytes(bytes).map(|(ino, at)| format!("ino={ino} at={at}"))
        }
        Table::Map => {
            value::run_from_bytes(bytes).map(|(state, xid)| format!("{state:?} xid={xid}"))
        }
        Table::Log => LogRecord::from_bytes(Xid::new(first), bytes)
            .ok()
            .map(|record| format!("{:?}", record.operation)),
        Table::Chunks => Some(format!("{} bytes", bytes.len())),
        Table::Resident => {
            <[u8; 8]>::try_from(bytes).ok().map(|n| format!("{} bytes", u64::from_le_bytes(n)))
        }
        Table::Xattrs | Table::Cookies => Some(bytes.escape_ascii().to_string()),
        Table::Links | Table::Orphans | Table::Warm | Table::Pins => Some(String::new()),
        Table::Meta => None,
    };
    text.unwrap_or_else(|| format!("{bytes:02x?}"))
}
