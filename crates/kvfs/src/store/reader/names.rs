//! Reads of names: entries of directories, their order in a listing, and the links of inodes.
//!
//! A name is stored three times: as an entry (directory and name lead to the inode), as a place in
//! the listing (directory and cookie lead to the name), and as a link (the inode, its directory and
//! name), which is what an archive holds. The check compares them.

use tier_types::{FileName, Ino, Link};

use super::{Row, StoreReader};
use crate::FsError;
use crate::error::Damage;
use crate::store::keys::{self, Table};
use crate::store::rows::{self, Entry};

/// An entry of a directory, readable or not.
#[derive(Debug)]
pub(crate) struct EntryRow {
    pub(crate) name: Vec<u8>,
    /// What the name leads to; `None` if that cannot be decoded.
    pub(crate) entry: Option<Entry>,
}

/// A place in a directory's listing, readable or not.
#[derive(Debug)]
pub(crate) struct CookieRow {
    /// `None` if the key cannot be decoded.
    pub(crate) cookie: Option<u64>,
    pub(crate) name: Vec<u8>,
    /// The row's key, by which it can be deleted.
    pub(crate) key: Vec<u8>,
}

/// The way up from a directory, by the first name of each. It ends in a damaged store as well:
/// names that lead back to where they came from are an error. That is found out by comparing each
/// step with one milestone, which is put down again after twice as many steps each time, so that
/// some milestone lies within the circle and is met again (Brent's algorithm); no step is
/// remembered.
pub(crate) struct WayUp<'a> {
    reader: StoreReader<'a>,
    at: Ino,
    milestone: Ino,
    n_steps: u64,
    n_steps_next: u64,
}

impl WayUp<'_> {
    /// The name of the directory that was come to, whose parent is come to by this step; `None` at
    /// the end of the way.
    pub(crate) fn step(&mut self) -> Result<Option<Link>, FsError> {
        if self.at == Ino::ROOT {
            return Ok(None);
        }
        let Some(link) = self.reader.first_link(self.at)? else { return Ok(None) };
        self.at = link.parent;
        if self.at == self.milestone {
            return Err(FsError::damaged(self.at, Damage::LinkCircle));
        }
        self.n_steps += 1;
        if self.n_steps == self.n_steps_next {
            self.milestone = self.at;
            self.n_steps_next *= 2;
        }
        Ok(Some(link))
    }
}

impl<'a> StoreReader<'a> {
    /// The way up from a directory.
    pub(crate) fn way_up(self, dir: Ino) -> WayUp<'a> {
        WayUp { reader: self, at: dir, milestone: dir, n_steps: 0, n_steps_next: 1 }
    }

    /// What a directory's entry leads to.
    pub(crate) fn entry(&self, dir: Ino, name: &FileName) -> Result<Option<Entry>, FsError> {
        self.entry_row(dir, name.as_bytes())?.or_damaged(dir, Damage::Entry)
    }

    /// The same for any bytes as a name.
    pub(crate) fn entry_row(&self, dir: Ino, name: &[u8]) -> Result<Row<Entry>, FsError> {
        self.row(Table::Entries, &keys::named(dir, name), rows::entry_from_bytes)
    }

    /// All entries of a directory, by name.
    pub(crate) fn entry_rows(
        &self,
        dir: Ino,
    ) -> Result<impl Iterator<Item = Result<EntryRow, FsError>> + use<'a>, FsError> {
        let (from, until) = keys::rows_of(dir);
        Ok(self.tables.scan(Table::Entries, &from, &until)?.map(move |pair| {
            let (key, bytes) = pair?;
            let name = keys::name_of(&key).ok_or_else(|| FsError::damaged(dir, Damage::Entry))?;
            Ok(EntryRow { name: name.to_vec(), entry: rows::entry_from_bytes(&bytes) })
        }))
    }

    pub(crate) fn is_empty_dir(&self, dir: Ino) -> Result<bool, FsError> {
        Ok(!self.has_rows(Table::Entries, dir)?)
    }

    /// The name that a directory lists at a cookie.
    pub(crate) fn listed_name(&self, dir: Ino, cookie: u64) -> Result<Option<Vec<u8>>, FsError> {
        self.tables.get(Table::Cookies, &keys::pair(dir.get(), cookie))
    }

    /// A directory's listing after a cookie.
    pub(crate) fn listing(
        &self,
        dir: Ino,
        after: u64,
    ) -> Result<impl Iterator<Item = Result<CookieRow, FsError>> + use<'a>, FsError> {
        // The last cookie of all has nothing behind it but itself, and no entry has it.
        let from = keys::pair(dir.get(), after.saturating_add(1));
        self.cookie_rows_from(dir, &from)
    }

    /// All of a directory's listing.
    pub(crate) fn cookie_rows(
        &self,
        dir: Ino,
    ) -> Result<impl Iterator<Item = Result<CookieRow, FsError>> + use<'a>, FsError> {
        self.cookie_rows_from(dir, &keys::ino(dir))
    }

    fn cookie_rows_from(
        &self,
        dir: Ino,
        from: &[u8],
    ) -> Result<impl Iterator<Item = Result<CookieRow, FsError>> + use<'a>, FsError> {
        let (_, until) = keys::rows_of(dir);
        Ok(self.tables.scan(Table::Cookies, from, &until)?.map(|pair| {
            let (key, name) = pair?;
            let cookie = keys::parse_second(&key);
            Ok(CookieRow { cookie, name: name.into_vec(), key: key.into_vec() })
        }))
    }

    /// The first name of an inode; none for the root and for orphans.
    pub(crate) fn first_link(&self, ino: Ino) -> Result<Option<Link>, FsError> {
        let (from, until) = keys::rows_of(ino);
        let first = self.tables.scan(Table::Links, &from, &until)?.next().transpose()?;
        first.map(|(key, _)| parse_link(ino, &key)).transpose()
    }

    pub(crate) fn links(&self, ino: Ino) -> Result<Vec<Link>, FsError> {
        let (from, until) = keys::rows_of(ino);
        let pairs = self.tables.scan(Table::Links, &from, &until)?;
        pairs.map(|pair| parse_link(ino, &pair?.0)).collect()
    }

    /// Whether an inode has a name.
    pub(crate) fn has_link(&self, ino: Ino, link: &Link) -> Result<bool, FsError> {
        self.tables.contains(Table::Links, &keys::link(ino, link.parent, &link.name))
    }
}

fn parse_link(ino: Ino, key: &[u8]) -> Result<Link, FsError> {
    keys::parse_link(key).ok_or_else(|| FsError::damaged(ino, Damage::Link))
}
