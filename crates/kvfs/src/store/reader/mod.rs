//! Typed reads of the store, the same for the store as it is and for a KVS snapshot of it.
//!
//! Nothing outside this directory looks at a raw table: a question about rows is a function here,
//! which knows the key, decodes the value, and turns bytes that cannot be decoded into an error
//! that names the inode and the damage. Functions whose name ends in `_rows` are for the check and
//! the repair: they show rows that cannot be decoded as well.

pub(super) mod chunks;
mod extents;
pub(super) mod leftovers;
mod log;
mod names;

use tier_types::{FileAttr, FileKind, Ino, Xattr};

use super::db::{Db, KvsSnapshot, RawTables};
use super::decode::xattr_name;
use super::keys::{self, META_CHUNK_BYTES, META_COUNTERS, META_REPAIRING, Table};
use super::ordered::OrderedTables;
use super::rows::{self, Counters, DataSums};
use crate::FsError;
use crate::error::Damage;

/// Typed reads.
#[derive(Clone, Copy)]
pub(crate) struct StoreReader<'a> {
    tables: &'a dyn RawTables,
}

/// A row that was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Row<T> {
    Missing,
    /// It is there and cannot be decoded.
    Unreadable,
    Found(T),
}

impl<T> Row<T> {
    /// What it says, if it is there and says anything.
    pub(crate) fn readable(self) -> Option<T> {
        match self {
            Self::Missing | Self::Unreadable => None,
            Self::Found(value) => Some(value),
        }
    }

    fn or_damaged(self, ino: Ino, damage: Damage) -> Result<Option<T>, FsError> {
        match self {
            Self::Missing => Ok(None),
            Self::Unreadable => Err(FsError::damaged(ino, damage)),
            Self::Found(value) => Ok(Some(value)),
        }
    }
}

impl Db {
    /// Typed reads of the store as it is.
    pub(crate) fn reader(&self) -> StoreReader<'_> {
        StoreReader { tables: self }
    }
}

impl OrderedTables<'_> {
    /// Typed reads of the store as it was, cheap as long as they go forward.
    pub(crate) fn reader(&self) -> StoreReader<'_> {
        StoreReader { tables: self }
    }
}

impl KvsSnapshot {
    /// Typed reads of the store as it was.
    pub(crate) fn reader(&self) -> StoreReader<'_> {
        StoreReader { tables: self }
    }
}

