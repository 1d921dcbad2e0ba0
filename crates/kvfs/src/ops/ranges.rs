//! The ranges of a file: which are data and which are holes, and how they become the other.
//!
//! A large hole is made in up to three transactions: the chunks at its ends that keep some of their
//! bytes, and the whole chunks between them. These are replaced if they are few rows; if not, a cut
//! mark stands for them, and the reaper deletes what is stored there.

use tier_log::Operation;
use tier_types::{ByteRange, ChunkNo, ChunkRange, ChunkRun, ChunkState, FileAttr, Ino, to_usize};

use super::change::{
    Blocking, Decision, EdgeContent, Edges, Fill, N_ROWS_AT_ONCE, RoomWanted, end_of,
};
use crate::FsError;
use crate::core::{Core, Kvfs, ROWS_BYTES};
use crate::space::Permit;
use crate::store::extents::ChunkExtent;
use crate::tx::{Draft, MapWindow};

impl Kvfs {
    /// Unmaps a range: it reads as zeros. The size stays.
    pub fn punch_hole(&self, ino: Ino, offset: u64, len: u64) -> Result<(), FsError> {
        self.punch_hole_with(Blocking::Blocking, ino, offset, len)
    }

    /// The same with a say in whether it waits for what was evicted: it does where the hole begins
    /// or ends within a chunk.
    pub fn punch_hole_with(
        &self,
        blocking: Blocking<'_>,
        ino: Ino,
        offset: u64,
        len: u64,
    ) -> Result<(), FsError> {
        // The size may change before the inode is locked. A hole that ends where the file ended
        // then is what a call at that moment would have made.
        let size = self.reader().regular(ino)?.size_bytes;
        let hole = ByteRange::between(offset, offset.saturating_add(len).min(size));
        if hole.len == 0 {
            return Ok(());
        }
        let chunk_bytes = u64::from(self.chunk_bytes);
        let end = hole.offset + hole.len;
        let whole =
            ByteRange::between(hole.offset.next_multiple_of(chunk_bytes), end - end % chunk_bytes);
        if whole.len <= N_ROWS_AT_ONCE * chunk_bytes {
            return self.punch_few(blocking, ino, hole);
        }
        // Three transactions: the whole chunks may take no more than a mark, and the ends may have
        // to come back first.
        self.punch_few(blocking, ino, ByteRange::between(hole.offset, whole.offset))?;
        let blocking = if hole.offset < whole.offset { blocking.once_changed() } else { blocking };
        self.punch_few(blocking, ino, ByteRange::between(whole.offset + whole.len, end))?;
        self.punch_whole(blocking, ino, whole)
    }

    /// Unmaps a range of few chunks, which may begin and end within one.
    fn punch_few(&self, blocking: Blocking<'_>, ino: Ino, hole: ByteRange) -> Result<(), FsError> {
        let ByteRange { offset, len } = hole;
        let end = offset + len;
        let Some(chunks) = ChunkRange::touching(offset, len, self.chunk_bytes) else {
            return Ok(());
        };
        let chunk_bytes = u64::from(self.chunk_bytes);
        self.change(
            RoomWanted::removal(self.chunk_bytes),
            blocking,
            ino,
            |_| Ok(chunks),
            |attr, window| {
                let file_bytes = attr.size_bytes;
                let partly = |run: &ChunkRun, chunk: ChunkNo| {
                    let start = chunk.get() * chunk_bytes;
                    let chunk_end = (start + chunk_bytes).min(file_bytes);
                    run.state != ChunkState::Hole && (start < offset || end < chunk_end)
                };
                let mut edges = match self.load_edges(window, partly)? {
                    Edges::Cold(run) => return Ok(Decision::Recall(run)),
                    Edges::Loaded(edges) => edges,
                };
                for EdgeContent { chunk, content } in &mut edges {
                    let start = chunk.get() * chunk_bytes;
                    let from = to_usize(offset.saturating_sub(start)).min(content.len());
                    let until = to_usize(end - start).min(content.len());
                    if let Some(hole) = content.get_mut(from..until) {
                        hole.fill(0);
                    }
                }
                // Those of the edges as well: what is kept of them goes into their rows.
                let freed = window.extents(self.reader(), window.range())?;
                Ok(unmapping(attr, hole, Unmapped { edges, freed, rest: None }))
            },
        )
    }

