//! Listings of directories.
//!
//! A listing goes by cookies and not by names or positions: each entry has a place that no other
//! entry of the directory has at the same time, the transaction that made it. A name that stays
//! keeps its place, also when another inode gets it; an inode that gets another name in its
//! directory takes its place along. So a listing that is read in pages shows every name, and every
//! inode, that was there all the time exactly once, whatever comes and goes between two pages, and
//! after a restart as well.
//!
//! An inode whose attributes cannot be read is listed without them: it is there, and one damaged
//! inode must not hide the others of its directory.

use std::cell::RefCell;

use tier_types::{FileAttr, FileName, Ino, with_causes};

use crate::FsError;
use crate::core::Core;
use crate::error::Damage;
use crate::store::{COOKIE_PARENT, COOKIE_SELF};
use crate::tx::Draft;

/// Looks at an entry that is renamed meanwhile, each time.
const N_ATTEMPTS: u32 = 100;

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Its name, `.` and `..` included.
    pub name: Vec<u8>,
    /// Its inode.
    pub ino: Ino,
    /// The attributes of its inode; `None` if they cannot be read.
    pub attr: Option<FileAttr>,
    /// Where a listing goes on after it: the same as long as the entry exists.
    pub cookie: u64,
}

/// A part of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListingPlaces {
    /// The cookie after which it begins; 0 for the start.
    pub(crate) after: u64,
    /// The last cookie that is in it.
    pub(crate) end: u64,
}

impl Core {
    /// The entries after a cookie (0 for the first), at most `n_max`.
    pub fn readdir(&self, dir: Ino, after: u64, n_max: usize) -> Result<Vec<DirEntry>, FsError> {
        self.readdir_between(dir, ListingPlaces { after, end: u64::MAX }, n_max)
    }

    /// The end of a listing that begins now: what is made later has its place behind it.
    pub(crate) fn listing_end(&self) -> u64 {
        Draft::cookie_of(self.committer.last_xid())
    }

    /// The entries between two places, at most `n_max`.
    pub(crate) fn readdir_between(
        &self,
        dir: Ino,
        places: ListingPlaces,
        n_max: usize,
    ) -> Result<Vec<DirEntry>, FsError> {
        self.readdir_with(dir, places, n_max, |ino| self.reader().find_attr(ino))
    }

    /// The same for the kernel, which knows the inodes of all entries from now on but those of `.`
    /// and `..`, and those that come without attributes.
    pub(crate) fn readdir_known(
        &self,
        dir: Ino,
        places: ListingPlaces,
        n_max: usize,
    ) -> Result<Vec<DirEntry>, FsError> {
        let known = RefCell::new(Vec::new());
        let find = |ino| {
            let found = self.find_known(ino)?;
            known.borrow_mut().extend(found.is_some().then_some(ino));
            Ok(found)
        };
        self.readdir_with(dir, places, n_max, find).inspect_err(|_| {
            for ino in known.take() {
                self.forget(ino, 1);
            }
        })
    }

    /// The same with attributes as `find` finds them.
    fn readdir_with(
        &self,
        dir: Ino,
        places: ListingPlaces,
        n_max: usize,
        find: impl Fn(Ino) -> Result<Option<FileAttr>, FsError>,
    ) -> Result<Vec<DirEntry>, FsError> {
        let ListingPlaces { after, end } = places;
        let attr = self.directory(dir)?;
        let mut entries = Vec::new();
        if after < COOKIE_SELF && n_max > 0 {
            let name = b".".to_vec();
            let attr = Some(attr.clone());
            entries.push(DirEntry { name, ino: dir, attr, cookie: COOKIE_SELF });
        }
        if after < COOKIE_PARENT && entries.len() < n_max {
            let parent = self.reader().first_link(dir)?.map_or(dir, |link| link.parent);
            // A parent that is lost is damage, which the check finds; the listing goes on.
            let (ino, attr) = match listed(parent, self.reader().find_attr(parent))? {
                Listed::Found(of_parent) => (parent, Some(of_parent)),
                Listed::Unreadable => (parent, None),
                Listed::Gone => (dir, Some(attr)),
            };
            entries.push(DirEntry { name: b"..".to_vec(), ino, attr, cookie: COOKIE_PARENT });
        }
        for row in self.reader().listing(dir, after.max(COOKIE_PARENT))? {
            if entries.len() >= n_max {
                break;
            }
            let row = row?;
            let cookie = row.cookie.ok_or_else(|| FsError::damaged(dir, Damage::Cookie))?;
            if cookie > end {
                break;
            }
            let Some((name, ino)) = self.entry_at(dir, cookie, row.name)? else { continue };
            let attr = match listed(ino, find(ino))? {
                Listed::Found(attr) => Some(attr),
                Listed::Unreadable => None,
                Listed::Gone => continue,
            };
            entries.push(DirEntry { name, ino, attr, cookie });
        }
        Ok(entries)
    }
}

impl Core {
    /// The entry at a place of a listing, which had this name a moment ago; `None` if it is gone.
    fn entry_at(
        &self,
        dir: Ino,
        cookie: u64,
        mut text: Vec<u8>,
    ) -> Result<Option<(Vec<u8>, Ino)>, FsError> {
        for _ in 0..N_ATTEMPTS {
            let Some(name) = FileName::new(&text) else { return Ok(None) };
            match self.reader().entry(dir, &name)? {
                Some(entry) if entry.cookie == cookie => return Ok(Some((text, entry.ino))),
                // It went between two reads, or has another name at the same place.
                _ => {}
            }
            let row = self.reader().listing(dir, cookie - 1)?.next().transpose()?;
            match row.filter(|row| row.cookie == Some(cookie)) {
                Some(row) => text = row.name,
                None => return Ok(None),
            }
        }
        // A place that has a name which is not there is damage, which the check finds.
        Ok(None)
    }
}

fn listed(ino: Ino, found: Result<Option<FileAttr>, FsError>) -> Result<Listed, FsError> {
    match found {
        Err(error) if error.is_damage() => {
            tracing::error!(%ino, error = %with_causes(&error), "listed without attributes");
            Ok(Listed::Unreadable)
        }
        found => Ok(found?.map_or(Listed::Gone, Listed::Found)),
    }
}

/// What is known of an inode that is listed.
enum Listed {
    Found(FileAttr),
    Unreadable,
    Gone,
}