impl StoreReader<'_> {
    /// The inode's attributes, which must exist.
    pub(crate) fn attr(&self, ino: Ino) -> Result<FileAttr, FsError> {
        self.find_attr(ino)?.ok_or(FsError::NotFound)
    }

    pub(crate) fn find_attr(&self, ino: Ino) -> Result<Option<FileAttr>, FsError> {
        let decode = |bytes: &[u8]| rows::attr_from_bytes(ino, bytes);
        self.row(Table::Inodes, &keys::ino(ino), decode)?.or_damaged(ino, Damage::Attributes)
    }

    fn row<T>(
        &self,
        table: Table,
        key: &[u8],
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Row<T>, FsError> {
        let mut row = Row::Missing;
        self.tables.visit(table, key, &mut |bytes| {
            row = decode(bytes).map_or(Row::Unreadable, Row::Found);
        })?;
        Ok(row)
    }

    /// The attributes of what must be a regular file.
    pub(crate) fn regular(&self, ino: Ino) -> Result<FileAttr, FsError> {
        let attr = self.attr(ino)?;
        match attr.kind {
            FileKind::Regular => Ok(attr),
            FileKind::Directory => Err(FsError::IsDirectory),
            FileKind::Symlink(_)
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice(_)
            | FileKind::BlockDevice(_) => Err(FsError::Invalid("not a regular file")),
        }
    }

    /// Whether there is an inode, readable or not.
    pub(crate) fn has_inode(&self, ino: Ino) -> Result<bool, FsError> {
        self.tables.contains(Table::Inodes, &keys::ino(ino))
    }

    pub(crate) fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, FsError> {
        self.tables.get(Table::Xattrs, &keys::named(ino, name))
    }

    pub(crate) fn has_xattr(&self, ino: Ino, name: &[u8]) -> Result<bool, FsError> {
        self.tables.contains(Table::Xattrs, &keys::named(ino, name))
    }

    pub(crate) fn xattrs(&self, ino: Ino) -> Result<Vec<Xattr>, FsError> {
        let (from, until) = keys::rows_of(ino);
        let pairs = self.tables.scan(Table::Xattrs, &from, &until)?;
        let xattrs = pairs.map(|pair| {
            let (key, value) = pair?;
            let name = xattr_name(ino, &key)?.to_vec();
            Ok(Xattr { name, value: value.into_vec() })
        });
        xattrs.collect()
    }

    /// Where the bytes of the inode's data are.
    pub(crate) fn data_sums(&self, ino: Ino) -> Result<DataSums, FsError> {
        let row = self.row(Table::Resident, &keys::ino(ino), rows::sums_from_bytes)?;
        // No row stands for no bytes.
        Ok(row.or_damaged(ino, Damage::ResidentBytes)?.unwrap_or_default())
    }

    /// Whether an inode is listed as having no name.
    pub(crate) fn is_listed_orphan(&self, ino: Ino) -> Result<bool, FsError> {
        self.tables.contains(Table::Orphans, &keys::ino(ino))
    }

    /// Inodes above `after` that are listed as having no name, at most `n_max`. Keys that cannot be
    /// read are left out: the check finds them.
    pub(crate) fn listed_orphans(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, FsError> {
        self.listed(Table::Orphans, after, n_max)
    }

    fn listed(&self, table: Table, after: Ino, n_max: usize) -> Result<Vec<Ino>, FsError> {
        let mut inos = Vec::new();
        for pair in self.tables.scan(table, &keys::ino(after.next()), &keys::LAST)? {
            inos.extend(keys::parse_ino(&pair?.0));
            if inos.len() >= n_max {
                break;
            }
        }
        Ok(inos)
    }

    /// Whether an inode is listed as having recalled data.
    pub(crate) fn is_listed_warm(&self, ino: Ino) -> Result<bool, FsError> {
        self.tables.contains(Table::Warm, &keys::ino(ino))
    }

    /// Inodes above `after` that are listed as having recalled data, at most `n_max`.
    pub(crate) fn listed_warm(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, FsError> {
        let from = keys::ino(after.next());
        let inos = self.tables.scan(Table::Warm, &from, &keys::LAST)?.take(n_max).map(|pair| {
            keys::parse_ino(&pair?.0).ok_or_else(|| FsError::damaged(after, Damage::WarmKey))
        });
        inos.collect()
    }

    /// Inodes above `after`, in order; one whose key cannot be read is left out.
    pub(crate) fn listed_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, FsError> {
        let from = keys::ino(after.next());
        let mut found = Vec::new();
        for pair in self.tables.scan(Table::Inodes, &from, &keys::LAST)? {
            if found.len() >= n_max {
                break;
            }
            found.extend(keys::parse_ino(&pair?.0));
        }
        Ok(found)
    }

    /// Whether an operator pinned the inode itself.
    pub(crate) fn has_pin(&self, ino: Ino) -> Result<bool, FsError> {
        self.tables.contains(Table::Pins, &keys::ino(ino))
    }

    pub(crate) fn chunk_bytes(&self) -> Result<u32, FsError> {
        let bytes = self.tables.get(Table::Meta, META_CHUNK_BYTES)?;
        let chunk_bytes = bytes.and_then(|bytes| rows::chunk_size_from_bytes(&bytes));
        chunk_bytes.ok_or_else(|| FsError::damaged_store(Damage::ChunkSize))
    }

    /// The totals; `None` if they cannot be read.
    pub(crate) fn counters(&self) -> Result<Option<Counters>, FsError> {
        let bytes = self.tables.get(Table::Meta, META_COUNTERS)?;
        Ok(bytes.and_then(|bytes| rows::counters_from_bytes(&bytes)))
    }

    /// Whether a repair was begun that did not come to its end.
    pub(crate) fn is_repairing(&self) -> Result<bool, FsError> {
        self.tables.contains(Table::Meta, META_REPAIRING)
    }

    /// Whether a table has any row of an inode.
    pub(crate) fn has_rows(&self, table: Table, ino: Ino) -> Result<bool, FsError> {
        let (from, until) = keys::rows_of(ino);
        Ok(self.tables.scan(table, &from, &until)?.next().transpose()?.is_some())
    }

    /// Keys of a table's rows of an inode, at most `n_max`.
    pub(crate) fn keys_of(
        &self,
        table: Table,
        ino: Ino,
        n_max: usize,
    ) -> Result<Vec<Vec<u8>>, FsError> {
        let (from, until) = keys::rows_of(ino);
        let pairs = self.tables.scan(table, &from, &until)?.take(n_max);
        pairs.map(|pair| Ok(pair?.0.into_vec())).collect()
    }

    /// Whether there is data of an inode, in its map or in the store; that of a dying one counts as
    /// none.
    pub(crate) fn has_data(&self, ino: Ino) -> Result<bool, FsError> {
        let has_rows = self.has_rows(Table::Map, ino)? || self.has_rows(Table::Chunks, ino)?;
        Ok(has_rows && !self.is_dying(ino)?)
    }
}