    /// Unmaps whole chunks, any number of them.
    fn punch_whole(
        &self,
        blocking: Blocking<'_>,
        ino: Ino,
        hole: ByteRange,
    ) -> Result<(), FsError> {
        let Some(chunks) = ChunkRange::touching(hole.offset, hole.len, self.chunk_bytes) else {
            return Ok(());
        };
        let scope = |_: &FileAttr| self.hole_scope(ino, chunks);
        let room = RoomWanted::removal(self.chunk_bytes);
        self.change(room, blocking, ino, scope, |attr, window| {
            let rest = ChunkRange::new(window.range().end(), chunks.end());
            if rest.is_some() && !window.has_room_for_mark() {
                return Ok(Decision::Settle);
            }
            let freed = window.extents(self.reader(), window.range())?;
            Ok(unmapping(attr, hole, Unmapped { edges: Vec::new(), freed, rest }))
        })
    }

    /// Makes a range read as zeros, and the file at least as long as the range reaches unless it
    /// keeps its size.
    pub fn zero_range(
        &self,
        blocking: Blocking<'_>,
        ino: Ino,
        range: ByteRange,
        keep_size: bool,
    ) -> Result<(), FsError> {
        let ByteRange { offset, len } = range;
        if keep_size || end_of(offset, len)? <= self.reader().regular(ino)?.size_bytes {
            return self.punch_hole_with(blocking, ino, offset, len);
        }
        // Asked for before anything is zeroed, which takes less: what is refused has changed
        // nothing.
        let permit = self.room_for(RoomWanted::growth(0), blocking)?;
        self.punch_hole_with(blocking, ino, offset, len)?;
        let is_good = permit.epoch() == Some(self.room.epoch());
        // Growth reads all that it goes by anew, so that a later permit is as good.
        let permit = if is_good { permit } else { self.admit_growth(ROWS_BYTES)? };
        self.grow(permit, ino, offset + len)
    }
}

impl Core {
    /// Makes the file at least as long as the range reaches. No space is set apart: a hole takes
    /// none, and data is never written twice to one place.
    pub fn allocate(&self, ino: Ino, offset: u64, len: u64) -> Result<(), FsError> {
        let end = end_of(offset, len)?;
        self.grow(self.admit_growth(ROWS_BYTES)?, ino, end)
    }

    fn grow(&self, permit: Permit<'_>, ino: Ino, end: u64) -> Result<(), FsError> {
        let _guard = self.locks.lock(&[ino]);
        let mut attr = self.reader().regular(ino)?;
        let size = self.size_of(&attr);
        let old_size = attr.size_bytes;
        // Only this look is under the lock: another operation may have made the file as long by
        // now, and growth must never make it shorter.
        if old_size >= end {
            return Ok(());
        }
        // The chunk in which the file ends is all of the map that growth concerns: it has more
        // bytes that count.
        let last = ChunkRange::one(size.end_chunk()).ok_or(FsError::TooLarge("the file"))?;
        let window = MapWindow::load(self.reader(), ino, last, size)?;
        attr.size_bytes = end;
        self.committer.commit(permit, 1, move |draft| {
            draft.log(Operation::Truncate { ino, old_size, new_size: end });
            window.grow(end, None, draft);
            window.put_sums(draft);
            attr.modified = draft.time;
            draft.put_changed(&mut attr);
        })?;
        Ok(())
    }

    /// Where the next data at or after `offset` begins; `None` behind the last.
    pub fn next_data(&self, ino: Ino, offset: u64) -> Result<Option<u64>, FsError> {
        Ok(self.data_ranges(ino, offset, 1)?.first().map(|range| range.offset))
    }

    /// Where the next hole at or after `offset` begins, the end of the file at the latest; `None`
    /// behind that.
    pub fn next_hole(&self, ino: Ino, offset: u64) -> Result<Option<u64>, FsError> {
        if offset >= self.reader().regular(ino)?.size_bytes {
            return Ok(None);
        }
        Ok(match self.data_ranges(ino, offset, 1)?.first() {
            Some(range) if range.offset <= offset => Some(range.offset + range.len),
            _ => Some(offset),
        })
    }

