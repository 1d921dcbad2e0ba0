//! How large the store is: what the account of room and the operator ask.
//!
//! RocksDB knows the sizes of its tables, and the extent files remember theirs, so that no question
//! looks at a file of the database. What RocksDB does not tell is the size of its write-ahead log;
//! what is in memory stands for it.

use super::db::Db;
use super::failure::failed;
use super::keys::Table;
use crate::FsError;

/// How large a table of the key-value store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableStatistics {
    /// The table's name.
    pub table: &'static str,
    /// About how many keys it has.
    pub n_keys: u64,
    /// Bytes of its files; those of the chunks include the extent files.
    pub file_bytes: u64,
}

/// The property of a table that says how much of it is in memory only.
const UNFLUSHED_BYTES: &str = "rocksdb.cur-size-all-mem-tables";

impl Db {
    /// Bytes that are in memory and have yet to be written into tables.
    pub(crate) fn unflushed_bytes(&self) -> Result<u64, FsError> {
        let mut bytes = 0;
        for table in Table::ALL {
            bytes += self.property(table, UNFLUSHED_BYTES)?;
        }
        Ok(bytes)
    }

    /// Rows that were written or deleted since the store was made.
    pub(crate) fn n_writes(&self) -> Result<u64, FsError> {
        Ok(self.opened()?.db.latest_sequence_number())
    }

    /// About the bytes that the store takes on the disk: its table files, its extent files, and for
    /// its write-ahead log, whose size RocksDB does not tell, what of it is in memory. Asked once a
    /// second, so that no file of the database is looked at.
    pub(crate) fn physical_bytes(&self) -> Result<u64, FsError> {
        let mut bytes = self.extent_files().physical_bytes()? + self.unflushed_bytes()?;
        for table in Table::ALL {
            bytes += self.property(table, "rocksdb.total-sst-files-size")?;
        }
        Ok(bytes)
    }

    /// The filesystem on which the store's files are.
    pub(crate) fn statvfs(&self) -> Result<rustix::fs::StatVfs, FsError> {
        let asked = rustix::fs::statvfs(self.path());
        asked.map_err(|errno| FsError::io("measure the disk of", errno.into()))
    }

    pub(crate) fn statistics(&self) -> Result<Vec<TableStatistics>, FsError> {
        let statistics = |table: Table| {
            let sst_bytes = self.property(table, "rocksdb.total-sst-files-size")?;
            // Large chunks lie beside the table whose rows refer to them.
            let extent_bytes =
                if table == Table::Chunks { self.extent_files().physical_bytes()? } else { 0 };
            Ok(TableStatistics {
                table: table.name(),
                n_keys: self.property(table, "rocksdb.estimate-num-keys")?,
                file_bytes: sst_bytes + extent_bytes,
            })
        };
        Table::ALL.into_iter().map(statistics).collect()
    }

    /// The number of the first write-ahead log that is still needed.
    pub(super) fn first_needed_log(&self) -> Result<u64, FsError> {
        self.property(Table::Meta, "rocksdb.min-log-number-to-keep")
    }

    fn property(&self, table: Table, name: &str) -> Result<u64, FsError> {
        let opened = self.opened()?;
        let value = opened.db.property_int_value_cf(opened.family(table), name);
        let value = value.map_err(|source| failed("measure a table of", source))?;
        value.ok_or_else(|| {
            let unknown = format!("it does not know its {name}");
            FsError::io("measure a table of", std::io::Error::other(unknown))
        })
    }
}
