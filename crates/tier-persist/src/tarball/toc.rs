//! The table of contents: for each member all that an index and a restore need.
//!
//! It is kept in members of its own at the end of the tarball, so that it can be read without the
//! rest; the last of them lists the frames of the others.

use serde::{Deserialize, Serialize};
use tier_index::Entry;
use tier_types::{
    ChunkNo, ChunkRange, DeviceNumber, FileAttr, FileKind, FileName, Ino, InodeState, Link,
    Timestamp, Xattr, Xid,
};

use super::member::Run;

/// Where a piece of data lies: a run of chunks within one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) run: Run,
    pub(crate) frame: u32,
    pub(crate) offset: u32,
    /// Bytes by which the last chunk is short of a whole one.
    pub(crate) short_bytes: u32,
}

/// What one member holds, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TocEntry {
    pub(crate) ino: Ino,
    /// Where the member's header starts.
    pub(crate) frame: u32,
    pub(crate) offset: u32,
    pub(crate) gone: Option<Xid>,
    pub(crate) metadata: Option<InodeState>,
    pub(crate) data: Vec<Piece>,
    pub(crate) holes: Vec<Run>,
}

impl TocEntry {
    /// What the index needs of it.
    pub(crate) fn index_entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let ino = self.ino;
        let gone = self.gone.map(|xid| Entry::Gone { ino, xid });
        let (frame, offset) = (self.frame, self.offset);
        let metadata = self.metadata.as_ref();
        let inode = metadata.map(|inode| Entry::Inode { ino, xid: inode.attr.xid, frame, offset });
        let data = self.data.iter().map(move |piece| Entry::Data {
            ino,
            chunks: piece.run.chunks,
            data_xid: piece.run.data_xid,
            frame: piece.frame,
            offset: piece.offset,
            short_bytes: piece.short_bytes,
        });
        let holes = self.holes.iter().map(move |run| Entry::Hole {
            ino,
            chunks: run.chunks,
            data_xid: run.data_xid,
        });
        gone.into_iter().chain(inode).chain(data).chain(holes)
    }

    /// Serialising plain values into memory has no way to fail.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&WireEntry::from(self)).unwrap_or_default()
    }

    /// The entry at the start of `bytes`, and what follows it.
    pub(crate) fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (wire, rest) = postcard::take_from_bytes::<WireEntry>(bytes).ok()?;
        Some((wire.into_entry()?, rest))
    }
}

/// The frames of the other parts of the table, as the last member lists them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct TocRoot {
    /// For each part: its frame, where its content starts in it, and its length in bytes.
    pub(crate) parts: Vec<(u32, u32, u32)>,
    pub(crate) n_members: u64,
}

