//! The locator: where the data of a member lies, run by run and frame by frame.
//!
//! A member's header says which runs of chunks follow, and not where frames end between them; that
//! comes out only as frame after frame is passed over. The locator holds what is still to come of
//! one member. It is pure arithmetic on lengths, so that a scan can hand it from the thread that
//! found the header to the one that joins the frames. Its input is from outside: what does not add
//! up is an error.

use std::collections::VecDeque;

use tier_types::{ChunkNo, ChunkRange, to_u64};

use crate::format::tarball::layout::{FramePosition, padding};
use crate::format::tarball::member::{Member, Run};
use crate::format::tarball::parse::ParsedMember;
use crate::format::tarball::toc::entry::TocEntry;
use crate::format::tarball::toc::piece::Piece;

/// A member whose content is being passed over.
#[derive(Debug)]
pub(crate) struct Locator {
    entry: TocEntry,
    chunk_bytes: u64,
    /// Bytes before the first run.
    map_bytes: u64,
    runs: VecDeque<RunToCome>,
    padding: u64,
}

/// A run, or the rest of one, that was not yet passed over.
#[derive(Debug)]
struct RunToCome {
    run: Run,
    /// Its data, which ends with the file.
    bytes: u64,
}

/// How far a locator is.
#[derive(Debug)]
pub(crate) enum Located {
    All(TocEntry),
    More(Locator),
}

impl Locator {
    /// `header` is where the member's header starts, `content_bytes` the length of what follows it.
    pub(crate) fn new(
        parsed: ParsedMember,
        header: FramePosition,
        content_bytes: u64,
        chunk_bytes: u32,
    ) -> Result<Self, &'static str> {
        let ParsedMember { member, map_bytes } = parsed;
        let chunk_bytes = u64::from(chunk_bytes);
        // Chunks are whole but for the end of the file, so that the lengths follow from the runs.
        let mut left = member.data_bytes;
        let mut runs = VecDeque::new();
        for run in &member.data {
            // Both factors are from outside, and what is left of the content bounds their product.
            let bytes = run.chunks.len().saturating_mul(chunk_bytes).min(left);
            left -= bytes;
            runs.push_back(RunToCome { run: *run, bytes });
        }
        if left > 0 {
            return Err("a member has more data than its runs");
        }
        let Member { ino, gone, metadata, holes, lost, .. } = member;
        let entry = TocEntry { ino, at: header, gone, metadata, data: Vec::new(), holes, lost };
        let padding = to_u64(padding(content_bytes));
        Ok(Self { entry, chunk_bytes, map_bytes, runs, padding })
    }

    /// Passes over `available` bytes of a frame from `offset` on, or as many of them as belong to
    /// the member.
    pub(crate) fn advance(
        mut self,
        frame: u32,
        mut offset: u64,
        mut available: u64,
    ) -> Result<Located, &'static str> {
        // The map is part of the header, which lies in one frame.
        let map = self.map_bytes.min(available);
        self.map_bytes -= map;
        (offset, available) = (offset + map, available - map);
        if self.map_bytes > 0 {
            return Err("the map of a sparse file goes beyond its frame");
        }
        while let Some(to_come) = self.runs.pop_front() {
            if to_come.bytes == 0 {
                return Err("a run has no data");
            }
            // The frame ends here, perhaps exactly between two runs.
            let n_bytes = to_come.bytes.min(available);
            if n_bytes == 0 {
                self.runs.push_front(to_come);
                return Ok(Located::More(self));
            }
            let at = FramePosition {
                frame,
                offset: u32::try_from(offset).map_err(|_| "a frame is too large")?,
            };
            let rest = self.note(&to_come, n_bytes, at)?;
            (offset, available) = (offset + n_bytes, available - n_bytes);
            if let Some(chunks) = rest {
                let run = Run { chunks, ..to_come.run };
                self.runs.push_front(RunToCome { run, bytes: to_come.bytes - n_bytes });
                // If the frame has bytes left, the run's data ended before its chunks did.
                return if available == 0 {
                    Ok(Located::More(self))
                } else {
                    Err("a run has no data")
                };
            }
        }
        // The padding is the member's too: the frame that follows it starts with another member.
        let padding = self.padding.min(available);
        self.padding -= padding;
        if self.padding > 0 {
            return Ok(Located::More(self));
        }
        Ok(Located::All(self.entry))
    }

    /// What was found so far. Each piece lies wholly in a frame that could be read, and so is of
    /// use without the rest; the rest is lost, unless another copy or the table says where it lies.
    pub(crate) fn into_found(mut self) -> TocEntry {
        self.entry.lost.extend(self.runs.iter().map(|to_come| to_come.run));
        self.entry.lost.sort_by_key(|run| run.chunks.start());
        self.entry
    }

    /// Notes that `n_bytes` of a run lie here, and returns the chunks of it that are still to come.
    #[expect(clippy::expect_used, reason = "less than a chunk, whose size is 32 bits")]
    fn note(
        &mut self,
        to_come: &RunToCome,
        n_bytes: u64,
        at: FramePosition,
    ) -> Result<Option<ChunkRange>, &'static str> {
        let RunToCome { run, bytes } = *to_come;
        let n_chunks = n_bytes.div_ceil(self.chunk_bytes);
        // The product fits: the bytes are of one frame, and a chunk's size has 32 bits.
        let short = n_chunks * self.chunk_bytes - n_bytes;
        let end = run.chunks.start().get().checked_add(n_chunks).map(ChunkNo::new);
        let here = end
            .and_then(|end| ChunkRange::new(run.chunks.start(), end))
            .filter(|here| run.chunks.covers(*here))
            .ok_or("a run has no data")?;
        // Frames are cut between chunks, and only the file's last chunk may be short.
        if short > 0 && (n_bytes < bytes || here.end() < run.chunks.end()) {
            return Err("a chunk is cut within a file");
        }
        self.entry.data.push(Piece {
            run: Run { chunks: here, ..run },
            at,
            short_bytes: u32::try_from(short).expect("a chunk is short by less than itself"),
        });
        Ok(ChunkRange::new(here.end(), run.chunks.end()))
    }
}

