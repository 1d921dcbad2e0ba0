//! Carrying out repairs, each on the filesystem as those before it left it.

use std::collections::HashSet;

use tier_log::Operation;
use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, FileAttr, FileKind, FileName, Ino, Link, Xid,
    to_usize,
};

use crate::chunk_map::{MapWindow, delete_chunks};
use crate::counters::Counters;
use crate::db::Changes;
use crate::fs::Kvfs;
use crate::inode::{NewNode, delete_link, new_attr, put_changed, put_link, put_link_with_cookie};
use crate::repair::Repair;
use crate::schema::{self, Table};
use crate::view::resident_bytes;
use crate::{FsError, value};

/// Puts one thing right at a time.
pub(crate) struct Mender<'a>(pub(crate) &'a Kvfs);

impl Mender<'_> {
    /// Whether it is right now. A repair that meets other damage is none.
    pub(crate) fn carry_out(&self, repair: Repair) -> Result<bool, FsError> {
        let done = match repair {
            Repair::Directory { ino } => self.revive_directory(ino),
            Repair::Unowned { table, ino } => self.drop_unowned(table, ino),
            Repair::DropEntry { dir, name } => self.drop_dead_entry(dir, &name),
            Repair::RootName { link } => self.drop_root_name(&link),
            Repair::MissingEntry { ino, link } => self.settle_link(ino, link),
            Repair::MissingLink { ino, link } => self.settle_entry(ino, link),
            Repair::Relist { dir, name } => self.relist(dir, &name),
            Repair::SweepCookies { dir } => self.sweep_cookies(dir),
            Repair::Home { ino } => self.bring_home(ino),
            Repair::NoOrphan { ino } => self.change(move |changes| {
                changes.delete(Table::Orphans, &schema::ino(ino));
            }),
            Repair::LinkCount { ino, n_links } => self.set_link_count(ino, n_links),
            Repair::DropChunk { ino, chunk } => self.change(move |changes| {
                changes.delete(Table::Chunks, &schema::chunk(ino, chunk));
            }),
            Repair::MakeCold { ino, chunks, data_xid } => self.make_cold(ino, chunks, data_xid),
            Repair::Resident { ino } => self.sum_resident(ino),
            Repair::Warm { ino } => self.change(move |changes| {
                changes.put(Table::Warm, &schema::ino(ino), Vec::new());
            }),
            Repair::Totals { counted } => self.set_totals(counted),
        };
        match done {
            Err(FsError::Damaged { .. } | FsError::NotFound | FsError::NotDirectory) => Ok(false),
            done => done,
        }
    }

    /// Changes rows that no snapshot persists, and so no operation describes.
    fn change(&self, change: impl FnOnce(&mut Changes) + Send + 'static) -> Result<bool, FsError> {
        self.0.committer.commit(0, move |draft| change(&mut draft.changes))?;
        Ok(true)
    }

    /// A directory whose attributes are lost gets new ones, of root alone. Its links are counted later.
    fn revive_directory(&self, ino: Ino) -> Result<bool, FsError> {
        if matches!(self.0.live().find_attr(ino), Ok(Some(_))) {
            return Ok(true);
        }
        let kind = FileKind::Directory;
        let attr = new_attr(&NewNode { kind, mode: 0o700, uid: 0, gid: 0, inherit: None });
        self.0.committer.commit(1, move |draft| {
            let time = draft.time;
            let (modified, accessed, created) = (time, time, time);
            let mut attr = FileAttr { ino, modified, accessed, created, ..attr };
            draft.operations.push(Operation::SetAttr { ino });
            put_changed(draft, &mut attr);
        })?;
        Ok(true)
    }

    /// The root is where every way ends.
    fn drop_root_name(&self, link: &Link) -> Result<bool, FsError> {
        if self.readable_entry(link)? == Some(Ino::ROOT) {
            self.drop_entry(link.parent, link.name.as_bytes())?;
        }
        let (ino, link) = (Ino::ROOT, link.clone());
        let mut attr = self.0.live().attr(ino)?;
        self.0.committer.commit(1, move |draft| {
            draft.changes.delete(Table::Links, &schema::link(ino, link.parent, &link.name));
            draft.operations.push(Operation::Unlink { ino, link });
            put_changed(draft, &mut attr);
        })?;
        Ok(true)
    }

    /// Takes away what was noted of an inode that does not exist, unless there is a name or data
    /// of it: then its attributes may be all that is lost.
    fn drop_unowned(&self, table: Table, ino: Ino) -> Result<bool, FsError> {
        let (from, until) = (schema::ino(ino), schema::ino(ino.next()));
        if self.is_there(ino)? {
            return Ok(true);
        }
        for content in [Table::Links, Table::Entries, Table::Map, Table::Chunks] {
            if self.0.live().0.scan(content, &from, &until)?.next().is_some() {
                return Ok(false);
            }
        }
        self.change(move |changes| changes.delete_range(table, &from, &until))
    }

    /// Takes away an entry that cannot be read, or of an inode that does not exist.
    fn drop_dead_entry(&self, dir: Ino, name: &[u8]) -> Result<bool, FsError> {
        let entry = self.0.live().0.get(Table::Entries, &schema::named(dir, name))?;
        let of = entry.and_then(|bytes| value::entry_from_bytes(&bytes)).map(|(ino, _)| ino);
        let is_alive = match of {
            Some(ino) => self.is_there(ino)?,
            None => false,
        };
        if is_alive { Ok(true) } else { self.drop_entry(dir, name) }
    }

    fn drop_entry(&self, dir: Ino, name: &[u8]) -> Result<bool, FsError> {
        let key = schema::named(dir, name);
        let bytes = self.0.live().0.get(Table::Entries, &key)?.unwrap_or_default();
        let cookie = value::entry_from_bytes(&bytes).map(|(_, cookie)| cookie);
        self.change(move |changes| {
            changes.delete(Table::Entries, &key);
            if let Some(cookie) = cookie {
                changes.delete(Table::Cookies, &schema::pair(dir.get(), cookie));
            }
        })
    }

    /// The name that an inode says it has comes into its directory, unless another inode says the
    /// same with more right.
    fn settle_link(&self, ino: Ino, link: Link) -> Result<bool, FsError> {
        let mut attr = self.0.live().attr(ino)?;
        let entry = self.readable_entry(&link)?;
        if entry == Some(ino) {
            return Ok(true);
        }
        let second = matches!(attr.kind, FileKind::Directory) && self.has_entry(ino)?;
        let taken = match entry {
            Some(other) => {
                let row = schema::link(other, link.parent, &link.name);
                self.is_there(other)? && self.0.live().0.get(Table::Links, &row)?.is_some()
            }
            None => false,
        };
        // A directory that is lost may come back: until then this is the last word on the name.
        let Some(parent) = self.0.live().find_attr(link.parent)? else { return Ok(false) };
        let fits = matches!(parent.kind, FileKind::Directory);
        self.0.committer.commit(1, move |draft| {
            if fits && !second && !taken {
                put_link(draft, ino, &link);
                draft.operations.push(Operation::Link { ino, link });
            } else {
                let row = schema::link(ino, link.parent, &link.name);
                draft.changes.delete(Table::Links, &row);
                // It gets a name, and must not end before.
                draft.changes.delete(Table::Orphans, &schema::ino(ino));
                draft.operations.push(Operation::Unlink { ino, link });
            }
            put_changed(draft, &mut attr);
        })?;
        Ok(true)
    }

    /// The name by which a directory knows an inode becomes one of the inode's if its link count
    /// says that it has one more than it knows. If not, the entry is wrong about whose name it is.
    fn settle_entry(&self, ino: Ino, link: Link) -> Result<bool, FsError> {
        let Some(mut attr) = self.0.live().find_attr(ino)? else { return Ok(false) };
        if self.readable_entry(&link)? != Some(ino) {
            return Ok(true);
        }
        let (n_known, n_links) = if matches!(attr.kind, FileKind::Directory) {
            (usize::from(self.has_entry(ino)?), 1)
        } else {
            (self.0.live().links(ino)?.len(), to_usize(u64::from(attr.nlink)))
        };
        if n_known >= n_links || ino == Ino::ROOT {
            return self.drop_entry(link.parent, link.name.as_bytes());
        }
        self.0.committer.commit(1, move |draft| {
            let row = schema::link(ino, link.parent, &link.name);
            draft.changes.put(Table::Links, &row, Vec::new());
            draft.operations.push(Operation::Link { ino, link });
            put_changed(draft, &mut attr);
        })?;
        Ok(true)
    }

    /// The inode that a directory knows by a name; none if the entry cannot be read.
    fn readable_entry(&self, link: &Link) -> Result<Option<Ino>, FsError> {
        match self.0.live().entry(link.parent, &link.name) {
            Err(FsError::Damaged { .. }) => Ok(None),
            entry => Ok(entry?.map(|(ino, _)| ino)),
        }
    }

    /// Whether one of an inode's names is in its directory.
    fn has_entry(&self, ino: Ino) -> Result<bool, FsError> {
        for link in self.0.live().links(ino)? {
            if self.readable_entry(&link)? == Some(ino) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An entry keeps its cookie if that is free, and else gets a new one.
    fn relist(&self, dir: Ino, name: &FileName) -> Result<bool, FsError> {
        let Some((ino, cookie)) = self.0.live().entry(dir, name)? else { return Ok(true) };
        let mut attr = self.0.live().attr(dir)?;
        let link = Link { parent: dir, name: name.clone() };
        let place = schema::pair(dir.get(), cookie);
        if self.0.live().0.get(Table::Cookies, &place)?.is_none() {
            let name = name.as_bytes().to_vec();
            return self.change(move |changes| changes.put(Table::Cookies, &place, name));
        }
        self.0.committer.commit(1, move |draft| {
            let cookie = draft.xid.get() + schema::COOKIE_PARENT;
            put_link_with_cookie(draft, ino, &link, cookie);
            draft.operations.push(Operation::SetAttr { ino: dir });
            put_changed(draft, &mut attr);
        })?;
        Ok(true)
    }

    fn sweep_cookies(&self, dir: Ino) -> Result<bool, FsError> {
        let (from, until) = (schema::ino(dir), schema::ino(dir.next()));
        let mut stale = Vec::new();
        for pair in self.0.live().0.scan(Table::Cookies, &from, &until)? {
            let (key, name) = pair?;
            let cookie = schema::parse_pair(&key).map(|(_, cookie)| cookie);
            let listed = match FileName::new(&name) {
                Some(name) => self.0.live().entry(dir, &name)?.map(|(_, cookie)| cookie),
                None => None,
            };
            if cookie.is_none() || listed != cookie {
                stale.push(key);
            }
        }
        self.change(move |changes| {
            for key in stale {
                changes.delete(Table::Cookies, &key);
            }
        })
    }

    /// Brings the top of what cannot be reached into `/lost+found`; what lies below comes along.
    fn bring_home(&self, ino: Ino) -> Result<bool, FsError> {
        let Some(top) = self.unreachable_top(ino)? else { return Ok(true) };
        let links = self.0.live().links(top)?;
        if links.len() > 1 {
            return Ok(false);
        }
        let home = self.lost_and_found()?;
        let Some(name) = self.free_name(home, &format!("#{top}"))? else { return Ok(false) };
        let link = Link { parent: home, name };
        let mut old = Vec::new();
        for link in links {
            let entry = self.0.live().entry(link.parent, &link.name)?;
            let cookie = entry.filter(|(of, _)| *of == top).map(|(_, cookie)| cookie);
            old.push((link, cookie));
        }
        let mut attr = self.0.live().attr(top)?;
        self.0.committer.commit(1 + tier_types::to_u64(old.len()), move |draft| {
            for (link, cookie) in old {
                match cookie {
                    Some(cookie) => delete_link(draft, top, &link, cookie),
                    None => {
                        let row = schema::link(top, link.parent, &link.name);
                        draft.changes.delete(Table::Links, &row);
                    }
                }
                draft.operations.push(Operation::Unlink { ino: top, link });
            }
            put_link(draft, top, &link);
            draft.operations.push(Operation::Link { ino: top, link });
            put_changed(draft, &mut attr);
        })?;
        Ok(true)
    }

    /// The last inode on the way up that does not lead to the root; none if it does.
    fn unreachable_top(&self, ino: Ino) -> Result<Option<Ino>, FsError> {
        let (mut at, mut seen) = (ino, HashSet::new());
        while at != Ino::ROOT {
            let link = self.0.live().first_link(at)?;
            let parent = link.map(|link| link.parent).filter(|_| seen.insert(at));
            match parent {
                Some(parent) if self.is_there(parent)? => at = parent,
                Some(_) | None => return Ok(Some(at)),
            }
        }
        Ok(None)
    }

    /// Readable or not.
    fn is_there(&self, ino: Ino) -> Result<bool, FsError> {
        Ok(self.0.live().0.get(Table::Inodes, &schema::ino(ino))?.is_some())
    }

    fn lost_and_found(&self) -> Result<Ino, FsError> {
        for name in numbered("lost+found") {
            let Some((ino, _)) = self.0.live().entry(Ino::ROOT, &name)? else {
                let (kind, mode) = (FileKind::Directory, 0o700);
                let node = NewNode { kind, mode, uid: 0, gid: 0, inherit: None };
                return Ok(self.0.create_node(Ino::ROOT, &name, &node)?.ino);
            };
            if matches!(self.0.live().find_attr(ino), Ok(Some(attr)) if attr.kind == FileKind::Directory)
            {
                return Ok(ino);
            }
        }
        Err(FsError::NotFound)
    }

    fn free_name(&self, dir: Ino, wanted: &str) -> Result<Option<FileName>, FsError> {
        for name in numbered(wanted) {
            if self.0.live().entry(dir, &name)?.is_none() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn set_link_count(&self, ino: Ino, n_links: u64) -> Result<bool, FsError> {
        let mut attr = self.0.live().attr(ino)?;
        let Ok(nlink) = u32::try_from(n_links) else { return Ok(false) };
        attr.nlink = nlink;
        self.0.committer.commit(1, move |draft| {
            draft.operations.push(Operation::SetAttr { ino });
            put_changed(draft, &mut attr);
        })?;
        Ok(true)
    }

    fn make_cold(&self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<bool, FsError> {
        let attr = self.0.live().attr(ino)?;
        let window = MapWindow::load(self.0.live(), ino, chunks, self.0.size_of(&attr))?;
        if window.runs.iter().any(|run| run.data_xid != data_xid) {
            return Ok(false);
        }
        let cold = |run: &ChunkRun| ChunkRun { state: ChunkState::Cold, ..*run };
        let new: Vec<_> = window.runs.iter().map(cold).collect();
        self.0.committer.commit(0, move |draft| {
            delete_chunks(ino, chunks, draft);
            window.replace(&new, attr.size_bytes, draft);
        })?;
        self.0.residency_changed(ino);
        self.sum_resident(ino)
    }

    fn sum_resident(&self, ino: Ino) -> Result<bool, FsError> {
        let attr = self.0.live().attr(ino)?;
        let mut bytes = 0;
        for run in self.0.live().all_runs(ino, ChunkNo::new(0)) {
            bytes += resident_bytes(&[run?], self.0.chunk_bytes, attr.size_bytes);
        }
        let key = schema::ino(ino);
        self.change(move |changes| match bytes {
            0 => changes.delete(Table::Resident, &key),
            _ => changes.put(Table::Resident, &key, bytes.to_le_bytes().to_vec()),
        })
    }

    fn set_totals(&self, counted: Counters) -> Result<bool, FsError> {
        let kept = self.0.committer.counters();
        self.0.committer.commit(0, move |draft| draft.counters.add(&counted.minus(&kept)))?;
        Ok(true)
    }
}

/// A name, and others in its place.
fn numbered(name: &str) -> impl Iterator<Item = FileName> {
    let others = (1..100).map(move |number| format!("{name}.{number}"));
    let all = std::iter::once(name.to_string()).chain(others);
    all.filter_map(|name| FileName::new(name.as_bytes()))
}
