//! The table of contents: for each member all that an index and a restore need.
//!
//! It is kept in members of its own at the end of the tarball, so that it can be read without the
//! rest; the last of them lists the frames of the others.

use serde::{Deserialize, Serialize};
use tier_index::Entry;
use tier_types::{
    ChunkNo, ChunkRange, DeviceNumber, FileAttr, FileKind, FileName, Ino, InodeState, Link,
    Timestamp, Xattr, Xid, to_u64, to_usize,
};

use crate::format::tarball::layout::{BLOCK_BYTES, padding};
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::member::{Run, append_plain_header};
use crate::format::tarball::pax::PaxWriter;

/// Where a piece of data lies: a run of chunks within one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) run: Run,
    pub(crate) frame: u32,
    pub(crate) offset: u32,
    /// Bytes by which the last chunk is short of a whole one.
    pub(crate) short_bytes: u32,
}

impl Piece {
    fn entry(&self, ino: Ino) -> Entry {
        Entry::Data {
            ino,
            chunks: self.run.chunks,
            data_xid: self.run.data_xid,
            frame: self.frame,
            offset: self.offset,
            short_bytes: self.short_bytes,
        }
    }
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
        let data = self.data.iter().map(move |piece| piece.entry(ino));
        let holes = self.holes.iter().map(move |run| Entry::Hole {
            ino,
            chunks: run.chunks,
            data_xid: run.data_xid,
        });
        gone.into_iter().chain(inode).chain(data).chain(holes)
    }

    /// Appends the entry as it follows `before` in a group: with numbers that are relative to each
    /// other, because they are small and much the same from file to file.
    pub(crate) fn append_to(&self, before: Ino, out: &mut Vec<u8>) {
        // Serialising plain values into memory has no way to fail.
        let wire = WireEntry::of(self, before);
        let written = postcard::to_extend(&wire, std::mem::take(out));
        *out = written.unwrap_or_default();
    }
}

/// Appends a group: entries whose frames are counted from `base_frame`.
fn append_group(base_frame: u32, entries: &[u8], out: &mut Vec<u8>) {
    let head = (base_frame, to_u64(entries.len()));
    let written = postcard::to_extend(&head, std::mem::take(out));
    *out = written.unwrap_or_default();
    out.extend_from_slice(entries);
}

/// Longest part of a table of contents that a writer makes, but for a longer entry.
const PART_BYTES: usize = 1 << 20;

/// The table of contents of a tarball that is being built.
#[derive(Debug, Default)]
pub(crate) struct TocWriter {
    bytes: Vec<u8>,
    /// Where each part but the last ends in `bytes`.
    cuts: Vec<usize>,
}

impl TocWriter {
    /// Adds entries whose frames are counted from `base_frame`.
    pub(crate) fn add(&mut self, base_frame: u32, entries: &[u8]) {
        let start = self.cuts.last().copied().unwrap_or(0);
        let part_bytes = self.bytes.len() - start;
        if part_bytes > 0 && part_bytes + entries.len() > PART_BYTES {
            self.cuts.push(self.bytes.len());
        }
        append_group(base_frame, entries, &mut self.bytes);
    }

    /// The members that hold the table, one frame each; the last one also ends the archive.
    pub(crate) fn into_frames(
        self,
        first_frame: u32,
        n_members: u64,
        mark: &FrameMark,
    ) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut parts = Vec::new();
        let mut start = 0;
        for end in self.cuts.iter().copied().chain([self.bytes.len()]) {
            let part = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            let number = u32::try_from(frames.len()).unwrap_or(u32::MAX);
            let path = format!(".tier/toc/{number:06}");
            let (frame, offset) = plain_member(path.as_bytes(), part, mark);
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            parts.push((first_frame.saturating_add(number), offset, len));
            frames.push(frame);
        }
        let root = TocRoot { parts, n_members };
        let (mut last, _) = plain_member(ROOT_PATH, &root.to_bytes(), mark);
        last.resize(last.len() + 2 * BLOCK_BYTES, 0);
        frames.push(last);
        frames
    }
}

pub(crate) const ROOT_PATH: &[u8] = b".tier/toc/root";

/// A plain file as a member, and where its content starts.
fn plain_member(path: &[u8], content: &[u8], mark: &FrameMark) -> (Vec<u8>, u32) {
    let mut pax = PaxWriter::default();
    mark.put(&mut pax);
    let content_bytes = to_u64(content.len());
    let mut out = Vec::with_capacity(content.len() + 4 * BLOCK_BYTES);
    append_plain_header(path, pax, content_bytes, &mut out);
    let offset = u32::try_from(out.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(content);
    out.resize(out.len() + padding(content_bytes), 0);
    (out, offset)
}

/// An entry as it stands in a table, of which a reader takes what it needs.
pub(crate) struct StoredEntry<'a> {
    wire: WireEntry<'a>,
    ino: Ino,
    base_frame: u32,
}

