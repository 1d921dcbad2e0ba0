//! Making inodes, and what is known of them.

use std::sync::Arc;

use tier_log::{NodeKind, Operation};
use tier_types::{FileAttr, FileKind, FileName, Ino, Link, Timestamp};

use crate::commit::Draft;
use crate::fs::{Kvfs, OpenHandle};
use crate::schema::{self, Table};
use crate::{FsError, acl, value};

/// What gives a program privileges; a change of owner or content takes it away.
const CAPABILITY: &[u8] = b"security.capability";

const DAY_SECONDS: i64 = 24 * 60 * 60;

const SET_UID: u16 = 0o4000;
pub(crate) const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o0010;

/// Longest target of a symbolic link, as Linux has it.
const TARGET_BYTES_MAX: usize = 4095;

/// An inode to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewNode {
    /// What it is.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What the directory passes on: nothing, or, with the maker's umask, its group if it is
    /// set-group-id, and its default access control list, in place of which the umask comes if it
    /// has none.
    pub inherit: Option<u16>,
}

/// Attributes to be set; `None` leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission, set-id and sticky bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub accessed: Option<Timestamp>,
    /// Last change of data.
    pub modified: Option<Timestamp>,
    /// Last change of anything; without it, now.
    pub changed: Option<Timestamp>,
    /// Take set-user-id and set-group-id off a file, and its capabilities, as a change of owner
    /// does.
    pub strip: bool,
}

impl Kvfs {
    /// The attributes of an inode.
    pub fn getattr(&self, ino: Ino) -> Result<FileAttr, FsError> {
        self.live().attr(ino)
    }

    /// The attributes of a directory's entry.
    pub fn lookup(&self, dir: Ino, name: &FileName) -> Result<FileAttr, FsError> {
        match self.live().entry(dir, name)? {
            Some((ino, _)) => self.live().attr(ino),
            None => {
                self.directory(dir)?;
                Err(FsError::NotFound)
            }
        }
    }

    /// Makes an inode with a name.
    pub fn create_node(
        &self,
        dir: Ino,
        name: &FileName,
        node: &NewNode,
    ) -> Result<FileAttr, FsError> {
        check_node(node)?;
        self.check_room()?;
        let _guard = self.locks.lock(&[dir]);
        let mut parent = self.linked_directory(dir)?;
        if self.live().entry(dir, name)?.is_some() {
            return Err(FsError::Exists);
        }
        let link = Link { parent: dir, name: name.clone() };
        let (node, xattrs) = self.inherited(&parent, node)?;
        let mut attr = new_attr(&node);
        let template = attr.clone();
        let committed = self.committer.commit(1, move |draft| {
            let ino = Ino::new(draft.xid.get());
            let attr = stamped(template, draft);
            draft.operations.push(create_operation(ino, &node.kind, link.clone()));
            draft.counters.n_inodes += 1;
            draft.changes.put(Table::Inodes, &schema::ino(ino), value::attr_to_bytes(&attr));
            for xattr in xattrs {
                draft.changes.put(Table::Xattrs, &schema::named(ino, &xattr.name), xattr.value);
            }
            put_link(draft, ino, &link);
            if matches!(node.kind, FileKind::Directory) {
                parent.nlink += 1;
            }
            touch_directory(draft, &mut parent);
        })?;
        attr.ino = Ino::new(committed.xid.get());
        Ok(stamp(attr, committed.xid, committed.time))
    }

    /// Makes a regular file without a name, which lives as long as its handle unless it is linked.
    pub fn create_unnamed(
        self: &Arc<Self>,
        node: &NewNode,
    ) -> Result<(FileAttr, OpenHandle), FsError> {
        if !matches!(node.kind, FileKind::Regular) {
            return Err(FsError::Invalid("only a regular file can be without a name"));
        }
        let mut attr = new_attr(node);
        attr.nlink = 0;
        let template = attr.clone();
        let fs = Arc::clone(self);
        let committed = self.committer.commit(1, move |draft| {
            let ino = Ino::new(draft.xid.get());
            let attr = stamped(template, draft);
            draft.operations.push(Operation::Create { ino, link: None });
            draft.counters.n_inodes += 1;
            draft.changes.put(Table::Inodes, &schema::ino(ino), value::attr_to_bytes(&attr));
            draft.changes.put(Table::Orphans, &schema::ino(ino), Vec::new());
            // Counted before anybody can see the inode.
            fs.count_handle(ino);
        })?;
        attr.ino = Ino::new(committed.xid.get());
        let handle = self.counted_handle(attr.ino);
        Ok((stamp(attr, committed.xid, committed.time), handle))
    }

