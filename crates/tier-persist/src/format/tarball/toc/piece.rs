//! A piece: a run of chunks whose data lies in one frame, and its wire form.
//!
//! Numbers are stored as differences, to the inode number or to the entry's own position, because
//! most are small and repeat from file to file. All differences wrap, and what wraps on the way
//! there wraps on the way back, so that no value is out of range.

use serde::{Deserialize, Serialize};
use tier_index::Entry;
use tier_types::{ChunkNo, ChunkRange, Ino, Xid};

use crate::format::tarball::layout::FramePosition;
use crate::format::tarball::member::Run;

/// Where a piece of data lies: a run of chunks within one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) run: Run,
    /// Where the data of the first chunk starts.
    pub(crate) at: FramePosition,
    /// Bytes by which the last chunk is short of a whole one.
    pub(crate) short_bytes: u32,
}

impl Piece {
    pub(super) fn index_entry(&self, ino: Ino) -> Entry {
        Entry::Data {
            ino,
            chunks: self.run.chunks,
            data_xid: self.run.data_xid,
            frame: self.at.frame,
            offset: self.at.offset,
            short_bytes: self.short_bytes,
        }
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct WireRun {
    start: u64,
    n_chunks: u64,
    /// Less the inode number.
    xid: i64,
}

impl WireRun {
    pub(super) fn of(run: &Run, ino: Ino) -> Self {
        let (start, n_chunks) = (run.chunks.start().get(), run.chunks.len());
        Self { start, n_chunks, xid: less(run.data_xid.get(), ino) }
    }

    pub(super) fn into_run(self, ino: Ino) -> Option<Run> {
        // A run is never empty, and ends within the address space.
        let end = self.start.checked_add(self.n_chunks)?;
        let chunks = ChunkRange::new(ChunkNo::new(self.start), ChunkNo::new(end))?;
        Some(Run { chunks, data_xid: Xid::new(more(self.xid, ino)) })
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct WirePiece {
    run: WireRun,
    /// Less the entry's.
    frame: u32,
    /// Less the entry's.
    offset: i32,
    short_bytes: u32,
}

impl WirePiece {
    /// `entry` is where the member starts.
    pub(super) fn of(piece: &Piece, entry: FramePosition, ino: Ino) -> Self {
        assert!(piece.at.frame >= entry.frame, "a member's data follows its header");
        Self {
            run: WireRun::of(&piece.run, ino),
            frame: piece.at.frame - entry.frame,
            // In a later frame it may be less than the entry's.
            offset: piece.at.offset.wrapping_sub(entry.offset).cast_signed(),
            short_bytes: piece.short_bytes,
        }
    }

    pub(super) fn into_piece(self, entry: FramePosition, ino: Ino) -> Option<Piece> {
        let at = FramePosition {
            frame: entry.frame.checked_add(self.frame)?,
            // Not compared with the frame's length, which only its row knows: the fetcher does
            // that.
            offset: entry.offset.wrapping_add(self.offset.cast_unsigned()),
        };
        Some(Piece { run: self.run.into_run(ino)?, at, short_bytes: self.short_bytes })
    }
}

/// `a - b`.
pub(crate) fn less(a: u64, b: Ino) -> i64 {
    a.wrapping_sub(b.get()).cast_signed()
}

/// What [`less`] was made from.
pub(crate) fn more(delta: i64, b: Ino) -> u64 {
    b.get().wrapping_add(delta.cast_unsigned())
}