#[cfg(test)]
mod tests {
    use tier_types::{Ino, Xid};

    use super::*;

    const CHUNK: u32 = 512;

    fn range(start: u64, end: u64) -> ChunkRange {
        ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
    }

    fn locator(runs: &[(u64, u64)], data_bytes: u64) -> Result<Locator, &'static str> {
        let runs = runs.iter().map(|(start, end)| range(*start, *end));
        let data = runs.map(|chunks| Run { chunks, data_xid: Xid::new(9) }).collect();
        let member = Member { data, data_bytes, ..Member::of(Ino::new(7)) };
        let header = FramePosition { frame: 3, offset: 1024 };
        Locator::new(ParsedMember { member, map_bytes: 0 }, header, data_bytes, CHUNK)
    }

    /// The pieces, as chunks with their frames, offsets and missing bytes.
    fn pieces(entry: &TocEntry) -> Vec<(ChunkRange, u32, u32, u32)> {
        let piece = |p: &Piece| (p.run.chunks, p.at.frame, p.at.offset, p.short_bytes);
        entry.data.iter().map(piece).collect()
    }

    #[test]
    fn runs_are_found_frame_by_frame_to_the_end_of_the_file() {
        // Two runs of three and two chunks; the last chunk has 100 bytes.
        let locator = locator(&[(0, 3), (8, 10)], 4 * 512 + 100).unwrap();
        let Ok(Located::More(open)) = locator.advance(3, 2048, 2 * 512) else {
            panic!("there is more to come");
        };
        let Ok(Located::All(entry)) = open.advance(4, 0, 10_000) else {
            panic!("all was passed over");
        };
        let expected =
            [(range(0, 2), 3, 2048, 0), (range(2, 3), 4, 0, 0), (range(8, 10), 4, 512, 412)];
        assert_eq!(pieces(&entry), expected);
    }

    #[test]
    fn what_was_found_before_the_damage_counts() {
        let Ok(Located::More(open)) = locator(&[(0, 9)], 9 * 512).unwrap().advance(3, 0, 512)
        else {
            panic!("there is more to come");
        };
        let found = open.into_found();
        assert_eq!(pieces(&found), [(range(0, 1), 3, 0, 0)]);
        let lost: Vec<_> = found.lost.iter().map(|run| run.chunks).collect();
        assert_eq!(lost, [range(1, 9)], "and what is missing is no hole");
    }

    #[test]
    fn lengths_that_do_not_add_up_are_errors() {
        assert!(locator(&[(0, 1)], 513).is_err(), "more data than its runs");
        for (runs, data_bytes, available, why) in [
            (&[(0, 2), (5, 6)][..], 1024, 4096, "a run without data"),
            (&[(0, 3)][..], 1000, 4096, "a short chunk, and one behind it that has nothing"),
            (&[(0, 2)][..], 1024, 700, "a frame that ends within a chunk"),
        ] {
            let located = locator(runs, data_bytes).unwrap().advance(3, 0, available);
            let bad = match located {
                Err(_) => true,
                Ok(Located::More(open)) => open.advance(4, 0, 4096).is_err(),
                Ok(Located::All(_)) => false,
            };
            assert!(bad, "{why}");
        }
    }
}
