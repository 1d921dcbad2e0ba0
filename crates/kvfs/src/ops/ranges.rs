//! The space of a file: holes, where its data is, what of it is local.

use tier_log::Operation;
use tier_types::{ChunkNo, ChunkRange, ChunkRun, ChunkState, Ino, to_u64, to_usize};

use crate::FsError;
use crate::chunk_map::MapWindow;
use crate::commit::Draft;
use crate::file::{Edges, FILE_BYTES_MAX, Patience, Step, regular};
use crate::fs::Kvfs;
use crate::inode::put_changed;
use crate::schema::{self, Table};

/// Bytes that are copied at a time from file to file.
const COPY_BYTES: u64 = 1 << 20;
/// Bytes of one copy; whoever wants more asks again.
const COPIED_BYTES_MAX: u64 = 64 << 20;

/// Where the data of a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heat {
    /// All in the store, and some of it perhaps only there; also a file without data.
    Hot,
    /// All in the store, recalled and unchanged since.
    Warm,
    /// All evicted.
    Cold,
    /// Some here, some there.
    Mixed,
}

impl std::fmt::Display for Heat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Mixed => "mixed",
        })
    }
}

impl Kvfs {
    /// Where the data of a file is.
    pub fn heat(&self, ino: Ino) -> Result<Heat, FsError> {
        regular(self.live(), ino)?;
        let (mut hot, mut warm, mut cold) = (false, false, false);
        for run in self.live().all_runs(ino, ChunkNo::new(0)) {
            let state = run?.state;
            hot |= state == ChunkState::Hot;
            warm |= state == ChunkState::Warm;
            cold |= state == ChunkState::Cold;
        }
        Ok(match (hot, warm, cold) {
            (false, true, false) => Heat::Warm,
            (false, false, true) => Heat::Cold,
            (true, _, false) | (false, false, false) => Heat::Hot,
            (_, _, true) => Heat::Mixed,
        })
    }

    /// Unmaps a range: it reads as zeros. The size stays.
    pub fn punch_hole(&self, ino: Ino, offset: u64, len: u64) -> Result<(), FsError> {
        self.punch_hole_with(Patience::Wait, ino, offset, len)
    }

    /// The same with a say in whether it waits for what was evicted: it does where the hole begins
    /// or ends within a chunk.
    pub fn punch_hole_with(
        &self,
        patience: Patience<'_>,
        ino: Ino,
        offset: u64,
        len: u64,
    ) -> Result<(), FsError> {
        let size = regular(self.live(), ino)?.size_bytes;
        let end = offset.saturating_add(len).min(size);
        let bytes = end.saturating_sub(offset);
        let Some(chunks) = ChunkRange::touching(offset, bytes, self.chunk_bytes) else {
            return Ok(());
        };
        self.change(patience, ino, chunks, |attr, window| {
            let chunk_bytes = u64::from(self.chunk_bytes);
            let file_end = attr.size_bytes;
            let partly = |run: &ChunkRun, chunk: ChunkNo| {
                let start = chunk.get() * chunk_bytes;
                let chunk_end = (start + chunk_bytes).min(file_end);
                run.state != ChunkState::Hole && (start < offset || end < chunk_end)
            };
            let edges = match self.load_edges(ino, window, partly)? {
                Edges::Cold(run) => return Ok(Step::Recall(run)),
                Edges::Loaded(edges) => edges,
            };
            let edges: Vec<_> = edges
                .into_iter()
                .map(|(chunk, mut bytes)| {
                    let start = chunk.get() * chunk_bytes;
                    let from = to_usize(offset.saturating_sub(start)).min(bytes.len());
                    let until = to_usize(end - start).min(bytes.len());
                    if let Some(hole) = bytes.get_mut(from..until) {
                        hole.fill(0);
                    }
                    (chunk, bytes)
                })
                .collect();
            let mut attr = attr.clone();
            Ok(Step::Commit(Box::new(move |draft, window| {
                draft.operations.push(Operation::PunchHole { ino, offset, len: bytes });
                unmap(window, (chunks, attr.size_bytes), edges, draft);
                attr.modified = draft.time;
                put_changed(draft, &mut attr);
            })))
        })
    }

    /// Makes a range read as zeros, and the file at least as long as the range reaches unless it
    /// keeps its size.
    pub fn zero_range(
        &self,
        patience: Patience<'_>,
        ino: Ino,
        (offset, len): (u64, u64),
        keep_size: bool,
    ) -> Result<(), FsError> {
        self.punch_hole_with(patience, ino, offset, len)?;
        if keep_size { Ok(()) } else { self.allocate(ino, offset, len) }
    }

