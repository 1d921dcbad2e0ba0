//! Listing directories.

use tier_types::{FileAttr, FileName, Ino};

use crate::FsError;
use crate::fs::Kvfs;
use crate::schema::{self, COOKIE_PARENT, COOKIE_SELF, Table};

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

impl Kvfs {
    /// The entries after a cookie (0 for the first), at most `n_max`.
    pub fn readdir(&self, dir: Ino, after: u64, n_max: usize) -> Result<Vec<DirEntry>, FsError> {
        let attr = self.directory(dir)?;
        let mut entries = Vec::new();
        if after < COOKIE_SELF && n_max > 0 {
            let name = b".".to_vec();
            entries.push(DirEntry { name, attr: attr.clone(), cookie: COOKIE_SELF });
        }
        if after < COOKIE_PARENT && entries.len() < n_max {
            let parent = self.live().first_link(dir)?.map_or(dir, |link| link.parent);
            let attr = self.live().find_attr(parent)?.unwrap_or(attr);
            entries.push(DirEntry { name: b"..".to_vec(), attr, cookie: COOKIE_PARENT });
        }
        let from = schema::pair(dir.get(), after.max(COOKIE_PARENT) + 1);
        let until = schema::ino(dir.next());
        for pair in self.live().0.scan(Table::Cookies, &from, &until)? {
            if entries.len() >= n_max {
                break;
            }
            let (key, name) = pair?;
            let damaged = FsError::Damaged { ino: dir, problem: "a cookie cannot be read" };
            let (_, cookie) = schema::parse_pair(&key).ok_or(damaged)?;
            // An entry may go while we look.
            let Some(file_name) = FileName::new(&name) else { continue };
            let Some((ino, _)) = self.live().entry(dir, &file_name)? else { continue };
            let Some(attr) = self.live().find_attr(ino)? else { continue };
            entries.push(DirEntry { name: name.into_vec(), attr, cookie });
        }
        Ok(entries)
    }
}
