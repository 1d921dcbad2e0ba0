//! Recall: the way back for evicted data, and the only place that stores what it brought.
//!
//! A read hands its reader the bytes that came and stores them as warm chunks by the way; if that
//! fails, or there is no room for it, the reader has its data all the same and the next one recalls
//! it again. A change (`ops::change`) needs the chunks in the store and fails if they cannot be
//! stored. How a recall is ordered against evictions and writers is told in `tier::evict`.
//!
//! An answer crosses a port, so it is checked here and not believed: it must hold the first chunk
//! that was asked for and bytes for every chunk that it says it holds. Bytes that are missing would
//! read as zeros, and would be archived as zeros by the next snapshot. Only the last chunk may be
//! short: it ends where the file ended when it was archived. An answer may hold fewer chunks than
//! were asked for, and the rest is asked for again, or more, and those are stored as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tier_types::{
    Call, ChunkNo, ChunkRange, ChunkRun, ChunkState, ErrorKind, FileAttr, Ino, PortError, Recall,
    RecallHint, RecallRequest, RecalledExtent, ResidentExtent, to_u64, to_usize, with_causes,
};

use crate::FsError;
use crate::core::{Core, Kvfs, ROWS_BYTES};
use crate::ops::RecallWish;
use crate::space::Purpose;
use crate::store::{ChunkBefore, RunState};
use crate::tx::MapWindow;

/// From so many bytes on it is worth saying that all of them are wanted.
const SEQUENTIAL_BYTES_MIN: u64 = 4 << 20;

/// The recall of a filesystem without an archive: every answer is an error of kind `Away`.
///
/// ```
/// use kvfs::NoArchive;
/// use tier_types::{ChunkRange, ErrorKind, Ino, Recall, RecallRequest, Xid};
///
/// let request =
///     RecallRequest { ino: Ino::new(7), chunks: ChunkRange::ALL, data_xid: Xid::new(9) };
/// assert_eq!(NoArchive.recall(&request).unwrap_err().kind(), ErrorKind::Away);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoArchive;

impl Recall for NoArchive {
    fn recall_with(
        &self,
        _: &Call<'_>,
        _: RecallHint,
        _: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        let message = "this filesystem was opened without a way to its archive";
        Err(PortError::new(ErrorKind::Away, message))
    }
}

impl Kvfs {
    /// Brings all evicted data of a file back, behind what readers wait for. Returns the bytes that
    /// came; it ends with [`FsError::Interrupted`] when `stop` becomes true.
    pub fn recall_file(&self, ino: Ino, stop: &AtomicBool) -> Result<u64, FsError> {
        self.recall_range(ino, ChunkRange::ALL, stop)
    }

    /// The evicted runs of a file.
    pub fn cold_runs(&self, ino: Ino) -> impl Iterator<Item = Result<ChunkRun, FsError>> {
        let is_cold = |run: &Result<ChunkRun, FsError>| {
            run.as_ref().map_or(true, |run| run.state == ChunkState::Cold)
        };
        self.reader().all_runs(ino, ChunkNo::new(0)).filter(is_cold)
    }

    /// The same for a part of a file.
    pub fn recall_range(
        &self,
        ino: Ino,
        range: ChunkRange,
        stop: &AtomicBool,
    ) -> Result<u64, FsError> {
        let call = Call::bulk().cancelled_by(stop);
        let mut bytes = 0;
        for run in self.reader().all_runs(ino, range.start()) {
            let run = run?;
            let Some(chunks) = run.chunks.intersection(range) else { break };
            let run = ChunkRun { chunks, ..run };
            // A small file comes with its neighbours, and nothing behind it is wanted.
            let run_bytes = run.chunks.len().saturating_mul(u64::from(self.chunk_bytes));
            let is_long = run_bytes >= SEQUENTIAL_BYTES_MIN;
            let hint = if is_long { RecallHint::Sequential } else { RecallHint::Unknown };
            let wish = RecallWish { call, hint };
            let mut rest = Some(run.chunks).filter(|_| run.state == ChunkState::Cold);
            // An answer may hold less than the run: as much as one frame of a tarball.
            while let Some(chunks) = rest {
                if stop.load(Ordering::Relaxed) {
                    return Err(FsError::Interrupted);
                }
                let run = ChunkRun { chunks, ..run };
                let recalled = self.make_resident(&wish, ino, &run, Purpose::Growth)?;
                bytes += to_u64(recalled.bytes().len());
                rest = ChunkRange::new(recalled.chunks().end(), chunks.end());
            }
        }
        Ok(bytes)
    }