    /// Makes the file at least as long as the range reaches. No space is set apart: a hole takes
    /// none, and data is never written twice to one place.
    pub fn allocate(&self, ino: Ino, offset: u64, len: u64) -> Result<(), FsError> {
        let end = offset.checked_add(len).filter(|&end| end <= FILE_BYTES_MAX);
        let end = end.ok_or(FsError::TooLarge("the file"))?;
        let _guard = self.locks.lock(&[ino]);
        let mut attr = regular(self.live(), ino)?;
        let old_size = attr.size_bytes;
        if old_size >= end {
            return Ok(());
        }
        let last = ChunkRange::one(ChunkNo::new(old_size / u64::from(self.chunk_bytes)));
        let last = last.ok_or(FsError::TooLarge("the file"))?;
        let window = MapWindow::load(self.live(), ino, last, self.size_of(&attr))?;
        attr.size_bytes = end;
        self.committer.commit(1, move |draft| {
            draft.operations.push(Operation::Truncate { ino, old_size, new_size: end });
            window.grow(end, None, draft);
            window.put_resident(draft);
            attr.modified = draft.time;
            put_changed(draft, &mut attr);
        })?;
        Ok(())
    }

    /// Copies a range from one file to another, or within one, and returns how many bytes: fewer
    /// where the source ends, or where it is much.
    pub fn copy_range(
        &self,
        patience: Patience<'_>,
        (from, from_offset): (Ino, u64),
        (to, to_offset): (Ino, u64),
        len: u64,
    ) -> Result<u64, FsError> {
        if from == to && from_offset < to_offset + len && to_offset < from_offset + len {
            return Err(FsError::Invalid("the ranges overlap"));
        }
        let len = len.min(COPIED_BYTES_MAX);
        let mut copied = 0;
        while copied < len {
            let n = to_usize((len - copied).min(COPY_BYTES));
            let piece = self.read_with(patience, from, from_offset + copied, n);
            let written = piece.and_then(|piece| {
                self.write_with(patience, to, to_offset + copied, &piece)?;
                Ok(to_u64(piece.len()))
            });
            match written {
                Ok(0) => break,
                Ok(n) => copied += n,
                // What was copied before counts.
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(copied)
    }

    /// Where the next data at or after `offset` begins; `None` behind the last.
    pub fn next_data(&self, ino: Ino, offset: u64) -> Result<Option<u64>, FsError> {
        Ok(self.data_ranges(ino, offset, 1)?.first().map(|(start, _)| *start))
    }

    /// Where the next hole at or after `offset` begins, the end of the file at the latest; `None`
    /// behind that.
    pub fn next_hole(&self, ino: Ino, offset: u64) -> Result<Option<u64>, FsError> {
        if offset >= regular(self.live(), ino)?.size_bytes {
            return Ok(None);
        }
        Ok(match self.data_ranges(ino, offset, 1)?.first() {
            Some((start, end)) if *start <= offset => Some(*end),
            _ => Some(offset),
        })
    }

    /// The byte ranges of a file that are not holes, in order, from `offset` on, at most `n_max`.
    /// Holes are whole chunks.
    pub fn data_ranges(
        &self,
        ino: Ino,
        offset: u64,
        n_max: usize,
    ) -> Result<Vec<(u64, u64)>, FsError> {
        let attr = regular(self.live(), ino)?;
        let first = ChunkNo::new(offset / u64::from(self.chunk_bytes));
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for run in self.live().all_runs(ino, first) {
            let ChunkRun { chunks, state, .. } = run?;
            if state == ChunkState::Hole {
                continue;
            }
            let start = chunks.offset_bytes(self.chunk_bytes).max(offset);
            let len = chunks.len_bytes(self.chunk_bytes, attr.size_bytes);
            let end = chunks.offset_bytes(self.chunk_bytes) + len;
            match ranges.last_mut() {
                Some((_, last_end)) if *last_end == start => *last_end = end,
                _ if start < end => ranges.push((start, end)),
                _ => {}
            }
            if ranges.len() > n_max {
                ranges.truncate(n_max);
                break;
            }
        }
        Ok(ranges)
    }

    /// Bytes of file data that are in the store, holes and what was evicted left out.
    pub fn resident_bytes(&self, ino: Ino) -> Result<u64, FsError> {
        self.live().resident_bytes(ino)
    }
}

/// Makes a range a hole but for chunks at its ends that keep some of their bytes.
fn unmap(
    window: &MapWindow,
    (chunks, file_bytes): (ChunkRange, u64),
    edges: Vec<(ChunkNo, Vec<u8>)>,
    draft: &mut Draft,
) {
    let data_xid = draft.xid;
    let mut runs = Vec::new();
    let mut at = chunks.start();
    let hole = |from, until| {
        let range = ChunkRange::new(from, until);
        range.map(|chunks| ChunkRun { chunks, state: ChunkState::Hole, data_xid })
    };
    for (chunk, bytes) in edges {
        if let Some(run) = hole(at, chunk) {
            window.delete_chunks(run.chunks, draft);
            runs.push(run);
        }
        let only = ChunkRange::one(chunk);
        runs.extend(only.map(|chunks| ChunkRun { chunks, state: ChunkState::Hot, data_xid }));
        draft.changes.put(Table::Chunks, &schema::chunk(window.ino(), chunk), bytes);
        at = chunk.next();
    }
    if let Some(run) = hole(at, chunks.end()) {
        window.delete_chunks(run.chunks, draft);
        runs.push(run);
    }
    window.replace(&runs, file_bytes, draft);
}
