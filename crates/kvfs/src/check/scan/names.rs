//! Names: the root, the entries of directories, the names of inodes, and the way up.

use std::collections::HashSet;

use tier_types::{FileAttr, FileName, Ino, Link, to_u64};

use super::{Scan, is_directory};
use crate::FsError;
use crate::check::problem::Problem;
use crate::store::Entry;

/// What was read of a directory.
struct Entries {
    /// Directories in it.
    n_dirs: u64,
    /// All of them could be read.
    is_complete: bool,
}

impl Scan<'_> {
    pub(super) fn root(&mut self) -> Result<(), FsError> {
        let has_root = self.reader().has_inode(Ino::ROOT);
        if self.tolerate(has_root)? == Some(false) {
            let can_be_recreated = self.can_be_recreated(Ino::ROOT)?;
            self.find(Ino::ROOT, Problem::RootMissing { can_be_recreated })?;
        }
        let links = self.reader().links(Ino::ROOT);
        if let Some(links) = self.tolerate(links)? {
            for link in links {
                self.find(Ino::ROOT, Problem::RootNamed { link })?;
            }
        }
        Ok(())
    }

    pub(super) fn names(&mut self, attr: &FileAttr) -> Result<(), FsError> {
        let ino = attr.ino;
        let n_links = self.links(ino)?;
        let directory = is_directory(attr);
        let entries =
            if directory { self.entries(ino)? } else { Entries { n_dirs: 0, is_complete: true } };
        let listed = self.reader().is_listed_orphan(ino)?;
        let named = n_links > 0 || ino == Ino::ROOT;
        // What is counted as having a name has lost it.
        let orphan = listed && attr.nlink == 0;
        if named && listed {
            self.find(ino, Problem::NamedOrphan)?;
        }
        if !named && !orphan {
            self.find(ino, Problem::Nameless)?;
        }
        if directory && n_links > 1 {
            self.find(ino, Problem::DirectoryNames)?;
        }
        if directory && named {
            let reaches_root = self.reaches_root(ino);
            // What cannot be read on the way up may lead there.
            if self.tolerate(reaches_root)? == Some(false) {
                self.find(ino, Problem::Unreachable)?;
            }
        }
        let expected = match (directory, named) {
            (true, true) => 2 + entries.n_dirs,
            (true, false) => 0,
            (false, _) => n_links,
        };
        if u64::from(attr.nlink) != expected {
            // What has no name and should have one must not be deleted for the want of it.
            let is_certain = entries.is_complete && (named || orphan);
            self.find(ino, Problem::LinkCount { kept: attr.nlink, expected, is_certain })?;
        }
        Ok(())
    }

    /// The number of names; each must be in its directory.
    fn links(&mut self, ino: Ino) -> Result<u64, FsError> {
        let links = self.reader().links(ino)?;
        let n_links = to_u64(links.len());
        // The root has none: that is found by itself.
        for link in links.into_iter().filter(|_| ino != Ino::ROOT) {
            let entry = match self.reader().entry(link.parent, &link.name) {
                // It is found with its directory, too.
                Err(FsError::Damaged { .. }) => None,
                entry => self.tolerate(entry)?.flatten(),
            };
            if entry.map(|entry| entry.ino) != Some(ino) {
                let dir = link.parent;
                if !matches!(self.reader().find_attr(dir), Ok(Some(_))) {
                    let can_be_recreated = self.can_be_recreated(dir)?;
                    self.find(ino, Problem::DirectoryLost { dir, can_be_recreated })?;
                }
                self.find(ino, Problem::EntryMissing { link })?;
            }
        }
        Ok(n_links)
    }

    fn entries(&mut self, dir: Ino) -> Result<Entries, FsError> {
        let mut entries = Entries { n_dirs: 0, is_complete: true };
        let mut n_entries = 0;
        for row in self.reader().entry_rows(dir)? {
            let Some(row) = self.tolerate(row)? else {
                // The rest is seen from the inodes' side, name by name.
                self.report.n_entries += n_entries;
                return Ok(Entries { is_complete: false, ..entries });
            };
            n_entries += 1;
            let (Some(name), Some(entry)) = (FileName::new(&row.name), row.entry) else {
                self.find(dir, Problem::EntryUnreadable { name: row.name })?;
                continue;
            };
            self.entry(dir, name, entry, &mut entries)?;
        }
        // Entries that are listed at their places and as many places as entries: the two are the
        // same.
        let mut n_listed = 0;
        let mut is_listing_complete = true;
        for row in self.reader().cookie_rows(dir)? {
            is_listing_complete = self.tolerate(row)?.is_some();
            n_listed += 1;
        }
        if is_listing_complete && n_listed != n_entries {
            self.find(dir, Problem::ListingLength { n_listed, n_entries })?;
        }
        self.report.n_entries += n_entries;
        Ok(entries)
    }

    fn entry(
        &mut self,
        dir: Ino,
        name: FileName,
        entry: Entry,
        entries: &mut Entries,
    ) -> Result<(), FsError> {
        let of = entry.ino;
        let link = Link { parent: dir, name: name.clone() };
        let is_link_known = self.reader().has_link(of, &link);
        let is_link_known = self.tolerate(is_link_known)?.unwrap_or(true);
        match self.reader().find_attr(of) {
            // It is found by itself.
            Err(error) if error.is_damage() => entries.is_complete = false,
            Err(error) => return Err(error),
            Ok(None) => {
                // Its attributes may be all that is lost of it.
                let has_data = self.reader().has_data(of);
                let is_dead = !is_link_known && self.tolerate(has_data)? == Some(false);
                self.find(dir, Problem::EntryDead { name: name.clone(), of, is_dead })?;
            }
            Ok(Some(attr)) => entries.n_dirs += u64::from(is_directory(&attr)),
        }
        let listed_name = self.reader().listed_name(dir, entry.cookie);
        let is_listed = self
            .tolerate(listed_name)?
            .map(|listed_name| listed_name.as_deref() == Some(name.as_bytes()));
        if !is_link_known {
            let is_listed = is_listed == Some(true);
            self.find(of, Problem::LinkMissing { link, is_listed })?;
        }
        if is_listed == Some(false) {
            self.find(dir, Problem::EntryUnlisted { name })?;
        }
        Ok(())
    }

    fn reaches_root(&mut self, dir: Ino) -> Result<bool, FsError> {
        let mut way = Vec::new();
        let mut seen = HashSet::new();
        let mut at = dir;
        while !self.rooted.contains(&at) {
            if !seen.insert(at) {
                return Ok(false);
            }
            way.push(at);
            let Some(link) = self.reader().first_link(at)? else { return Ok(false) };
            at = link.parent;
        }
        // Every directory on the way has been looked at with this one.
        self.rooted.extend(way);
        Ok(true)
    }
}
