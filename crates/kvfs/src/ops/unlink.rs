//! Taking names away, and the end of inodes.

use tier_log::Operation;
use tier_types::{ChunkRange, FileAttr, FileKind, FileName, Ino, Link};

use crate::FsError;
use crate::chunk_map::{FileSize, MapWindow};
use crate::commit::Draft;
use crate::fs::Kvfs;
use crate::inode::{delete_link, put_changed, touch_directory};
use crate::schema::{self, Table};
use crate::view::View;

/// The greatest number of names.
const LINKS_MAX: u32 = 65_000;

/// What it takes to delete an inode.
pub(crate) struct Ending {
    ino: Ino,
    map: MapWindow,
    xattr_names: Vec<Vec<u8>>,
    pinned: bool,
}

impl Ending {
    pub(crate) fn load(view: View<'_>, ino: Ino, size: FileSize) -> Result<Self, FsError> {
        let map = MapWindow::load(view, ino, ChunkRange::ALL, size)?;
        let xattr_names = view.xattrs(ino)?.into_iter().map(|xattr| xattr.name).collect();
        let pinned = view.0.get(Table::Pins, &schema::ino(ino))?.is_some();
        Ok(Self { ino, map, xattr_names, pinned })
    }

    /// Deletes everything of the inode but its names, and logs its end.
    pub(crate) fn apply(&self, draft: &mut Draft) {
        let ino = self.ino;
        draft.operations.push(Operation::Gone { ino });
        draft.counters.n_inodes -= 1;
        let key = schema::ino(ino);
        for table in [Table::Inodes, Table::Resident, Table::Orphans, Table::Warm] {
            draft.changes.delete(table, &key);
        }
        if self.pinned {
            draft.counters.n_pins -= 1;
            draft.changes.delete(Table::Pins, &key);
        }
        for name in &self.xattr_names {
            draft.changes.delete(Table::Xattrs, &schema::named(ino, name));
        }
        self.map.delete_chunks(ChunkRange::ALL, draft);
        self.map.uncount(draft);
        for run in &self.map.runs {
            draft.changes.delete(Table::Map, &schema::chunk(ino, run.chunks.start()));
        }
    }
}

impl Kvfs {
    /// Gives an inode one more name. One without any becomes permanent by it.
    pub fn link(&self, ino: Ino, dir: Ino, name: &FileName) -> Result<FileAttr, FsError> {
        let _guard = self.locks.lock(&[ino, dir]);
        let mut attr = self.live().attr(ino)?;
        let mut parent = self.linked_directory(dir)?;
        if matches!(attr.kind, FileKind::Directory) {
            return Err(FsError::IsDirectory);
        }
        if attr.nlink >= LINKS_MAX {
            return Err(FsError::TooManyLinks);
        }
        if self.live().entry(dir, name)?.is_some() {
            return Err(FsError::Exists);
        }
        attr.nlink += 1;
        let link = Link { parent: dir, name: name.clone() };
        let mut updated = attr.clone();
        let committed = self.committer.commit(1, move |draft| {
            crate::inode::put_link(draft, ino, &link);
            draft.changes.delete(Table::Orphans, &schema::ino(ino));
            draft.operations.push(Operation::Link { ino, link });
            put_changed(draft, &mut updated);
            touch_directory(draft, &mut parent);
        })?;
        attr.changed = committed.time;
        attr.xid = committed.xid;
        Ok(attr)
    }

    /// Takes a name of something that is not a directory away.
    pub fn unlink(&self, dir: Ino, name: &FileName) -> Result<(), FsError> {
        self.remove_entry(dir, name, false)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, dir: Ino, name: &FileName) -> Result<(), FsError> {
        self.remove_entry(dir, name, true)
    }