    /// Sets attributes.
    pub fn setattr(&self, ino: Ino, set: &SetAttr) -> Result<FileAttr, FsError> {
        let _guard = self.locks.lock(&[ino]);
        let mut attr = self.live().attr(ino)?;
        let mut acl = None;
        if let Some(mode) = set.mode {
            attr.mode = mode & 0o7777;
            acl = self.acl_after_chmod(&attr)?;
        }
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.accessed = set.accessed.unwrap_or(attr.accessed);
        attr.modified = set.modified.unwrap_or(attr.modified);
        let strips = set.strip && matches!(attr.kind, FileKind::Regular);
        if strips {
            attr.mode = stripped(attr.mode);
        }
        let changed = set.changed;
        let mut updated = attr.clone();
        let committed = self.committer.commit(1, move |draft| {
            draft.operations.push(Operation::SetAttr { ino });
            if let Some(acl) = acl {
                let key = schema::named(ino, acl::ACCESS);
                draft.changes.put(Table::Xattrs, &key, acl.to_bytes());
            }
            if strips {
                draft.changes.delete(Table::Xattrs, &schema::named(ino, CAPABILITY));
            }
            updated.changed = changed.unwrap_or(draft.time);
            put_attr(draft, &mut updated);
        })?;
        attr.changed = changed.unwrap_or(committed.time);
        attr.xid = committed.xid;
        Ok(attr)
    }

    /// Takes set-user-id and set-group-id off a file, and its capabilities, as a write does by
    /// somebody who could not set them.
    pub fn strip_privileges(&self, ino: Ino) -> Result<(), FsError> {
        let attr = self.live().attr(ino)?;
        let capable = self.live().0.get(Table::Xattrs, &schema::named(ino, CAPABILITY))?.is_some();
        if stripped(attr.mode) != attr.mode || capable {
            self.setattr(ino, &SetAttr { strip: true, ..SetAttr::default() })?;
        }
        Ok(())
    }

    /// Notes that something was read, as Linux does by default (`relatime`): if it changed since
    /// the last time that was noted, or that is a day ago.
    pub fn note_access(&self, ino: Ino) -> Result<(), FsError> {
        let now = self.clock.now();
        let is_due = |attr: &FileAttr| {
            attr.accessed <= attr.modified
                || attr.accessed <= attr.changed
                || now.seconds - attr.accessed.seconds >= DAY_SECONDS
        };
        if !is_due(&self.live().attr(ino)?) {
            return Ok(());
        }
        let _guard = self.locks.lock(&[ino]);
        let mut attr = self.live().attr(ino)?;
        if is_due(&attr) {
            attr.accessed = now;
            self.committer.commit(1, move |draft| {
                draft.operations.push(Operation::SetAttr { ino });
                put_attr(draft, &mut attr);
            })?;
        }
        Ok(())
    }

    /// The same for a directory that is to get an entry: one that was removed while somebody holds
    /// it open gets none.
    pub(crate) fn linked_directory(&self, ino: Ino) -> Result<FileAttr, FsError> {
        let attr = self.directory(ino)?;
        if attr.nlink == 0 { Err(FsError::NotFound) } else { Ok(attr) }
    }

    /// A directory's attributes; an error if it is something else.
    pub(crate) fn directory(&self, ino: Ino) -> Result<FileAttr, FsError> {
        let attr = self.live().attr(ino)?;
        match attr.kind {
            FileKind::Directory => Ok(attr),
            FileKind::Regular
            | FileKind::Symlink(_)
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice(_)
            | FileKind::BlockDevice(_) => Err(FsError::NotDirectory),
        }
    }
}

/// Writes an inode that the draft's first operation changed.
pub(crate) fn put_changed(draft: &mut Draft, attr: &mut FileAttr) {
    attr.changed = draft.time;
    put_attr(draft, attr);
}

/// Writes an inode whose times are already right.
pub(crate) fn put_attr(draft: &mut Draft, attr: &mut FileAttr) {
    attr.xid = draft.xid;
    draft.changes.put(Table::Inodes, &schema::ino(attr.ino), value::attr_to_bytes(attr));
}