    /// Appends a cold run's data, each chunk filled up with zeros, and stores what came.
    pub(crate) fn read_cold(
        &self,
        wish: &RecallWish<'_>,
        ino: Ino,
        run: &ChunkRun,
        out: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        let mut rest = Some(run.chunks);
        while let Some(chunks) = rest {
            let run = ChunkRun { chunks, ..*run };
            let recalled = self.ask(wish, ino, &run)?;
            // The reader has its data all the same; the next one recalls it again.
            let extent = extent_of(ino, &run, &recalled);
            if self.room.is_critical() {
                // Stored, it would be the first to be evicted, at the cost of what writers wait
                // for.
                let came = append(&recalled, chunks, self.chunk_bytes, out);
                rest = ChunkRange::new(came.end(), chunks.end());
                continue;
            }
            // As growth: data that is kept only for later readers must not use up the room that is
            // set apart for removals and evictions.
            match self.store_recalled(&extent, &recalled, Purpose::Growth) {
                Ok(()) => {}
                Err(FsError::NoSpace(_)) => {
                    tracing::debug!(%ino, "no room: recalled data goes to its reader only");
                }
                Err(error) => {
                    tracing::warn!(%ino, error = %with_causes(&error), "recalled data not stored");
                }
            }
            let came = append(&recalled, chunks, self.chunk_bytes, out);
            rest = ChunkRange::new(came.end(), chunks.end());
        }
        Ok(())
    }

    /// Brings at least the start of a cold run back and stores what came, with the room of what it
    /// is brought back for.
    pub(crate) fn make_resident(
        &self,
        wish: &RecallWish<'_>,
        ino: Ino,
        run: &ChunkRun,
        purpose: Purpose,
    ) -> Result<RecalledExtent, FsError> {
        let recalled = self.ask(wish, ino, run)?;
        self.store_recalled(&extent_of(ino, run, &recalled), &recalled, purpose)?;
        Ok(recalled)
    }

    /// What an operation on cold data came to; `None` if it is to start over: the archive knows
    /// only the newest version of each chunk, so that data of a file that changed meanwhile may be
    /// missing there.
    pub(crate) fn unless_changed<T>(
        &self,
        before: &FileAttr,
        done: Result<T, FsError>,
    ) -> Result<Option<T>, FsError> {
        match done {
            Err(FsError::Recall { source, .. })
                if source.kind() == ErrorKind::Missing && self.has_changed(before)? =>
            {
                Ok(None)
            }
            done => done.map(Some),
        }
    }

    fn has_changed(&self, before: &FileAttr) -> Result<bool, FsError> {
        // A change of attributes alone has a new transaction, too, and counts as one here. That
        // costs one more round, while a change that was overlooked would be reported as damage.
        let now = self.reader().find_attr(before.ino)?;
        Ok(now.is_none_or(|now| now.xid != before.xid))
    }

    /// Asks for a run's data; what comes holds the first chunk of the run, and bytes for all of its
    /// chunks.
    fn ask(
        &self,
        wish: &RecallWish<'_>,
        ino: Ino,
        run: &ChunkRun,
    ) -> Result<RecalledExtent, FsError> {
        let failed = |source: PortError| {
            let is_cancelled = source.kind() == ErrorKind::Cancelled;
            if is_cancelled { FsError::Interrupted } else { FsError::Recall { ino, source } }
        };
        let request = RecallRequest { ino, chunks: run.chunks, data_xid: run.data_xid };
        let begin = Instant::now();
        let recalled = self.recall.recall_with(&wish.call, wish.hint, &request).map_err(failed)?;
        let came = recalled.chunks();
        tracing::debug!(
            %ino,
            asked = %run.chunks,
            chunks = %came,
            xid = %run.data_xid,
            bytes = recalled.bytes().len(),
            elapsed = ?begin.elapsed(),
            "recalled"
        );
        check_answer(&request, &recalled, self.chunk_bytes).map_err(failed)?;
        Ok(recalled)
    }
}