impl StoredEntry<'_> {
    /// All of it; `None` if it cannot be.
    pub(crate) fn decode(self) -> Option<TocEntry> {
        self.wire.into_entry(self.base_frame, self.ino)
    }

    /// Appends what the index needs of it, without the cost of the rest; `None`, and nothing, if it
    /// cannot be.
    pub(crate) fn index_entries(&self, out: &mut Vec<Entry>) -> Option<()> {
        let before = out.len();
        let appended = self.append_index_entries(out);
        if appended.is_none() {
            out.truncate(before);
        }
        appended
    }

    fn append_index_entries(&self, out: &mut Vec<Entry>) -> Option<()> {
        let Self { wire, ino, base_frame } = self;
        let (ino, frame, offset) = (*ino, base_frame.checked_add(wire.frame)?, wire.offset);
        out.extend(wire.gone.map(|xid| Entry::Gone { ino, xid: Xid::new(more(xid, ino)) }));
        if let Some(inode) = &wire.metadata {
            inode.is_sound().then_some(())?;
            let xid = Xid::new(more(inode.xid, ino));
            out.push(Entry::Inode { ino, xid, frame, offset });
        }
        for piece in &wire.data {
            out.push(piece_from_wire(*piece, (frame, offset), ino)?.entry(ino));
        }
        for run in &wire.holes {
            let Run { chunks, data_xid } = run_from_wire(*run, ino)?;
            out.push(Entry::Hole { ino, chunks, data_xid });
        }
        Some(())
    }
}

/// Calls `visit` for all entries of the groups in one part of a table. `None` if it cannot be read,
/// or `visit` says so.
pub(crate) fn read_groups<E>(
    mut bytes: &[u8],
    visit: &mut dyn FnMut(StoredEntry<'_>) -> Option<Result<(), E>>,
) -> Option<Result<(), E>> {
    while !bytes.is_empty() {
        let (head, rest) = postcard::take_from_bytes::<(u32, u64)>(bytes).ok()?;
        let (base_frame, len) = head;
        if len > to_u64(rest.len()) {
            return None;
        }
        let (mut group, rest) = rest.split_at_checked(to_usize(len))?;
        let mut before = Ino::new(0);
        while !group.is_empty() {
            let (wire, after) = postcard::take_from_bytes::<WireEntry<'_>>(group).ok()?;
            let ino = Ino::new(more(wire.ino, before));
            if let Err(error) = visit(StoredEntry { wire, ino, base_frame })? {
                return Some(Err(error));
            }
            (before, group) = (ino, after);
        }
        bytes = rest;
    }
    Some(Ok(()))
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

/// First chunk, number of chunks, transaction less the inode number.
type WireRun = (u64, u64, i64);
/// Seconds and nanoseconds.
type WireTime = (i64, i32);
/// Run, frame less the entry's, offset less the entry's, bytes short of a whole chunk.
type WirePiece = (WireRun, u32, i32, u32);

#[derive(Serialize, Deserialize)]
enum WireKind<'a> {
    Regular,
    Directory,
    Symlink(&'a [u8]),
    Fifo,
    Socket,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

#[derive(Serialize, Deserialize)]
struct WireInode<'a> {
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
    links: Vec<(u64, &'a [u8])>,
    #[serde(borrow)]
    xattrs: Vec<(&'a [u8], &'a [u8])>,
}

#[derive(Serialize, Deserialize)]
struct WireEntry<'a> {
    /// Less that of the entry before.
    ino: i64,
    /// Less the group's.
    frame: u32,
    offset: u32,
    /// Less the inode number.
    gone: Option<i64>,
    #[serde(borrow)]
    metadata: Option<WireInode<'a>>,
    data: Vec<WirePiece>,
    holes: Vec<WireRun>,
}

/// `a - b`, and back: what wraps on the way there wraps on the way back.
fn less(a: u64, b: Ino) -> i64 {
    a.wrapping_sub(b.get()).cast_signed()
}

fn more(delta: i64, b: Ino) -> u64 {
    b.get().wrapping_add(delta.cast_unsigned())
}

fn run_to_wire(run: &Run, ino: Ino) -> WireRun {
    (run.chunks.start().get(), run.chunks.len(), less(run.data_xid.get(), ino))
}

fn run_from_wire((start, len, xid): WireRun, ino: Ino) -> Option<Run> {
    let end = start.checked_add(len)?;
    let chunks = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end))?;
    Some(Run { chunks, data_xid: Xid::new(more(xid, ino)) })
}

