//! Reading and changing file data.

use std::sync::atomic::{AtomicBool, Ordering};

use tier_log::Operation;
use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, ErrorKind, FileAttr, FileKind, Ino, PortError,
    RecallRequest, RecalledExtent, ResidentExtent, Xid, to_u64, to_usize, with_causes,
};

use crate::FsError;
use crate::chunk_map::{FileSize, MapWindow};
use crate::commit::Draft;
use crate::db::SnapshotView;
use crate::fs::Kvfs;
use crate::inode::put_changed;
use crate::patch;
use crate::schema::{self, Table};
use crate::view::{LOST, View};

/// Whether an operation may wait for evicted data.
#[derive(Clone, Copy)]
pub enum Patience<'a> {
    /// It waits until the data is there, or does not come.
    Wait,
    /// It waits, and asks just before it changes anything whether it is still wanted: if not, it
    /// ends with [`FsError::Interrupted`]. From then on it cannot be stopped.
    WaitUnless(&'a dyn Fn() -> bool),
    /// It ends with [`FsError::Cold`] at once, and has changed nothing.
    Never,
}

impl Patience<'_> {
    fn is_never(self) -> bool {
        matches!(self, Self::Never)
    }

    fn check_wanted(self) -> Result<(), FsError> {
        match self {
            Self::WaitUnless(is_wanted) if !is_wanted() => Err(FsError::Interrupted),
            Self::Wait | Self::WaitUnless(_) | Self::Never => Ok(()),
        }
    }
}

impl std::fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wait => "Wait",
            Self::WaitUnless(_) => "WaitUnless",
            Self::Never => "Never",
        })
    }
}

/// Largest offset, as Linux has it.
pub(crate) const FILE_BYTES_MAX: u64 = i64::MAX.unsigned_abs();
/// How often an operation starts over because what it needs was evicted meanwhile.
const N_ATTEMPTS: usize = 64;

impl Kvfs {
    /// Up to `len` bytes from `offset` on; fewer at the end of the file. What was evicted comes
    /// back.
    pub fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, FsError> {
        self.read_with(Patience::Wait, ino, offset, len)
    }