/// Whether an answer is one to this request: it may have been made for another one, or for another
/// size of chunks, and bytes that are missing must never read as zeros.
fn check_answer(
    request: &RecallRequest,
    answer: &RecalledExtent,
    chunk_bytes: u32,
) -> Result<(), PortError> {
    let damaged = |message: String| Err(PortError::new(ErrorKind::Damaged, message));
    let (ino, asked, came) = (request.ino, request.chunks, answer.chunks());
    // Without the first chunk the rest would begin where the request did, and be asked for again
    // and again.
    if !came.contains(asked.start()) {
        return damaged(format!("inode {ino}: chunks {came} came where {asked} were asked for"));
    }
    let n_bytes = to_u64(answer.bytes().len());
    let n_needed = came.len().saturating_mul(u64::from(chunk_bytes));
    if n_bytes > n_needed || n_needed - n_bytes >= u64::from(chunk_bytes) {
        return damaged(format!("inode {ino}: {n_bytes} bytes came for chunks {came}"));
    }
    Ok(())
}

impl Core {
    /// Stores recalled chunks as warm, where a detour still stands for exactly this version.
    fn store_recalled(
        &self,
        extent: &ResidentExtent,
        recalled: &RecalledExtent,
        purpose: Purpose,
    ) -> Result<(), FsError> {
        let ResidentExtent { ino, chunks, data_xid } = *extent;
        let permit = self.admit(purpose, ROWS_BYTES + to_u64(recalled.bytes().len()))?;
        let guard = self.locks.lock(&[ino]);
        // Everything may have happened since the request was made: the map as it is now decides.
        let Some(attr) = self.reader().find_attr(ino)? else { return Ok(()) };
        let window = MapWindow::load(self.reader(), ino, chunks, self.size_of(&attr))?;
        let comes = move |run: &ChunkRun| run.data_xid == data_xid && run.state == ChunkState::Cold;
        let mut contents = Vec::new();
        for run in window.runs().iter().filter(|run| comes(run)) {
            let bytes = recalled.bytes_of(run.chunks);
            let new = self.chunk_writer.write(run.chunks.start(), bytes)?;
            assert_eq!(new.len(), run.chunks.len(), "an answer has bytes for each of its chunks");
            contents.push(new);
        }
        if contents.is_empty() {
            return Ok(());
        }
        self.committer.commit(permit, 0, move |draft| {
            // What an opening goes back to if a loss of power took the bytes: the detour still
            // leads to the archive.
            let detour = RunState { state: ChunkState::Cold, data_xid };
            for new in contents {
                new.put(ino, |_| ChunkBefore::Away(detour), draft);
            }
            window.set_state(comes, ChunkState::Warm, draft);
            window.put_sums(draft);
        })?;
        // The listener may ask for the inode's attributes.
        drop(guard);
        self.bound_backlogs();
        self.residency_changed(ino);
        Ok(())
    }
}

fn extent_of(ino: Ino, run: &ChunkRun, recalled: &RecalledExtent) -> ResidentExtent {
    ResidentExtent { ino, chunks: recalled.chunks(), data_xid: run.data_xid }
}

/// Appends what came of the wanted chunks, each filled up with zeros, and says which those are.
#[expect(clippy::expect_used, reason = "the answer was checked to hold the first wanted chunk")]
fn append(
    recalled: &RecalledExtent,
    wanted: ChunkRange,
    chunk_bytes: u32,
    out: &mut Vec<u8>,
) -> ChunkRange {
    let came = recalled.chunks().intersection(wanted).expect("the first wanted chunk came");
    let end = out.len() + to_usize(came.len()) * to_usize(u64::from(chunk_bytes));
    out.extend_from_slice(recalled.bytes_of(came));
    // The last chunk ends where the file ended when it was archived.
    out.resize(end, 0);
    came
}