fn piece_from_wire(
    (run, frame, offset, short_bytes): WirePiece,
    (entry_frame, entry_offset): (u32, u32),
    ino: Ino,
) -> Option<Piece> {
    Some(Piece {
        run: run_from_wire(run, ino)?,
        frame: entry_frame.checked_add(frame)?,
        offset: entry_offset.wrapping_add(offset.cast_unsigned()),
        short_bytes,
    })
}

fn time_to_wire(time: Timestamp, before: Timestamp) -> WireTime {
    let nanos = time.nanos.wrapping_sub(before.nanos).cast_signed();
    (time.seconds.wrapping_sub(before.seconds), nanos)
}

fn time_from_wire((seconds, nanos): WireTime, before: Timestamp) -> Option<Timestamp> {
    let nanos = before.nanos.wrapping_add(nanos.cast_unsigned());
    let seconds = before.seconds.wrapping_add(seconds);
    (nanos < 1_000_000_000).then_some(Timestamp { seconds, nanos })
}

impl<'a> WireEntry<'a> {
    fn of(entry: &'a TocEntry, before: Ino) -> Self {
        let ino = entry.ino;
        let piece = |p: &Piece| {
            let frame = p.frame.wrapping_sub(entry.frame);
            let offset = p.offset.wrapping_sub(entry.offset).cast_signed();
            (run_to_wire(&p.run, ino), frame, offset, p.short_bytes)
        };
        Self {
            ino: less(ino.get(), before),
            frame: entry.frame,
            offset: entry.offset,
            gone: entry.gone.map(|xid| less(xid.get(), ino)),
            metadata: entry.metadata.as_ref().map(WireInode::from),
            data: entry.data.iter().map(piece).collect(),
            holes: entry.holes.iter().map(|run| run_to_wire(run, ino)).collect(),
        }
    }

    fn into_entry(self, base_frame: u32, ino: Ino) -> Option<TocEntry> {
        let frame = base_frame.checked_add(self.frame)?;
        let piece = |piece| piece_from_wire(piece, (frame, self.offset), ino);
        let metadata = match self.metadata {
            Some(wire) => Some(wire.into_inode(ino)?),
            None => None,
        };
        Some(TocEntry {
            ino,
            frame,
            offset: self.offset,
            gone: self.gone.map(|xid| Xid::new(more(xid, ino))),
            metadata,
            data: self.data.into_iter().map(piece).collect::<Option<_>>()?,
            holes: self
                .holes
                .into_iter()
                .map(|run| run_from_wire(run, ino))
                .collect::<Option<_>>()?,
        })
    }
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
        let link = |link: &'a Link| (link.parent.get(), link.name.as_bytes());
        let xattr = |xattr: &'a Xattr| (xattr.name.as_slice(), xattr.value.as_slice());
        Self {
            kind,
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            size_bytes: attr.size_bytes,
            modified: time_to_wire(attr.modified, Timestamp::default()),
            accessed: time_to_wire(attr.accessed, attr.modified),
            changed: time_to_wire(attr.changed, attr.modified),
            created: time_to_wire(attr.created, attr.changed),
            xid: less(attr.xid.get(), attr.ino),
            links: inode.links.iter().map(link).collect(),
            xattrs: inode.xattrs.iter().map(xattr).collect(),
        }
    }
}

impl WireInode<'_> {
    /// Whether [`into_inode`](Self::into_inode) can make something of it.
    fn is_sound(&self) -> bool {
        let changed = time_from_wire(self.modified, Timestamp::default()).and_then(|modified| {
            time_from_wire(self.accessed, modified)?;
            time_from_wire(self.changed, modified)
        });
        changed.and_then(|changed| time_from_wire(self.created, changed)).is_some()
            && self.links.iter().all(|(_, name)| FileName::is_name(name))
    }

    fn into_inode(self, ino: Ino) -> Option<InodeState> {
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
        let modified = time_from_wire(self.modified, Timestamp::default())?;
        let changed = time_from_wire(self.changed, modified)?;
        let attr = FileAttr {
            ino,
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size_bytes: self.size_bytes,
            accessed: time_from_wire(self.accessed, modified)?,
            modified,
            changed,
            created: time_from_wire(self.created, changed)?,
            xid: Xid::new(more(self.xid, ino)),
        };
        let link =
            |(parent, name)| Some(Link { parent: Ino::new(parent), name: FileName::new(name)? });
        let links = self.links.into_iter().map(link).collect::<Option<_>>()?;
        let xattr =
            |(name, value): (&[u8], &[u8])| Xattr { name: name.to_vec(), value: value.to_vec() };
        let xattrs = self.xattrs.into_iter().map(xattr).collect();
        Some(InodeState { attr, links, xattrs })
    }
}