/// Writes a directory whose entries changed.
pub(crate) fn touch_directory(draft: &mut Draft, attr: &mut FileAttr) {
    attr.modified = draft.time;
    put_changed(draft, attr);
}

/// Adds a name: the entry gets a cookie that no other entry of the directory has had.
pub(crate) fn put_link(draft: &mut Draft, ino: Ino, link: &Link) {
    let cookie = draft.xid.get() + schema::COOKIE_PARENT;
    put_link_with_cookie(draft, ino, link, cookie);
}

pub(crate) fn put_link_with_cookie(draft: &mut Draft, ino: Ino, link: &Link, cookie: u64) {
    let Link { parent, name } = link;
    let entry = value::entry_to_bytes(ino, cookie);
    draft.changes.put(Table::Entries, &schema::named(*parent, name.as_bytes()), entry);
    let cookie = schema::pair(parent.get(), cookie);
    draft.changes.put(Table::Cookies, &cookie, name.as_bytes().to_vec());
    draft.changes.put(Table::Links, &schema::link(ino, *parent, name), Vec::new());
}

/// Takes a name away.
pub(crate) fn delete_link(draft: &mut Draft, ino: Ino, link: &Link, cookie: u64) {
    let Link { parent, name } = link;
    draft.changes.delete(Table::Entries, &schema::named(*parent, name.as_bytes()));
    draft.changes.delete(Table::Cookies, &schema::pair(parent.get(), cookie));
    draft.changes.delete(Table::Links, &schema::link(ino, *parent, name));
}

/// A mode without set-user-id and set-group-id. Without the group's right to execute, the latter
/// is no privilege but a mark for mandatory locks, and stays.
fn stripped(mode: u16) -> u16 {
    let mode = mode & !SET_UID;
    if mode & GROUP_EXECUTE == 0 { mode } else { mode & !SET_GID }
}

pub(crate) fn check_node(node: &NewNode) -> Result<(), FsError> {
    match &node.kind {
        FileKind::Symlink(target) if target.len() > TARGET_BYTES_MAX => {
            Err(FsError::TooLong("the target of a symbolic link"))
        }
        FileKind::Symlink(target) if target.is_empty() || target.contains(&0) => {
            Err(FsError::Invalid("the target of a symbolic link"))
        }
        FileKind::Symlink(_)
        | FileKind::Regular
        | FileKind::Directory
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice(_)
        | FileKind::BlockDevice(_) => Ok(()),
    }
}

pub(crate) fn new_attr(node: &NewNode) -> FileAttr {
    let mut size_bytes = 0;
    if let FileKind::Symlink(target) = &node.kind {
        size_bytes = tier_types::to_u64(target.len());
    }
    let zero = Timestamp::default();
    FileAttr {
        ino: Ino::new(0),
        kind: node.kind.clone(),
        mode: node.mode & 0o7777,
        uid: node.uid,
        gid: node.gid,
        nlink: if matches!(node.kind, FileKind::Directory) { 2 } else { 1 },
        size_bytes,
        accessed: zero,
        modified: zero,
        changed: zero,
        created: zero,
        xid: tier_types::Xid::new(0),
    }
}

/// A new inode's attributes at its commit. Its number is the xid that makes it: never used before,
/// never used again.
fn stamped(attr: FileAttr, draft: &Draft) -> FileAttr {
    let attr = FileAttr { ino: Ino::new(draft.xid.get()), ..attr };
    stamp(attr, draft.xid, draft.time)
}

fn stamp(attr: FileAttr, xid: tier_types::Xid, time: Timestamp) -> FileAttr {
    FileAttr { accessed: time, modified: time, changed: time, created: time, xid, ..attr }
}

pub(crate) fn create_operation(ino: Ino, kind: &FileKind, link: Link) -> Operation {
    let mknod = |link, kind| Operation::Mknod { ino, link, kind };
    match kind {
        FileKind::Regular => Operation::Create { ino, link: Some(link) },
        FileKind::Directory => Operation::Mkdir { ino, link: Some(link) },
        FileKind::Symlink(_) => Operation::Symlink { ino, link },
        FileKind::Fifo => mknod(link, NodeKind::Fifo),
        FileKind::Socket => mknod(link, NodeKind::Socket),
        FileKind::CharDevice(_) => mknod(link, NodeKind::CharDevice),
        FileKind::BlockDevice(_) => mknod(link, NodeKind::BlockDevice),
    }
}