    fn remove_entry(&self, dir: Ino, name: &FileName, directory: bool) -> Result<(), FsError> {
        loop {
            let (ino, _) = self.entry_in(dir, name)?;
            let _guard = self.locks.lock(&[dir, ino]);
            // The name may have changed hands before it was locked.
            match self.live().entry(dir, name)? {
                Some((now, cookie)) if now == ino => {
                    return self.remove_locked(dir, name, (ino, cookie), directory);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn entry_in(&self, dir: Ino, name: &FileName) -> Result<(Ino, u64), FsError> {
        match self.live().entry(dir, name)? {
            Some(entry) => Ok(entry),
            None => {
                self.directory(dir)?;
                Err(FsError::NotFound)
            }
        }
    }

    fn remove_locked(
        &self,
        dir: Ino,
        name: &FileName,
        (ino, cookie): (Ino, u64),
        directory: bool,
    ) -> Result<(), FsError> {
        let mut parent = self.directory(dir)?;
        let mut attr = self.live().attr(ino)?;
        match (directory, matches!(attr.kind, FileKind::Directory)) {
            (true, false) => return Err(FsError::NotDirectory),
            (false, true) => return Err(FsError::IsDirectory),
            (true, true) if !self.live().is_empty_dir(ino)? => return Err(FsError::NotEmpty),
            _ => {}
        }
        let ending = self.lose_name(&mut attr)?;
        if directory {
            parent.nlink -= 1;
        }
        let link = Link { parent: dir, name: name.clone() };
        let n_operations = 1 + u64::from(matches!(ending, Some(Fate::Ends(_))));
        self.committer.commit(n_operations, move |draft| {
            delete_link(draft, ino, &link, cookie);
            draft.operations.push(Operation::Unlink { ino, link });
            touch_directory(draft, &mut parent);
            settle(draft, &mut attr, ending);
        })?;
        Ok(())
    }

    /// Takes one name off the count and says what becomes of the inode.
    pub(crate) fn lose_name(&self, attr: &mut FileAttr) -> Result<Option<Fate>, FsError> {
        let directory = matches!(attr.kind, FileKind::Directory);
        attr.nlink = if directory { 0 } else { attr.nlink.saturating_sub(1) };
        if attr.nlink > 0 {
            return Ok(None);
        }
        if self.is_open(attr.ino) {
            return Ok(Some(Fate::Orphan));
        }
        Ok(Some(Fate::Ends(Ending::load(self.live(), attr.ino, self.size_of(attr))?)))
    }

    /// Ends an orphan. Its lock is held.
    pub(crate) fn end_inode(&self, ino: Ino) -> Result<(), FsError> {
        let attr = self.live().attr(ino)?;
        let ending = Ending::load(self.live(), ino, self.size_of(&attr))?;
        self.committer.commit(1, move |draft| ending.apply(draft))?;
        Ok(())
    }

    /// Ends the orphans that a crash left, or a restore.
    pub(crate) fn remove_orphans(&self) -> Result<(), FsError> {
        let mut orphans = Vec::new();
        for pair in self.live().0.scan(Table::Orphans, &[], &[0xff; 9])? {
            orphans.extend(schema::take_number(&pair?.0).map(|(ino, _)| Ino::new(ino)));
        }
        for ino in orphans {
            match self.end_orphan(ino) {
                // The check finds it; the others go.
                Err(FsError::Damaged { .. }) => {}
                ended => ended?,
            }
        }
        Ok(())
    }

    /// Ends an inode that is listed as an orphan, if it is one: what has a name, or is counted as
    /// having one, is none, and the check will tell.
    pub(crate) fn end_orphan(&self, ino: Ino) -> Result<(), FsError> {
        let Some(attr) = self.live().find_attr(ino)? else { return Ok(()) };
        let is_orphan = ino != Ino::ROOT && attr.nlink == 0;
        if is_orphan && self.live().first_link(ino)?.is_none() {
            self.end_inode(ino)?;
        }
        Ok(())
    }
}

/// What becomes of an inode that lost its last name.
pub(crate) enum Fate {
    /// Somebody holds it open.
    Orphan,
    Ends(Ending),
}

/// Writes an inode that lost a name.
pub(crate) fn settle(draft: &mut Draft, attr: &mut FileAttr, fate: Option<Fate>) {
    match fate {
        None => put_changed(draft, attr),
        Some(Fate::Orphan) => {
            put_changed(draft, attr);
            draft.changes.put(Table::Orphans, &schema::ino(attr.ino), Vec::new());
        }
        Some(Fate::Ends(ending)) => ending.apply(draft),
    }
}
