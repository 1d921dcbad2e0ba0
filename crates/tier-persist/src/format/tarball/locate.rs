//! Where the data of a member lies, run by run and frame by frame.

use std::collections::VecDeque;

use tier_types::{ChunkNo, ChunkRange, to_u64};

use crate::format::tarball::layout::padding;
use crate::format::tarball::member::Run;
use crate::format::tarball::parse::ParsedMember;
use crate::format::tarball::toc::entry::{Piece, TocEntry};

/// A member whose content is being passed over.
#[derive(Debug)]
pub(crate) struct Locator {
    entry: TocEntry,
    chunk_bytes: u64,
    /// Bytes before the first run.
    map_bytes: u64,
    /// Runs to come, with their bytes.
    runs: VecDeque<(Run, u64)>,
    padding: u64,
}

/// How far a locator is.
#[derive(Debug)]
pub(crate) enum Located {
    All(TocEntry),
    More(Locator),
}

impl Locator {
    /// `start` is the frame and the offset of the member's header.
    pub(crate) fn new(
        parsed: ParsedMember,
        (frame, offset): (u32, u32),
        content_bytes: u64,
        chunk_bytes: u32,
    ) -> Result<Self, &'static str> {
        let ParsedMember { member, map_bytes } = parsed;
        let chunk_bytes = u64::from(chunk_bytes);
        let mut left = member.data_bytes;
        let mut runs = VecDeque::new();
        for run in &member.data {
            let bytes = run.chunks.len().saturating_mul(chunk_bytes).min(left);
            left -= bytes;
            runs.push_back((*run, bytes));
        }
        if left > 0 {
            return Err("a member has more data than its runs");
        }
        let entry = TocEntry {
            ino: member.ino,
            frame,
            offset,
            gone: member.gone,
            metadata: member.metadata,
            data: Vec::new(),
            holes: member.holes,
        };
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
        let map = self.map_bytes.min(available);
        self.map_bytes -= map;
        (offset, available) = (offset + map, available - map);
        if self.map_bytes > 0 {
            return Err("the map of a sparse file goes beyond its frame");
        }
        while let Some((run, bytes)) = self.runs.pop_front() {
            let n_bytes = bytes.min(available);
            if n_bytes == 0 {
                self.runs.push_front((run, bytes));
                return if bytes == 0 { Err("a run has no data") } else { Ok(Located::More(self)) };
            }
            let rest = self.note(run, bytes, n_bytes, (frame, offset))?;
            (offset, available) = (offset + n_bytes, available - n_bytes);
            if let Some(chunks) = rest {
                self.runs.push_front((Run { chunks, ..run }, bytes - n_bytes));
                return if available == 0 {
                    Ok(Located::More(self))
                } else {
                    Err("a run has no data")
                };
            }
        }
        let padding = self.padding.min(available);
        self.padding -= padding;
        if self.padding > 0 {
            return Ok(Located::More(self));
        }
        Ok(Located::All(self.entry))
    }

    /// What was found so far.
    pub(crate) fn into_found(self) -> TocEntry {
        self.entry
    }

    /// Notes `n_bytes` of a run, and returns the chunks of it that are still to come.
    fn note(
        &mut self,
        run: Run,
        bytes: u64,
        n_bytes: u64,
        (frame, offset): (u32, u64),
    ) -> Result<Option<ChunkRange>, &'static str> {
        let n_chunks = n_bytes.div_ceil(self.chunk_bytes);
        let short = n_chunks * self.chunk_bytes - n_bytes;
        let end = ChunkNo::new(run.chunks.start().get().saturating_add(n_chunks));
        let here = ChunkRange::new(run.chunks.start(), end);
        let here = here.filter(|here| run.chunks.covers(*here)).ok_or("a run has no data")?;
        if short > 0 && (n_bytes < bytes || end < run.chunks.end()) {
            return Err("a chunk is cut within a file");
        }
        self.entry.data.push(Piece {
            run: Run { chunks: here, ..run },
            frame,
            offset: u32::try_from(offset).map_err(|_| "a frame is too large")?,
            short_bytes: u32::try_from(short).unwrap_or(0),
        });
        Ok(ChunkRange::new(end, run.chunks.end()))
    }
}