impl TocRoot {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

type WireRun = (u64, u64, u64);
type WireTime = (i64, u32);

#[derive(Serialize, Deserialize)]
enum WireKind {
    Regular,
    Directory,
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

#[derive(Serialize, Deserialize)]
struct WireInode {
    kind: WireKind,
    mode: u16,
    uid: u32,
    gid: u32,
    nlink: u32,
    size_bytes: u64,
    accessed: WireTime,
    modified: WireTime,
    changed: WireTime,
    created: WireTime,
    xid: u64,
    links: Vec<(u64, Vec<u8>)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct WireEntry {
    ino: u64,
    frame: u32,
    offset: u32,
    gone: Option<u64>,
    metadata: Option<WireInode>,
    data: Vec<(WireRun, u32, u32, u32)>,
    holes: Vec<WireRun>,
}

fn run_to_wire(run: &Run) -> WireRun {
    (run.chunks.start().get(), run.chunks.len(), run.data_xid.get())
}

fn run_from_wire((start, len, xid): WireRun) -> Option<Run> {
    let end = start.checked_add(len)?;
    let chunks = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end))?;
    Some(Run { chunks, data_xid: Xid::new(xid) })
}

fn time_to_wire(time: Timestamp) -> WireTime {
    (time.seconds, time.nanos)
}

fn time_from_wire((seconds, nanos): WireTime) -> Option<Timestamp> {
    (nanos < 1_000_000_000).then_some(Timestamp { seconds, nanos })
}

impl From<&TocEntry> for WireEntry {
    fn from(entry: &TocEntry) -> Self {
        let piece = |p: &Piece| (run_to_wire(&p.run), p.frame, p.offset, p.short_bytes);
        Self {
            ino: entry.ino.get(),
            frame: entry.frame,
            offset: entry.offset,
            gone: entry.gone.map(Xid::get),
            metadata: entry.metadata.as_ref().map(WireInode::from),
            data: entry.data.iter().map(piece).collect(),
            holes: entry.holes.iter().map(run_to_wire).collect(),
        }
    }
}

impl WireEntry {
    fn into_entry(self) -> Option<TocEntry> {
        let ino = Ino::new(self.ino);
        let piece = |(run, frame, offset, short_bytes)| {
            Some(Piece { run: run_from_wire(run)?, frame, offset, short_bytes })
        };
        let metadata = match self.metadata {
            Some(wire) => Some(wire.into_inode(ino)?),
            None => None,
        };
        Some(TocEntry {
            ino,
            frame: self.frame,
            offset: self.offset,
            gone: self.gone.map(Xid::new),
            metadata,
            data: self.data.into_iter().map(piece).collect::<Option<_>>()?,
            holes: self.holes.into_iter().map(run_from_wire).collect::<Option<_>>()?,
        })
    }
}

impl From<&InodeState> for WireInode {
    fn from(inode: &InodeState) -> Self {
        let attr = &inode.attr;
        let kind = match &attr.kind {
            FileKind::Regular => WireKind::Regular,
            FileKind::Directory => WireKind::Directory,
            FileKind::Symlink(target) => WireKind::Symlink(target.clone()),
            FileKind::Fifo => WireKind::Fifo,
            FileKind::Socket => WireKind::Socket,
            FileKind::CharDevice(d) => WireKind::CharDevice(d.major, d.minor),
            FileKind::BlockDevice(d) => WireKind::BlockDevice(d.major, d.minor),
        };
        let link = |link: &Link| (link.parent.get(), link.name.as_bytes().to_vec());
        let xattr = |xattr: &Xattr| (xattr.name.clone(), xattr.value.clone());
        Self {
            kind,
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            size_bytes: attr.size_bytes,
            accessed: time_to_wire(attr.accessed),
            modified: time_to_wire(attr.modified),
            changed: time_to_wire(attr.changed),
            created: time_to_wire(attr.created),
            xid: attr.xid.get(),
            links: inode.links.iter().map(link).collect(),
            xattrs: inode.xattrs.iter().map(xattr).collect(),
        }
    }
}

impl WireInode {
    fn into_inode(self, ino: Ino) -> Option<InodeState> {
        let device = |major, minor| DeviceNumber { major, minor };
        let kind = match self.kind {
            WireKind::Regular => FileKind::Regular,
            WireKind::Directory => FileKind::Directory,
            WireKind::Symlink(target) => FileKind::Symlink(target),
            WireKind::Fifo => FileKind::Fifo,
            WireKind::Socket => FileKind::Socket,
            WireKind::CharDevice(major, minor) => FileKind::CharDevice(device(major, minor)),
            WireKind::BlockDevice(major, minor) => FileKind::BlockDevice(device(major, minor)),
        };
        let attr = FileAttr {
            ino,
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size_bytes: self.size_bytes,
            accessed: time_from_wire(self.accessed)?,
            modified: time_from_wire(self.modified)?,
            changed: time_from_wire(self.changed)?,
            created: time_from_wire(self.created)?,
            xid: Xid::new(self.xid),
        };
        let link = |(parent, name): (u64, Vec<u8>)| {
            Some(Link { parent: Ino::new(parent), name: FileName::new(&name)? })
        };
        let links = self.links.into_iter().map(link).collect::<Option<_>>()?;
        let xattrs = self.xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
        Some(InodeState { attr, links, xattrs })
    }
}
