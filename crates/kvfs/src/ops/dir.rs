//! Listings of directories.
//!
//! A listing goes by cookies and not by names or positions: each entry has a place that no other
//! entry of the directory ever had or will have, the transaction that made it. So a listing that is
//! read in pages shows every entry that was there all the time exactly once, whatever comes and
//! goes between two pages, and after a restart as well.

use tier_types::{FileAttr, FileName, Ino};

use crate::FsError;
use crate::core::Core;
use crate::error::Damage;
use crate::store::{COOKIE_PARENT, COOKIE_SELF, Entry};

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Its name, `.` and `..` included.
    pub name: Vec<u8>,
    /// Its inode.
    pub attr: FileAttr,
    /// Where a listing goes on after it: the same as long as the entry exists, and no other entry
    /// of the directory ever has it.
    pub cookie: u64,
}

impl Core {
    /// The entries after a cookie (0 for the first), at most `n_max`.
    pub fn readdir(&self, dir: Ino, after: u64, n_max: usize) -> Result<Vec<DirEntry>, FsError> {
        let attr = self.directory(dir)?;
        let mut entries = Vec::new();
        if after < COOKIE_SELF && n_max > 0 {
            let name = b".".to_vec();
            entries.push(DirEntry { name, attr: attr.clone(), cookie: COOKIE_SELF });
        }
        if after < COOKIE_PARENT && entries.len() < n_max {
            let parent = self.reader().first_link(dir)?.map_or(dir, |link| link.parent);
            // A parent that is lost is damage, which the check finds; the listing goes on.
            let of_parent = self.reader().find_attr(parent)?.unwrap_or(attr);
            entries.push(DirEntry { name: b"..".to_vec(), attr: of_parent, cookie: COOKIE_PARENT });
        }
        for row in self.reader().listing(dir, after.max(COOKIE_PARENT))? {
            if entries.len() >= n_max {
                break;
            }
            let row = row?;
            let cookie = row.cookie.ok_or_else(|| FsError::damaged(dir, Damage::Cookie))?;
            // An entry may go between two reads.
            let Some(name) = FileName::new(&row.name) else { continue };
            let Some(Entry { ino, .. }) = self.reader().entry(dir, &name)? else { continue };
            let Some(attr) = self.reader().find_attr(ino)? else { continue };
            entries.push(DirEntry { name: row.name, attr, cookie });
        }
        Ok(entries)
    }
}