    /// The same with a say in whether it waits for what was evicted.
    pub fn read_with(
        &self,
        patience: Patience<'_>,
        ino: Ino,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, FsError> {
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
            match self.read_runs(view, patience, ino, chunks) {
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

    /// Brings all evicted data of a file back. Returns the bytes that came; it ends with
    /// [`FsError::Interrupted`] when `stop` becomes true.
    pub fn recall_file(&self, ino: Ino, stop: &AtomicBool) -> Result<u64, FsError> {
        let mut bytes = 0;
        for run in self.live().all_runs(ino, ChunkNo::new(0)) {
            let run = run?;
            let mut rest = Some(run.chunks).filter(|_| run.state == ChunkState::Cold);
            while let Some(chunks) = rest {
                if stop.load(Ordering::Relaxed) {
                    return Err(FsError::Interrupted);
                }
                let recalled = self.make_resident(ino, &ChunkRun { chunks, ..run })?;
                bytes += to_u64(recalled.bytes().len());
                rest = ChunkRange::new(recalled.chunks().end(), chunks.end());
            }
        }
        Ok(bytes)
    }

    /// Writes all of `data` at `offset`.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<(), FsError> {
        self.write_with(Patience::Wait, ino, offset, data)
    }

    /// The same with a say in whether it waits for what was evicted.
    pub fn write_with(
        &self,
        patience: Patience<'_>,
        ino: Ino,
        offset: u64,
        data: &[u8],
    ) -> Result<(), FsError> {
        self.check_room()?;
        let len = to_u64(data.len());
        let end = offset.checked_add(len).filter(|&end| end <= FILE_BYTES_MAX);
        let end = end.ok_or(FsError::TooLarge("the file"))?;
        let Some(chunks) = ChunkRange::touching(offset, len, self.chunk_bytes) else {
            return Ok(());
        };
        self.note_use(ino);
        self.change(patience, ino, chunks, |attr, window| {
            let size = attr.size_bytes;
            // What is at the edges of the write stays; if it is in the store, nobody looks at it.
            let stays = |chunk: ChunkNo| {
                let start = chunk.get() * u64::from(self.chunk_bytes);
                let chunk_end = (start + u64::from(self.chunk_bytes)).min(size);
                start < chunk_end && (start < offset || end < chunk_end)
            };
            let mut patched = Vec::new();
            for (chunk, run) in edges(window).into_iter().filter(|(chunk, _)| stays(*chunk)) {
                match run.state {
                    ChunkState::Hole => {}
                    ChunkState::Hot | ChunkState::Warm => patched.push(chunk),
                    ChunkState::Cold => return Ok(Step::Recall(only(chunk, run))),
                }
            }
            let new = self.pieces(chunks, offset, data, &patched);
            let mut attr = attr.clone();
            attr.size_bytes = size.max(end);
            Ok(Step::Commit(Box::new(move |draft, window| {
                draft.operations.push(Operation::Write { ino, offset, len });
                window.set(ChunkState::Hot, attr.size_bytes, draft);
                for (chunk, piece) in new {
                    let key = schema::chunk(ino, chunk);
                    match piece {
                        Piece::Whole(bytes) => draft.changes.put(Table::Chunks, &key, bytes),
                        Piece::Patch(patch) => draft.changes.merge(Table::Chunks, &key, patch),
                    }
                }
                attr.modified = draft.time;
                put_changed(draft, &mut attr);
            })))
        })
    }

    /// Sets the size of a file. What is cut off is gone; what is added reads as zeros.
    pub fn truncate(&self, ino: Ino, new_size: u64) -> Result<(), FsError> {
        self.truncate_with(Patience::Wait, ino, new_size)
    }

    /// The same with a say in whether it waits for what was evicted: it does where the new end lies
    /// within a chunk.
    pub fn truncate_with(
        &self,
        patience: Patience<'_>,
        ino: Ino,
        new_size: u64,
    ) -> Result<(), FsError> {
        if new_size > FILE_BYTES_MAX {
            return Err(FsError::TooLarge("the file"));
        }
        let first = ChunkNo::new(new_size / u64::from(self.chunk_bytes));
        let tail = ChunkRange::from(first).ok_or(FsError::TooLarge("the file"))?;
        let kept_bytes = to_usize(new_size % u64::from(self.chunk_bytes));
        self.change(patience, ino, tail, |attr, window| {
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

    /// Runs `prepare` under the inode's lock until it has all it needs, then commits what it made.
    pub(crate) fn change(
        &self,
        patience: Patience<'_>,
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
                    patience.check_wanted()?;
                    self.committer.commit(1, move |draft| {
                        fill(draft, &window);
                        window.put_resident(draft);
                    })?;
                    return Ok(());
                }
                Step::Recall(_) if patience.is_never() => {
                    return Err(FsError::Cold { ino });
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
    pub(crate) fn load_edges(
        &self,
        ino: Ino,
        window: &MapWindow,
        needed: impl Fn(&ChunkRun, ChunkNo) -> bool,
    ) -> Result<Edges, FsError> {
        let mut loaded = Vec::new();
        for (chunk, run) in edges(window).into_iter().filter(|(chunk, run)| needed(run, *chunk)) {
            if run.state == ChunkState::Cold {
                return Ok(Edges::Cold(only(chunk, run)));
            }
            let bytes = self.live().0.get(Table::Chunks, &schema::chunk(ino, chunk))?;
            let bytes = bytes.filter(|bytes| !patch::is_lost(bytes));
            loaded.push((chunk, bytes.ok_or(FsError::Damaged { ino, problem: LOST })?));
        }
        Ok(Edges::Loaded(loaded))
    }

    /// What a write puts into every chunk that it touches; `patched` ones keep the rest of their
    /// content, of the others there is none to keep.
    fn pieces(
        &self,
        chunks: ChunkRange,
        offset: u64,
        mut data: &[u8],
        patched: &[ChunkNo],
    ) -> Vec<(ChunkNo, Piece)> {
        let chunk_bytes = u64::from(self.chunk_bytes);
        let mut new = Vec::new();
        let mut at = offset;
        for number in chunks.start().get()..chunks.end().get() {
            let within = to_usize(at - number * chunk_bytes);
            let room = to_usize(chunk_bytes) - within;
            let (now, later) = data.split_at_checked(room).unwrap_or((data, &[]));
            data = later;
            at += to_u64(now.len());
            let chunk = ChunkNo::new(number);
            let piece = if patched.contains(&chunk) {
                Piece::Patch(patch::to_bytes(within, now))
            } else {
                let mut bytes = Vec::with_capacity(within + now.len());
                bytes.resize(within, 0);
                bytes.extend_from_slice(now);
                Piece::Whole(bytes)
            };
            new.push((chunk, piece));
        }
        new
    }

    fn read_runs(
        &self,
        view: View<'_>,
        patience: Patience<'_>,
        ino: Ino,
        chunks: ChunkRange,
    ) -> Result<Vec<u8>, FsError> {
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
                ChunkState::Cold if patience.is_never() => {
                    return Err(FsError::Cold { ino });
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
            // The data is here all the same; the next reader recalls it again.
            if let Err(error) = self.keep(ino, run.data_xid, &recalled) {
                tracing::warn!(%ino, error = %with_causes(&error), "recalled data is not stored");
            }
            let came = recalled.chunks().intersection(chunks).unwrap_or(chunks);
            let skip = recalled.chunks().offset_bytes(self.chunk_bytes);
            let skip = to_usize(came.offset_bytes(self.chunk_bytes) - skip);
            let len = to_usize(came.len()) * to_usize(u64::from(self.chunk_bytes));
            let until = (skip + len).min(recalled.bytes().len());
            let end = out.len() + len;
            out.extend_from_slice(recalled.bytes().get(skip..until).unwrap_or_default());
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
        if recalled.chunks().contains(run.chunks.start()) {
            return Ok(recalled);
        }
        let message = "other chunks came than were asked for";
        Err(failed(PortError::new(ErrorKind::Damaged, message)))
    }

    fn make_resident(&self, ino: Ino, run: &ChunkRun) -> Result<RecalledExtent, FsError> {
        let recalled = self.ask_recall(ino, run)?;
        self.keep(ino, run.data_xid, &recalled)?;
        Ok(recalled)
    }

    fn keep(&self, ino: Ino, data_xid: Xid, recalled: &RecalledExtent) -> Result<(), FsError> {
        let extent = ResidentExtent { ino, chunks: recalled.chunks(), data_xid };
        self.store_recalled(&extent, recalled.bytes())
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
pub(crate) enum Edges {
    Loaded(Vec<(ChunkNo, Vec<u8>)>),
    /// It must come back first.
    Cold(ChunkRun),
}

/// What a write puts into a chunk.
enum Piece {
    /// All of its content.
    Whole(Vec<u8>),
    /// A change of its content.
    Patch(Vec<u8>),
}

/// The first and the last chunk of a window with their runs, once if they are the same.
fn edges(window: &MapWindow) -> Vec<(ChunkNo, &ChunkRun)> {
    let mut edges: Vec<(ChunkNo, &ChunkRun)> = Vec::new();
    edges.extend(window.runs.first().map(|run| (run.chunks.start(), run)));
    edges.extend(window.runs.last().map(|run| (run.chunks.last(), run)));
    edges.dedup_by_key(|(chunk, _)| *chunk);
    edges
}

/// One chunk of a run.
fn only(chunk: ChunkNo, run: &ChunkRun) -> ChunkRun {
    ChunkRun { chunks: ChunkRange::one(chunk).unwrap_or(run.chunks), ..*run }
}

/// Writes a change into its draft.
pub(crate) type Fill = Box<dyn FnOnce(&mut Draft, &MapWindow) + Send>;

/// How a change goes on.
pub(crate) enum Step {
    Commit(Fill),
    Recall(ChunkRun),
}

pub(crate) fn regular(view: View<'_>, ino: Ino) -> Result<FileAttr, FsError> {
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
