//! Where frames end in the tar stream of one job. Pure.
//!
//! Most jobs are one frame. A member that is larger goes on in frames of its own, and those end
//! between its chunks, so that each chunk can be read from one frame. The positions that come out
//! here are what the table of contents, and so the index, says; a scan finds the same ones from the
//! header and the frames' lengths alone ([`crate::format::tarball::locate`]).

use std::ops::Range;

use tier_types::{ChunkNo, ChunkRange, to_u64};

use crate::format::tarball::layout::{FramePosition, to_u32};
use crate::format::tarball::member::Run;
use crate::format::tarball::toc::piece::Piece;
use crate::write::limits::FrameLimits;

/// Where frames end in the bytes that are being built.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    ends: Vec<usize>,
    frame_start: usize,
}

impl Cuts {
    /// Ends the frame here.
    pub(crate) fn cut(&mut self, at: usize) {
        assert!(at > self.frame_start, "a frame holds something");
        self.ends.push(at);
        self.frame_start = at;
    }

    /// The position of a byte in the frame that is open.
    pub(crate) fn position_of(&self, at: usize) -> FramePosition {
        FramePosition { frame: to_u32(self.ends.len()), offset: to_u32(self.frame_bytes(at)) }
    }

    /// Bytes of the open frame before this one.
    pub(crate) fn frame_bytes(&self, at: usize) -> usize {
        assert!(at >= self.frame_start, "what is appended lies in the last frame");
        at - self.frame_start
    }

    /// Where the frames end.
    pub(crate) fn into_ends(self) -> Vec<usize> {
        self.ends
    }
}

/// The pieces of one member's data.
pub(crate) struct Pieces<'a> {
    cuts: &'a mut Cuts,
    limits: FrameLimits,
    /// Data bytes of this member in the current frame.
    frame_data: usize,
    found: Vec<Piece>,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(cuts: &'a mut Cuts, limits: FrameLimits) -> Self {
        Self { cuts, limits, frame_data: 0, found: Vec::new() }
    }

    /// Notes a run whose data has these bytes, and ends frames between its chunks. Every chunk but
    /// the last one has all of its bytes.
    #[expect(clippy::expect_used, reason = "it is at least one chunk")]
    pub(crate) fn add(&mut self, run: Run, bytes: Range<usize>) {
        let FrameLimits { chunk_bytes, frame_bytes } = self.limits;
        let mut at = bytes.start;
        let mut rest = Some(run.chunks);
        while let Some(chunks) = rest {
            let left = bytes.end - at;
            assert!(left > 0, "every chunk of a run has data");
            let room = frame_bytes.saturating_sub(self.frame_data);
            // The frame is full, and has data of this member: the next chunk starts a new one.
            if left.min(chunk_bytes) > room && self.frame_data > 0 {
                // Once around again: an empty frame takes one chunk at least, so that this comes to
                // an end.
                self.cuts.cut(at);
                self.frame_data = 0;
                continue;
            }
            // A chunk that is larger than a frame may be has one for itself.
            let whole_chunks = (room / chunk_bytes).max(1) * chunk_bytes;
            // What is left of the run may end with a short chunk, if it is the file's last.
            let n_bytes = if left <= room { left } else { whole_chunks.min(left) };
            let n_chunks = n_bytes.div_ceil(chunk_bytes);
            let end = ChunkNo::new(chunks.start().get() + to_u64(n_chunks));
            let here = ChunkRange::new(chunks.start(), end).expect("at least one chunk is here");
            assert!(chunks.covers(here), "a run has no more data than its chunks");
            self.found.push(Piece {
                run: Run { chunks: here, ..run },
                at: self.cuts.position_of(at),
                short_bytes: to_u32(n_chunks * chunk_bytes - n_bytes),
            });
            at += n_bytes;
            self.frame_data += n_bytes;
            rest = ChunkRange::new(end, chunks.end());
        }
        assert_eq!(at, bytes.end, "all data of a run is in a frame");
    }

    pub(crate) fn into_found(self) -> Vec<Piece> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tier_types::{Ino, Xid};

    use super::*;
    use crate::format::tarball::layout::padding;
    use crate::format::tarball::locate::{Located, Locator};
    use crate::format::tarball::member::Member;
    use crate::format::tarball::parse::ParsedMember;

    const CHUNK_BYTES: u32 = 512;
    const HEADER_BYTES: usize = 1024;

    /// What a builder makes of a member with these runs, after `before` bytes of other members.
    fn built(member: &Member, before: usize, frame_bytes: usize) -> (Vec<Piece>, Vec<usize>) {
        let chunk_bytes = usize::try_from(CHUNK_BYTES).unwrap();
        let mut cuts = Cuts::default();
        let mut pieces = Pieces::new(&mut cuts, FrameLimits { chunk_bytes, frame_bytes });
        let start = before + HEADER_BYTES;
        let end = start + usize::try_from(member.data_bytes).unwrap();
        let mut at = start;
        for run in &member.data {
            let run_end = at + usize::try_from(run.chunks.len()).unwrap() * chunk_bytes;
            pieces.add(*run, at..run_end.min(end));
            at = run_end.min(end);
        }
        let found = pieces.into_found();
        cuts.cut(end + padding(member.data_bytes));
        (found, cuts.into_ends())
    }

    /// What a scan makes of its header and the lengths of its frames.
    fn located(member: &Member, before: usize, ends: &[usize]) -> Vec<Piece> {
        let at = FramePosition { frame: 0, offset: to_u32(before) };
        let parsed = ParsedMember { member: member.clone(), map_bytes: 0 };
        let mut open = Locator::new(parsed, at, member.data_bytes, CHUNK_BYTES).unwrap();
        let mut start = before + HEADER_BYTES;
        let mut frame_start = 0;
        for (end, frame) in ends.iter().zip(0..) {
            let (offset, available) = (to_u64(start - frame_start), to_u64(end - start));
            match open.advance(frame, offset, available).unwrap() {
                Located::All(entry) => return entry.data,
                Located::More(more) => open = more,
            }
            (start, frame_start) = (*end, *end);
        }
        panic!("the member does not end");
    }

    proptest! {
        #[test]
        fn a_scan_finds_the_pieces_that_the_builder_made(
            lens in prop::collection::vec((1_u64..20, 0_u64..5), 1..6),
            short in 0_u64..512,
            before in 0_usize..4000,
            frame_bytes in 100_usize..6000,
        ) {
            let mut at = 0;
            let mut data = Vec::new();
            for (len, gap) in lens {
                let (start, end) = (ChunkNo::new(at + gap), ChunkNo::new(at + gap + len));
                let chunks = ChunkRange::new(start, end).unwrap();
                data.push(Run { chunks, data_xid: Xid::new(at + 1) });
                at += gap + len;
            }
            let n_chunks: u64 = data.iter().map(|run| run.chunks.len()).sum();
            let data_bytes = n_chunks * u64::from(CHUNK_BYTES) - short;
            let member = Member { data, data_bytes, ..Member::of(Ino::new(7)) };
            let (pieces, ends) = built(&member, before, frame_bytes);
            prop_assert!(ends.is_sorted());
            prop_assert_eq!(located(&member, before, &ends), pieces);
        }
    }
}
