//! All that an index knows, inode by inode in order: to be written down elsewhere, and taken in
//! again.
//!
//! A record is what one inode's rows say, with the inline extent among the others. An inode with
//! many extents has several records, so that no file is too large for memory. Records are merged
//! like the contents of tarballs, by transaction, so that it makes no difference in what order they
//! and others come, or how often.

use std::iter::Peekable;

use tier_types::{ChunkNo, Ino};

use crate::database::{Database, Pair, Table};
use crate::{Extent, Index, IndexError, IndexWriter, InodeLocation, key};

/// Extents of one record.
const N_EXTENTS_MAX: usize = 1024;

/// What an index knows of an inode, or a part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InodeRecord {
    /// Which inode.
    pub ino: Ino,
    /// Its newest state: in its first record, if anything is known of it.
    pub newest: Option<InodeLocation>,
    /// Its extents, in order of chunks; those of a later record lie behind.
    pub extents: Vec<Extent>,
}

/// Inodes from one to another, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InodeRange {
    /// The first one.
    pub first: Ino,
    /// The last one.
    pub last: Ino,
}

impl InodeRange {
    /// All that there can be.
    pub const ALL: Self = Self { first: Ino::new(0), last: Ino::new(u64::MAX) };
}

impl Index {
    /// Shows `visit` the records of these inodes, in order; its error ends that.
    pub fn visit_inodes<E: From<IndexError>>(
        &self,
        inodes: InodeRange,
        visit: &mut dyn FnMut(&InodeRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        visit_records(&self.database(), inodes, visit)
    }
}

/// Shows `visit` the records of these inodes of a database, in order.
pub(crate) fn visit_records<E: From<IndexError>>(
    database: &Database,
    inodes: InodeRange,
    visit: &mut dyn FnMut(&InodeRecord) -> Result<(), E>,
) -> Result<(), E> {
    let InodeRange { first, last } = inodes;
    // Keys of extents begin with those of inodes, so that one bound serves both tables.
    let until = last.get().checked_add(1).map(|next| key::inode(Ino::new(next)));
    let until = until.as_ref().map(<[u8; 8]>::as_slice);
    let rows = database.scan(Table::Inodes, &key::inode(first), until)?;
    let from = key::extent(first, ChunkNo::new(0));
    let extents = database.scan(Table::Extents, &from, until)?;
    let mut walk = Walk { database, rows: rows.peekable(), extents: extents.peekable() };
    while let Some(mut record) = walk.next_inode()? {
        // Each call leaves at most as many as a record may have.
        while walk.take_extents(&mut record)? {
            visit(&record)?;
            (record.newest, record.extents) = (None, Vec::new());
        }
        visit(&record)?;
    }
    Ok(())
}

/// A pass over two tables, each of which is in order of inode numbers.
struct Walk<'a, R, X>
where
    R: Iterator<Item = Result<Pair, IndexError>>,
    X: Iterator<Item = Result<Pair, IndexError>>,
{
    database: &'a Database,
    rows: Peekable<R>,
    extents: Peekable<X>,
}

impl<R, X> Walk<'_, R, X>
where
    R: Iterator<Item = Result<Pair, IndexError>>,
    X: Iterator<Item = Result<Pair, IndexError>>,
{
    /// The next inode that either table has, with its inline extent.
    fn next_inode(&mut self) -> Result<Option<InodeRecord>, IndexError> {
        let of_row = self.inode_of_row()?;
        let Some(ino) = of_row.into_iter().chain(self.inode_of_extent()?).min() else {
            return Ok(None);
        };
        let mut record = InodeRecord { ino, newest: None, extents: Vec::new() };
        // Data may be known before its inode is.
        if of_row == Some(ino)
            && let Some((_, value)) = self.rows.next().transpose()?
        {
            let row = self.database.parse_inode(ino, &value)?;
            record.newest = Some(row.newest);
            record.extents.extend(row.inline);
        }
        Ok(Some(record))
    }

    /// Adds the inode's own rows. Whether there are more of them.
    fn take_extents(&mut self, record: &mut InodeRecord) -> Result<bool, IndexError> {
        while self.inode_of_extent()? == Some(record.ino) {
            if record.extents.len() >= N_EXTENTS_MAX {
                return Ok(true);
            }
            if let Some((key, value)) = self.extents.next().transpose()? {
                record.extents.push(self.database.parse_extent(&key, &value)?);
            }
        }
        Ok(false)
    }

    fn inode_of_row(&mut self) -> Result<Option<Ino>, IndexError> {
        let damaged = || self.database.damaged("an inode's row cannot be read");
        peek(&mut self.rows, &|key| key::parse_inode(key).ok_or_else(damaged))
    }

    fn inode_of_extent(&mut self) -> Result<Option<Ino>, IndexError> {
        let damaged = || self.database.damaged("an extent's row cannot be read");
        let parse = |key: &[u8]| key::parse_extent(key).map(|(ino, _)| ino).ok_or_else(damaged);
        peek(&mut self.extents, &parse)
    }
}

/// What `parse` makes of the key of the next pair; an error that comes next comes out here.
fn peek(
    pairs: &mut Peekable<impl Iterator<Item = Result<Pair, IndexError>>>,
    parse: &dyn Fn(&[u8]) -> Result<Ino, IndexError>,
) -> Result<Option<Ino>, IndexError> {
    match pairs.peek() {
        None => Ok(None),
        Some(Ok((key, _))) => parse(key).map(Some),
        Some(Err(_)) => pairs.next().transpose().map(|_| None),
    }
}

impl IndexWriter<'_> {
    /// Takes in records, which come in order of inodes. Their tarballs must be known. What they say
    /// wins where their transactions are later than what is known.
    pub fn load(&mut self, records: &[InodeRecord]) -> Result<(), IndexError> {
        assert!(records.is_sorted_by_key(|record| record.ino), "records come in order");
        let mut merge = self.merge()?;
        // All of an inode at once: a merge does not see what it has not written yet.
        for records in records.chunk_by(|a, b| a.ino == b.ino) {
            let [first, ..] = records else { continue };
            let newest: Vec<_> = records.iter().filter_map(|record| record.newest).collect();
            let extents = records.iter().flat_map(|record| record.extents.iter().copied());
            merge.inode(first.ino, &newest, extents.collect())?;
        }
        merge.write()
    }
}