    /// The byte ranges of a file that are not holes, in order and not adjacent, from `offset` on,
    /// at most `n_max`. Holes are whole chunks.
    pub fn data_ranges(
        &self,
        ino: Ino,
        offset: u64,
        n_max: usize,
    ) -> Result<Vec<ByteRange>, FsError> {
        let attr = self.reader().regular(ino)?;
        let first = ChunkNo::new(offset / u64::from(self.chunk_bytes));
        let mut ranges: Vec<ByteRange> = Vec::new();
        for run in self.reader().all_runs(ino, first) {
            let ChunkRun { chunks, state, .. } = run?;
            if state == ChunkState::Hole {
                continue;
            }
            let start = chunks.offset_bytes(self.chunk_bytes);
            let end = start + chunks.len_bytes(self.chunk_bytes, attr.size_bytes);
            let range = ByteRange::between(start.max(offset), end);
            match ranges.last_mut() {
                Some(last) if last.offset + last.len == range.offset => last.len += range.len,
                _ if range.len > 0 => ranges.push(range),
                _ => {}
            }
            // One more than wanted: only then it is certain where the last one ends.
            if ranges.len() > n_max {
                ranges.truncate(n_max);
                break;
            }
        }
        Ok(ranges)
    }

    /// Bytes of file data that are in the store, holes and what was evicted left out.
    pub fn resident_bytes(&self, ino: Ino) -> Result<u64, FsError> {
        self.resident_bytes_of(&self.reader().attr(ino)?)
    }

    /// The same of an inode whose attributes are known. What cuts made dead counts until the reaper
    /// has deleted it, but never as more than the file has.
    fn resident_bytes_of(&self, attr: &FileAttr) -> Result<u64, FsError> {
        Ok(self.reader().data_sums(attr.ino)?.resident_bytes.min(attr.size_bytes))
    }

    /// What of a file counts as allocated: what is in the store, and one byte at least if it has
    /// data elsewhere. Archivers take a file without blocks for one hole, and do not read it.
    pub(crate) fn allocated_bytes_of(&self, attr: &FileAttr) -> Result<u64, FsError> {
        let sums = self.reader().data_sums(attr.ino)?;
        let has_data_elsewhere = sums.cold_bytes > 0 || sums.lost_bytes > 0;
        let least = u64::from(has_data_elsewhere);
        Ok(sums.resident_bytes.max(least).min(attr.size_bytes))
    }
}

/// What becomes a hole, and what does not.
struct Unmapped {
    /// The chunks at the ends that keep some of their bytes.
    edges: Vec<EdgeContent>,
    /// What the rows of the window refer to.
    freed: Vec<ChunkExtent>,
    /// What lies behind the window.
    rest: Option<ChunkRange>,
}

/// Commits a hole: the chunks of the window but for those at its ends that keep some of their
/// bytes, and the rest behind it.
fn unmapping(attr: &FileAttr, hole: ByteRange, unmapped: Unmapped) -> Decision {
    let Unmapped { edges, freed, rest } = unmapped;
    let mut attr = attr.clone();
    let ByteRange { offset, len } = hole;
    let has_mark = rest.is_some();
    let fill: Fill = Box::new(move |draft, window| {
        draft.log(Operation::PunchHole { ino: attr.ino, offset, len });
        draft.free(&freed);
        unmap(window, edges, attr.size_bytes, draft);
        if let Some(rest) = rest {
            window.mark(rest, draft);
        }
        attr.modified = draft.time;
        draft.put_changed(&mut attr);
    });
    if has_mark { Decision::CommitMark(fill) } else { Decision::Commit(fill) }
}

/// Makes a window a hole but for chunks at its ends that keep some of their bytes.
fn unmap(window: &MapWindow, edges: Vec<EdgeContent>, file_bytes: u64, draft: &mut Draft) {
    let (chunks, data_xid) = (window.range(), draft.xid);
    let mut runs = Vec::new();
    let mut at = chunks.start();
    let hole = |from, until| {
        let range = ChunkRange::new(from, until);
        range.map(|chunks| ChunkRun { chunks, state: ChunkState::Hole, data_xid })
    };
    for EdgeContent { chunk, content } in edges {
        assert!(chunks.contains(chunk), "an edge of the hole");
        if let Some(run) = hole(at, chunk) {
            window.delete_chunks(run.chunks, draft);
            runs.push(run);
        }
        let only = ChunkRange::one(chunk);
        runs.extend(only.map(|chunks| ChunkRun { chunks, state: ChunkState::Hot, data_xid }));
        draft.put_chunk(window.ino(), chunk, &content);
        at = chunk.next();
    }
    if let Some(run) = hole(at, chunks.end()) {
        window.delete_chunks(run.chunks, draft);
        runs.push(run);
    }
    window.replace(&runs, file_bytes, draft);
}
