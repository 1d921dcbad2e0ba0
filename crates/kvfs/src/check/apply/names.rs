//! Repairs of names: of what inodes say, of what directories say, and of listings.

use tier_log::Operation;
use tier_types::{FileKind, FileName, Ino, Link, to_usize};

use super::Apply;
use crate::FsError;
use crate::store::Entry;
use crate::tx::ListKind;

impl Apply<'_> {
    /// The root is where every way ends: it has no name.
    pub(super) fn delete_root_name(&self, link: &Link) -> Result<bool, FsError> {
        if self.entry_owner(link)? == Some(Ino::ROOT) {
            self.delete_entry(link.parent, link.name.as_bytes().to_vec())?;
        }
        let (ino, link) = (Ino::ROOT, link.clone());
        let mut attr = self.core.reader().attr(ino)?;
        self.core.committer.commit(self.permit()?, 1, move |draft| {
            draft.delete_link(ino, &link);
            draft.log(Operation::Unlink { ino, link });
            draft.put_changed(&mut attr);
        })?;
        Ok(true)
    }

    /// Deletes an entry that cannot be read, or of an inode that does not exist.
    pub(super) fn delete_dead_entry(&self, dir: Ino, name: Vec<u8>) -> Result<bool, FsError> {
        let entry = self.core.reader().entry_row(dir, &name)?.readable();
        let is_alive = match entry {
            Some(Entry { ino, .. }) => self.core.reader().has_inode(ino)?,
            None => false,
        };
        if is_alive { Ok(true) } else { self.delete_entry(dir, name) }
    }

    fn delete_entry(&self, dir: Ino, name: Vec<u8>) -> Result<bool, FsError> {
        let entry = self.core.reader().entry_row(dir, &name)?.readable();
        let cookie = entry.map(|entry| entry.cookie);
        self.write(move |draft| draft.delete_entry(dir, &name, cookie))
    }

    /// The name that an inode has comes into its directory, unless another inode has the same with
    /// more right.
    pub(super) fn reconcile_link(&self, ino: Ino, link: Link) -> Result<bool, FsError> {
        let mut attr = self.core.reader().attr(ino)?;
        let owner = self.entry_owner(&link)?;
        if owner == Some(ino) {
            return Ok(true);
        }
        let is_second = matches!(attr.kind, FileKind::Directory) && self.has_entry(ino)?;
        let is_taken = match owner {
            Some(other) => {
                self.core.reader().has_inode(other)? && self.core.reader().has_link(other, &link)?
            }
            None => false,
        };
        // A directory that is lost may come back: until then this is the last word on the name.
        let Some(parent) = self.core.reader().find_attr(link.parent)? else { return Ok(false) };
        let fits = matches!(parent.kind, FileKind::Directory);
        self.core.committer.commit(self.permit()?, 1, move |draft| {
            if fits && !is_second && !is_taken {
                draft.add_name(ino, &link);
                draft.log(Operation::Link { ino, link });
            } else {
                draft.delete_link(ino, &link);
                // It gets a name, and must not be deleted before.
                draft.unlist(ListKind::Orphans, ino);
                draft.log(Operation::Unlink { ino, link });
            }
            draft.put_changed(&mut attr);
        })?;
        Ok(true)
    }

    /// The name by which a directory knows an inode becomes one of the inode's if its link count
    /// says that it has one more than it knows. If not, the entry is wrong about whose name it is.
    pub(super) fn reconcile_entry(&self, ino: Ino, link: Link) -> Result<bool, FsError> {
        let Some(mut attr) = self.core.reader().find_attr(ino)? else { return Ok(false) };
        if self.entry_owner(&link)? != Some(ino) {
            return Ok(true);
        }
        let (n_known, n_links) = if matches!(attr.kind, FileKind::Directory) {
            (usize::from(self.has_entry(ino)?), 1)
        } else {
            (self.core.reader().links(ino)?.len(), to_usize(u64::from(attr.nlink)))
        };
        // The inode has all the names that it counts: the entry stands for none of them.
        if n_known >= n_links || ino == Ino::ROOT {
            return self.delete_entry(link.parent, link.name.as_bytes().to_vec());
        }
        self.core.committer.commit(self.permit()?, 1, move |draft| {
            draft.put_link(ino, &link);
            draft.log(Operation::Link { ino, link });
            draft.put_changed(&mut attr);
        })?;
        Ok(true)
    }

    /// An entry keeps its place in the listing if that is free, and else gets a new one.
    pub(super) fn list_entry(&self, dir: Ino, name: &FileName) -> Result<bool, FsError> {
        let Some(Entry { ino, cookie }) = self.core.reader().entry(dir, name)? else {
            return Ok(true);
        };
        let mut attr = self.core.reader().attr(dir)?;
        let link = Link { parent: dir, name: name.clone() };
        if self.core.reader().listed_name(dir, cookie)?.is_none() {
            return self.write(move |draft| draft.list_name(dir, link.name.as_bytes(), cookie));
        }
        self.core.committer.commit(self.permit()?, 1, move |draft| {
            draft.add_name(ino, &link);
            draft.log(Operation::SetAttr { ino: dir });
            draft.put_changed(&mut attr);
        })?;
        Ok(true)
    }

    /// Deletes the rows of a listing that do not stand for an entry.
    pub(super) fn sweep_listing(&self, dir: Ino) -> Result<bool, FsError> {
        let mut stale = Vec::new();
        for row in self.core.reader().cookie_rows(dir)? {
            let row = row?;
            let listed = match FileName::new(&row.name) {
                Some(name) => self.core.reader().entry(dir, &name)?.map(|entry| entry.cookie),
                None => None,
            };
            if row.cookie.is_none() || listed != row.cookie {
                stale.push(row.key);
            }
        }
        self.write(move |draft| stale.iter().for_each(|key| draft.delete_cookie_row(key)))
    }

    /// The inode that a directory knows by a name; `None` if the entry cannot be read.
    pub(super) fn entry_owner(&self, link: &Link) -> Result<Option<Ino>, FsError> {
        match self.core.reader().entry_row(link.parent, link.name.as_bytes()) {
            // It lies in a damaged block. A new one is read before what lies there.
            Err(FsError::Unreadable { .. }) => Ok(None),
            row => Ok(row?.readable().map(|entry| entry.ino)),
        }
    }

    /// Whether one of an inode's names is in its directory.
    fn has_entry(&self, ino: Ino) -> Result<bool, FsError> {
        for link in self.core.reader().links(ino)? {
            if self.entry_owner(&link)? == Some(ino) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
