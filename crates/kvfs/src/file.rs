//! Reading and changing file data.

use tier_log::Operation;
use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, ErrorKind, FileAttr, FileKind, Ino, MountedInstance,
    PortError, RecallRequest, RecalledExtent, ResidentExtent, to_u64, to_usize,
};

use crate::FsError;
use crate::chunk_map::{FileSize, MapWindow};
use crate::commit::Draft;
use crate::db::SnapshotView;
use crate::fs::Kvfs;
use crate::inode::put_changed;
use crate::schema::{self, Table};
use crate::view::{N_RUNS, View};

/// Largest offset, as Linux has it.
const FILE_BYTES_MAX: u64 = i64::MAX.unsigned_abs();
/// How often an operation starts over because what it needs was evicted meanwhile.
const N_ATTEMPTS: usize = 64;

impl Kvfs {
    /// Up to `len` bytes from `offset` on; fewer at the end of the file. What was evicted comes
    /// back.
    pub fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, FsError> {
        self.note_use(ino);
        for _ in 0..N_ATTEMPTS {
            // A snapshot, so that no eviction comes between the map and the data.
            let snapshot = SnapshotView::take(&self.db);
            let view = View(&snapshot);
            let attr = regular(view, ino)?;
            let end = offset.saturating_add(to_u64(len)).min(attr.size_bytes);
            let bytes = end.saturating_sub(offset);
            let Some(chunks) = ChunkRange::touching(offset, bytes, self.chunk_bytes) else {
                return Ok(Vec::new());
            };
            match self.read_runs(view, ino, chunks) {
                Ok(mut data) => {
                    let skip = to_usize(offset - chunks.offset_bytes(self.chunk_bytes));
                    data.truncate(skip + to_usize(bytes));
                    data.drain(..skip);
                    return Ok(data);
                }
                // The archive knows only the newest version: has the file changed meanwhile?
                Err(FsError::Recall { source, .. })
                    if source.kind() == ErrorKind::Missing && self.has_changed(&attr)? => {}
                Err(error) => return Err(error),
            }
        }
        Err(FsError::Damaged { ino, problem: "it changes faster than it can be read" })
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
        let mut at = Some(ChunkNo::new(offset / u64::from(self.chunk_bytes)));
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        while let Some(from) = at {
            let runs = self.live().runs(ino, from, N_RUNS)?;
            at = runs.last().map(|run| run.chunks.end()).filter(|end| *end < ChunkNo::END);
            for run in runs.iter().filter(|run| run.state != ChunkState::Hole) {
                let start = run.chunks.offset_bytes(self.chunk_bytes).max(offset);
                let len = run.chunks.len_bytes(self.chunk_bytes, attr.size_bytes);
                let end = run.chunks.offset_bytes(self.chunk_bytes) + len;
                match ranges.last_mut() {
                    Some((_, last_end)) if *last_end == start => *last_end = end,
                    _ if start < end => ranges.push((start, end)),
                    _ => {}
                }
                if ranges.len() > n_max {
                    ranges.truncate(n_max);
                    return Ok(ranges);
                }
            }
        }
        Ok(ranges)
    }

    /// How many bytes of the file's data are in the store, and how many are evicted.
    pub fn residency(&self, ino: Ino) -> Result<(u64, u64), FsError> {
        let size = regular(self.live(), ino)?.size_bytes;
        let (mut resident, mut cold) = (0, 0);
        let mut at = Some(ChunkNo::new(0));
        while let Some(from) = at {
            let runs = self.live().runs(ino, from, N_RUNS)?;
            at = runs.last().map(|run| run.chunks.end()).filter(|end| *end < ChunkNo::END);
            for run in runs {
                let bytes = run.chunks.len_bytes(self.chunk_bytes, size);
                match run.state {
                    ChunkState::Hole => {}
                    ChunkState::Hot | ChunkState::Warm => resident += bytes,
                    ChunkState::Cold => cold += bytes,
                }
            }
        }
        Ok((resident, cold))
    }

    /// Brings all evicted data of a file back. Returns the bytes that came.
    pub fn recall_file(&self, ino: Ino) -> Result<u64, FsError> {
        let mut bytes = 0;
        let mut at = Some(ChunkNo::new(0));
        while let Some(from) = at {
            let runs = self.live().runs(ino, from, N_RUNS)?;
            at = runs.last().map(|run| run.chunks.end()).filter(|end| *end < ChunkNo::END);
            for run in runs.iter().filter(|run| run.state == ChunkState::Cold) {
                let mut rest = Some(run.chunks);
                while let Some(chunks) = rest {
                    let recalled = self.make_resident(ino, &ChunkRun { chunks, ..*run })?;
                    bytes += to_u64(recalled.bytes.len());
                    rest = ChunkRange::new(recalled.chunks.end(), chunks.end());
                }
            }
        }
        Ok(bytes)
    }

