//! An entry of a table of contents: what one member holds, and where.
//!
//! An index needs little of an entry and needs it of every one; a restore needs all of it. So a
//! reader is given a [`StoredEntry`], which is parsed but owns nothing, and takes what it wants.
//! Both ways accept the same bytes, which a fuzz target checks: an entry that the index takes is
//! one that a restore can read.

use serde::{Deserialize, Serialize};
use tier_index::Entry;
use tier_types::{Ino, InodeState, Xid};

use crate::format::postcard;
use crate::format::tarball::layout::FramePosition;
use crate::format::tarball::member::Run;
use crate::format::tarball::toc::inode::WireInode;
use crate::format::tarball::toc::piece::{Piece, WirePiece, WireRun, less, more};

/// What one member holds, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TocEntry {
    pub(crate) ino: Ino,
    /// Where the member's header starts.
    pub(crate) at: FramePosition,
    pub(crate) gone: Option<Xid>,
    pub(crate) metadata: Option<InodeState>,
    pub(crate) data: Vec<Piece>,
    pub(crate) holes: Vec<Run>,
    pub(crate) lost: Vec<Run>,
}

impl TocEntry {
    /// What the index needs of it.
    pub(crate) fn index_entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let ino = self.ino;
        let FramePosition { frame, offset } = self.at;
        let gone = self.gone.map(|xid| Entry::Gone { ino, xid });
        let metadata = self.metadata.as_ref();
        let inode = metadata.map(|inode| Entry::Inode { ino, xid: inode.attr.xid, frame, offset });
        let data = self.data.iter().map(move |piece| piece.index_entry(ino));
        let holes = self.holes.iter().map(move |run| hole(ino, run));
        let lost = self.lost.iter().map(move |run| lost(ino, run));
        // In the order of `append_index_entries`, with which a fuzz target compares it.
        gone.into_iter().chain(inode).chain(data).chain(holes).chain(lost)
    }

    /// Appends the entry as it follows `before` in a group: with numbers that are relative to each
    /// other, because they are small and much the same from file to file.
    pub(crate) fn append_to(&self, before: Ino, out: &mut Vec<u8>) {
        postcard::append_with_length(&WireEntry::of(self, before), out);
    }
}

fn hole(ino: Ino, run: &Run) -> Entry {
    Entry::Hole { ino, chunks: run.chunks, data_xid: run.data_xid }
}

fn lost(ino: Ino, run: &Run) -> Entry {
    Entry::Lost { ino, chunks: run.chunks, data_xid: run.data_xid }
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
    lost: Vec<WireRun>,
}

impl<'a> WireEntry<'a> {
    fn of(entry: &'a TocEntry, before: Ino) -> Self {
        let ino = entry.ino;
        Self {
            ino: less(ino.get(), before),
            // A worker counts from the first frame of its job, and does not know where that will
            // lie.
            frame: entry.at.frame,
            offset: entry.at.offset,
            gone: entry.gone.map(|xid| less(xid.get(), ino)),
            metadata: entry.metadata.as_ref().map(WireInode::from),
            data: entry.data.iter().map(|piece| WirePiece::of(piece, entry.at, ino)).collect(),
            holes: entry.holes.iter().map(|run| WireRun::of(run, ino)).collect(),
            lost: entry.lost.iter().map(|run| WireRun::of(run, ino)).collect(),
        }
    }
}

/// An entry as it stands in a table, of which a reader takes what it needs.
pub(crate) struct StoredEntry<'a> {
    wire: WireEntry<'a>,
    ino: Ino,
    base_frame: u32,
}

impl<'a> StoredEntry<'a> {
    /// The entry at the start of some bytes of a group, after one of `before`, and the rest.
    pub(super) fn take(base_frame: u32, before: Ino, group: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (wire, rest) = postcard::take_with_length::<WireEntry<'a>>(group)?;
        let ino = Ino::new(more(wire.ino, before));
        Some((Self { wire, ino, base_frame }, rest))
    }

    pub(super) fn ino(&self) -> Ino {
        self.ino
    }

    /// All of it; `None` if it cannot be.
    pub(crate) fn decode(self) -> Option<TocEntry> {
        let at = self.at()?;
        let Self { wire, ino, .. } = self;
        // One part that cannot be read makes the entry unreadable: half of it would mislead.
        let metadata = match wire.metadata {
            Some(wire) => Some(wire.into_inode(ino)?),
            None => None,
        };
        let data = wire.data.into_iter().map(|piece| piece.into_piece(at, ino));
        let holes = wire.holes.into_iter().map(|run| run.into_run(ino));
        let lost = wire.lost.into_iter().map(|run| run.into_run(ino));
        Some(TocEntry {
            ino,
            at,
            gone: wire.gone.map(|xid| Xid::new(more(xid, ino))),
            metadata,
            data: data.collect::<Option<_>>()?,
            holes: holes.collect::<Option<_>>()?,
            lost: lost.collect::<Option<_>>()?,
        })
    }

    /// Appends what the index needs of it, without the cost of the rest; `None`, and nothing, if it
    /// cannot be.
    pub(crate) fn index_entries(&self, out: &mut Vec<Entry>) -> Option<()> {
        // An index that took half an entry would differ from one that scanned the member.
        let before = out.len();
        let appended = self.append_index_entries(out);
        if appended.is_none() {
            out.truncate(before);
        }
        appended
    }

    fn append_index_entries(&self, out: &mut Vec<Entry>) -> Option<()> {
        let Self { wire, ino, .. } = self;
        let (ino, at) = (*ino, self.at()?);
        out.extend(wire.gone.map(|xid| Entry::Gone { ino, xid: Xid::new(more(xid, ino)) }));
        if let Some(inode) = &wire.metadata {
            // The cheap half of decoding: the same entries are refused as by `decode`.
            inode.is_sound().then_some(())?;
            let FramePosition { frame, offset } = at;
            out.push(Entry::Inode { ino, xid: inode.xid(ino), frame, offset });
        }
        for piece in &wire.data {
            out.push(piece.into_piece(at, ino)?.index_entry(ino));
        }
        for run in &wire.holes {
            out.push(hole(ino, &run.into_run(ino)?));
        }
        for run in &wire.lost {
            out.push(lost(ino, &run.into_run(ino)?));
        }
        Some(())
    }

    /// Where the member's header starts.
    fn at(&self) -> Option<FramePosition> {
        // Refused where it does not fit: wrapped, it could point at a frame that exists.
        let frame = self.base_frame.checked_add(self.wire.frame)?;
        Some(FramePosition { frame, offset: self.wire.offset })
    }
}
