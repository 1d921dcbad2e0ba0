//! The metadata of an inode in a table of contents, in its wire form.

use serde::{Deserialize, Serialize};
use tier_types::{
    DeviceNumber, FileAttr, FileKind, FileName, Ino, InodeState, Link, Timestamp, Xattr, Xid,
};

use crate::format::tarball::toc::piece::{less, more};

#[derive(Serialize, Deserialize)]
enum WireKind<'a> {
    // The order is part of the format: postcard writes the number of a variant.
    Regular,
    Directory,
    Symlink(&'a [u8]),
    Fifo,
    Socket,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct WireInode<'a> {
    #[serde(borrow)]
    kind: WireKind<'a>,
    mode: u16,
    uid: u32,
    gid: u32,
    nlink: u32,
    size_bytes: u64,
    modified: WireTime,
    /// Less the time of modification.
    accessed: WireTime,
    /// Less the time of modification.
    changed: WireTime,
    /// Less the time of change.
    created: WireTime,
    /// Less the inode number.
    xid: i64,
    #[serde(borrow)]
    links: Vec<WireLink<'a>>,
    #[serde(borrow)]
    xattrs: Vec<WireXattr<'a>>,
}

/// Seconds and nanoseconds, less those of another time.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct WireTime {
    seconds: i64,
    nanos: i32,
}

impl WireTime {
    fn of(time: Timestamp, before: Timestamp) -> Self {
        let seconds = time.seconds.wrapping_sub(before.seconds);
        // Less than a billion apart, so that 31 bits and a sign hold the difference.
        Self { seconds, nanos: time.nanos.wrapping_sub(before.nanos).cast_signed() }
    }

    fn after(self, before: Timestamp) -> Option<Timestamp> {
        // Seconds may wrap, and mean something all the same; nanoseconds have a limit.
        let nanos = before.nanos.wrapping_add(self.nanos.cast_unsigned());
        let seconds = before.seconds.wrapping_add(self.seconds);
        (nanos < 1_000_000_000).then_some(Timestamp { seconds, nanos })
    }
}

#[derive(Serialize, Deserialize)]
struct WireLink<'a> {
    parent: u64,
    #[serde(borrow)]
    name: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct WireXattr<'a> {
    #[serde(borrow)]
    name: &'a [u8],
    #[serde(borrow)]
    value: &'a [u8],
}

impl<'a> From<&'a InodeState> for WireInode<'a> {
    fn from(inode: &'a InodeState) -> Self {
        let attr = &inode.attr;
        let kind = match &attr.kind {
            FileKind::Regular => WireKind::Regular,
            FileKind::Directory => WireKind::Directory,
            FileKind::Symlink(target) => WireKind::Symlink(target),
            FileKind::Fifo => WireKind::Fifo,
            FileKind::Socket => WireKind::Socket,
            FileKind::CharDevice(d) => WireKind::CharDevice(d.major, d.minor),
            FileKind::BlockDevice(d) => WireKind::BlockDevice(d.major, d.minor),
        };
        let link =
            |link: &'a Link| WireLink { parent: link.parent.get(), name: link.name.as_bytes() };
        let xattr = |xattr: &'a Xattr| WireXattr { name: &xattr.name, value: &xattr.value };
        Self {
            kind,
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            size_bytes: attr.size_bytes,
            modified: WireTime::of(attr.modified, Timestamp::default()),
            accessed: WireTime::of(attr.accessed, attr.modified),
            changed: WireTime::of(attr.changed, attr.modified),
            created: WireTime::of(attr.created, attr.changed),
            xid: less(attr.xid.get(), attr.ino),
            links: inode.links.iter().map(link).collect(),
            xattrs: inode.xattrs.iter().map(xattr).collect(),
        }
    }
}

impl WireInode<'_> {
    /// The metadata xid, without the cost of the rest.
    pub(super) fn xid(&self, ino: Ino) -> Xid {
        Xid::new(more(self.xid, ino))
    }

    /// Whether [`into_inode`](Self::into_inode) can make something of it.
    pub(super) fn is_sound(&self) -> bool {
        // Times and names are all that can be refused: every other field may have any value.
        let changed = self.modified.after(Timestamp::default()).and_then(|modified| {
            self.accessed.after(modified)?;
            self.changed.after(modified)
        });
        changed.and_then(|changed| self.created.after(changed)).is_some()
            && self.links.iter().all(|link| FileName::is_name(link.name))
    }

    pub(crate) fn into_inode(self, ino: Ino) -> Option<InodeState> {
        let device = |major, minor| DeviceNumber { major, minor };
        let kind = match self.kind {
            WireKind::Regular => FileKind::Regular,
            WireKind::Directory => FileKind::Directory,
            WireKind::Symlink(target) => FileKind::Symlink(target.to_vec()),
            WireKind::Fifo => FileKind::Fifo,
            WireKind::Socket => FileKind::Socket,
            WireKind::CharDevice(major, minor) => FileKind::CharDevice(device(major, minor)),
            WireKind::BlockDevice(major, minor) => FileKind::BlockDevice(device(major, minor)),
        };
        // Most files were changed when they were modified, and made when they were changed.
        let modified = self.modified.after(Timestamp::default())?;
        let changed = self.changed.after(modified)?;
        let attr = FileAttr {
            ino,
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size_bytes: self.size_bytes,
            accessed: self.accessed.after(modified)?,
            modified,
            changed,
            created: self.created.after(changed)?,
            xid: Xid::new(more(self.xid, ino)),
        };
        let link = |link: WireLink<'_>| {
            Some(Link { parent: Ino::new(link.parent), name: FileName::new(link.name)? })
        };
        let links = self.links.into_iter().map(link).collect::<Option<_>>()?;
        let xattr =
            |xattr: WireXattr<'_>| Xattr { name: xattr.name.to_vec(), value: xattr.value.to_vec() };
        let xattrs = self.xattrs.into_iter().map(xattr).collect();
        Some(InodeState { attr, links, xattrs })
    }
}