    /// Writes all of `data` at `offset`.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<(), FsError> {
        let len = to_u64(data.len());
        let end = offset.checked_add(len).filter(|&end| end <= FILE_BYTES_MAX);
        let end = end.ok_or(FsError::TooLong("the file"))?;
        let Some(chunks) = ChunkRange::touching(offset, len, self.chunk_bytes) else {
            return Ok(());
        };
        self.note_use(ino);
        self.change(ino, chunks, |attr, window| {
            let size = attr.size_bytes;
            let keeps = |run: &ChunkRun, chunk: ChunkNo| {
                let start = chunk.get() * u64::from(self.chunk_bytes);
                let chunk_end = (start + u64::from(self.chunk_bytes)).min(size);
                run.state != ChunkState::Hole && (start < offset || end < chunk_end)
            };
            let old = self.load_edges(ino, window, keeps)?;
            let old = match old {
                Edges::Cold(run) => return Ok(Step::Recall(run)),
                Edges::Loaded(old) => old,
            };
            let new = self.overlay(chunks, offset, data, old);
            let mut attr = attr.clone();
            attr.size_bytes = size.max(end);
            Ok(Step::Commit(Box::new(move |draft, window| {
                draft.operations.push(Operation::Write { ino, offset, len });
                window.set(ChunkState::Hot, attr.size_bytes, draft);
                for (chunk, bytes) in new {
                    draft.changes.put(Table::Chunks, &schema::chunk(ino, chunk), bytes);
                }
                attr.modified = draft.time;
                put_changed(draft, &mut attr);
            })))
        })
    }

    /// Sets the size of a file. What is cut off is gone; what is added reads as zeros.
    pub fn truncate(&self, ino: Ino, new_size: u64) -> Result<(), FsError> {
        if new_size > FILE_BYTES_MAX {
            return Err(FsError::TooLong("the file"));
        }
        let first = ChunkNo::new(new_size / u64::from(self.chunk_bytes));
        let tail = ChunkRange::from(first).ok_or(FsError::TooLong("the file"))?;
        let kept_bytes = to_usize(new_size % u64::from(self.chunk_bytes));
        self.change(ino, tail, |attr, window| {
            let old_size = attr.size_bytes;
            let cuts = |run: &ChunkRun, chunk: ChunkNo| {
                new_size < old_size
                    && kept_bytes > 0
                    && chunk == first
                    && run.state != ChunkState::Hole
            };
            let mut edge = match self.load_edges(ino, window, cuts)? {
                Edges::Cold(run) => return Ok(Step::Recall(run)),
                Edges::Loaded(mut old) => old.pop().map(|(_, bytes)| bytes),
            };
            if let Some(bytes) = &mut edge {
                bytes.truncate(kept_bytes);
            }
            let mut attr = attr.clone();
            attr.size_bytes = new_size;
            Ok(Step::Commit(Box::new(move |draft, window| {
                draft.operations.push(Operation::Truncate { ino, old_size, new_size });
                if new_size < old_size {
                    cut_tail(window, (tail, new_size), (kept_bytes, edge), draft);
                } else {
                    window.grow(new_size, None, draft);
                }
                attr.modified = draft.time;
                put_changed(draft, &mut attr);
            })))
        })
    }

    /// Unmaps a range: it reads as zeros. The size stays.
    pub fn punch_hole(&self, ino: Ino, offset: u64, len: u64) -> Result<(), FsError> {
        let size = regular(self.live(), ino)?.size_bytes;
        let end = offset.saturating_add(len).min(size);
        let bytes = end.saturating_sub(offset);
        let Some(chunks) = ChunkRange::touching(offset, bytes, self.chunk_bytes) else {
            return Ok(());
        };
        self.change(ino, chunks, |attr, window| {
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

    /// Runs `prepare` under the inode's lock until it has all it needs, then commits what it made.
    fn change(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        prepare: impl Fn(&FileAttr, &MapWindow) -> Result<Step, FsError>,
    ) -> Result<(), FsError> {
        for _ in 0..N_ATTEMPTS {
            let guard = self.locks.lock(&[ino]);
            let attr = regular(self.live(), ino)?;
            let window = MapWindow::load(self.live(), ino, chunks, self.size_of(&attr))?;
            match prepare(&attr, &window)? {
                Step::Commit(fill) => {
                    self.committer.commit(1, move |draft| fill(draft, &window))?;
                    return Ok(());
                }
                Step::Recall(run) => {
                    // Nobody waits for the archive with a lock held.
                    drop(guard);
                    match self.make_resident(ino, &run) {
                        Err(FsError::Recall { source, .. })
                            if source.kind() == ErrorKind::Missing
                                && self.has_changed(&attr)? => {}
                        other => drop(other?),
                    }
                }
            }
        }
        Err(FsError::Damaged { ino, problem: "it is evicted faster than it can be changed" })
    }

    /// The content of the first and the last chunk of a window, where it is needed.
    fn load_edges(
        &self,
        ino: Ino,
        window: &MapWindow,
        needed: impl Fn(&ChunkRun, ChunkNo) -> bool,
    ) -> Result<Edges, FsError> {
        let (first, last) = (window.runs.first(), window.runs.last());
        let mut edges: Vec<(ChunkNo, &ChunkRun)> = Vec::new();
        edges.extend(first.map(|run| (run.chunks.start(), run)));
        edges.extend(last.map(|run| (run.chunks.last(), run)));
        edges.dedup_by_key(|(chunk, _)| *chunk);
        let mut loaded = Vec::new();
        for (chunk, run) in edges.into_iter().filter(|(chunk, run)| needed(run, *chunk)) {
            if run.state == ChunkState::Cold {
                let only = ChunkRange::one(chunk).unwrap_or(run.chunks);
                return Ok(Edges::Cold(ChunkRun { chunks: only, ..*run }));
            }
            let bytes = self.live().0.get(Table::Chunks, &schema::chunk(ino, chunk))?;
            let missing = FsError::Damaged { ino, problem: "a chunk has neither data nor detour" };
            loaded.push((chunk, bytes.ok_or(missing)?));
        }
        Ok(Edges::Loaded(loaded))
    }

    /// The new content of every chunk that a write touches.
    fn overlay(
        &self,
        chunks: ChunkRange,
        offset: u64,
        mut data: &[u8],
        old: Vec<(ChunkNo, Vec<u8>)>,
    ) -> Vec<(ChunkNo, Vec<u8>)> {
        let chunk_bytes = u64::from(self.chunk_bytes);
        let mut old: std::collections::HashMap<_, _> = old.into_iter().collect();
        let mut new = Vec::new();
        let mut at = offset;
        for number in chunks.start().get()..chunks.end().get() {
            let within = to_usize(at - number * chunk_bytes);
            let room = to_usize(chunk_bytes) - within;
            let (now, later) = data.split_at_checked(room).unwrap_or((data, &[]));
            data = later;
            let chunk = ChunkNo::new(number);
            let mut bytes = old.remove(&chunk).unwrap_or_default();
            bytes.resize(bytes.len().max(within + now.len()), 0);
            if let Some(place) = bytes.get_mut(within..within + now.len()) {
                place.copy_from_slice(now);
            }
            at += to_u64(now.len());
            new.push((chunk, bytes));
        }
        new
    }

    fn read_runs(&self, view: View<'_>, ino: Ino, chunks: ChunkRange) -> Result<Vec<u8>, FsError> {
        let chunk_bytes = to_usize(u64::from(self.chunk_bytes));
        let mut out = Vec::with_capacity(to_usize(chunks.len()) * chunk_bytes);
        for run in view.runs_in(ino, chunks)? {
            match run.state {
                ChunkState::Hole => {
                    out.resize(out.len() + to_usize(run.chunks.len()) * chunk_bytes, 0);
                }
                ChunkState::Hot | ChunkState::Warm => {
                    view.read_chunks(ino, run.chunks, chunk_bytes, &mut out)?;
                }
                ChunkState::Cold => self.read_cold(ino, &run, &mut out)?,
            }
        }
        Ok(out)
    }

    fn read_cold(&self, ino: Ino, run: &ChunkRun, out: &mut Vec<u8>) -> Result<(), FsError> {
        let mut rest = Some(run.chunks);
        while let Some(chunks) = rest {
            let recalled = self.ask_recall(ino, &ChunkRun { chunks, ..*run })?;
            let came = recalled.chunks.intersection(chunks).unwrap_or(chunks);
            let skip = recalled.chunks.offset_bytes(self.chunk_bytes);
            let skip = to_usize(came.offset_bytes(self.chunk_bytes) - skip);
            let len = to_usize(came.len()) * to_usize(u64::from(self.chunk_bytes));
            let until = (skip + len).min(recalled.bytes.len());
            let end = out.len() + len;
            out.extend_from_slice(recalled.bytes.get(skip..until).unwrap_or_default());
            out.resize(end, 0);
            rest = ChunkRange::new(came.end(), chunks.end());
        }
        Ok(())
    }

    /// Asks for a run's data; what comes starts no later than the run.
    fn ask_recall(&self, ino: Ino, run: &ChunkRun) -> Result<RecalledExtent, FsError> {
        let failed = |source| FsError::Recall { ino, source };
        let recall = self.recall().ok_or_else(|| {
            let message = "this filesystem was opened without a way to its archive";
            failed(PortError::new(ErrorKind::Unavailable, message))
        })?;
        let request = RecallRequest { ino, chunks: run.chunks, data_xid: run.data_xid };
        let recalled = recall.recall(&request).map_err(failed)?;
        if recalled.chunks.contains(run.chunks.start()) {
            return Ok(recalled);
        }
        let message = "other chunks came than were asked for";
        Err(failed(PortError::new(ErrorKind::Damaged, message)))
    }

    fn make_resident(&self, ino: Ino, run: &ChunkRun) -> Result<RecalledExtent, FsError> {
        let recalled = self.ask_recall(ino, run)?;
        let extent = ResidentExtent { ino, chunks: recalled.chunks, data_xid: run.data_xid };
        self.write_back(&extent, &recalled.bytes)
            .map_err(|source| FsError::Recall { ino, source })?;
        Ok(recalled)
    }

    pub(crate) fn size_of(&self, attr: &FileAttr) -> FileSize {
        FileSize { bytes: attr.size_bytes, chunk_bytes: self.chunk_bytes }
    }

    fn has_changed(&self, before: &FileAttr) -> Result<bool, FsError> {
        let now = self.live().find_attr(before.ino)?;
        Ok(now.is_none_or(|now| now.xid != before.xid))
    }
}

/// What is needed of the chunks at both ends of a change.
enum Edges {
    Loaded(Vec<(ChunkNo, Vec<u8>)>),
    /// It must come back first.
    Cold(ChunkRun),
}

/// Writes a change into its draft.
type Fill = Box<dyn FnOnce(&mut Draft, &MapWindow) + Send>;

/// How a change goes on.
enum Step {
    Commit(Fill),
    Recall(ChunkRun),
}

fn regular(view: View<'_>, ino: Ino) -> Result<FileAttr, FsError> {
    let attr = view.attr(ino)?;
    match attr.kind {
        FileKind::Regular => Ok(attr),
        FileKind::Directory => Err(FsError::IsDirectory),
        FileKind::Symlink(_)
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice(_)
        | FileKind::BlockDevice(_) => Err(FsError::Invalid("not a regular file")),
    }
}

/// Cuts a file: the first chunk of the tail keeps some bytes, the rest is a hole.
fn cut_tail(
    window: &MapWindow,
    (tail, new_bytes): (ChunkRange, u64),
    (kept_bytes, edge): (usize, Option<Vec<u8>>),
    draft: &mut Draft,
) {
    let first = ChunkRange::one(tail.start()).filter(|_| kept_bytes > 0);
    let gone = first.map_or(Some(tail), |first| ChunkRange::from(first.end()));
    let Some(gone) = gone else { return };
    let mut runs = Vec::new();
    if let (Some(first), Some(bytes)) = (first, edge) {
        let (state, data_xid) = (ChunkState::Hot, draft.xid);
        runs.push(ChunkRun { chunks: first, state, data_xid });

        let ino = window.ino();
        draft.changes.put(Table::Chunks, &schema::chunk(ino, first.start()), bytes);
    } else if let Some(first) = first {
        // It was a hole and stays what it was.
        let old = window.runs.first().map(|run| ChunkRun { chunks: first, ..*run });
        runs.extend(old);
    }
    runs.push(ChunkRun { chunks: gone, state: ChunkState::Hole, data_xid: draft.xid });
    window.delete_chunks(gone, draft);
    window.replace(&runs, new_bytes, draft);
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
