//! The change loop: load, decide, commit or recall.
//!
//! A change of a file's data (a write, a cut, a hole) may touch a chunk only in part, and the rest
//! of that chunk must stay. If the chunk was evicted, its bytes have to come back first, which may
//! take minutes. So a change goes in rounds:
//!
//! 1. **Load.** With the inode's lock held, read the attributes and the window of the chunk map
//!    that the change replaces.
//! 2. **Decide.** A function of these two, given by the operation, says either what to write or
//!    which evicted run it needs. It changes nothing, and may run any number of times.
//! 3. **Commit**, still under the lock, so that attributes and window are what they were; or
//!    **recall**: give the lock up, wait for the archive, store what came as warm chunks, and start
//!    over from the first step.
//!
//! A change that makes more of a file a hole than one transaction should replaces the first chunk
//! of it, and covers the rest with a cut mark (`store` has the marks). If there is no room for one
//! more mark, the reaper's work is done first, in steps of its own, and the change starts over.
//!
//! No lock is held while the archive is waited for; other changes of the inode go on meanwhile, and
//! everything that was loaded is forgotten. That is what makes the order of the locks simple, and
//! it is why each round has to decide anew: the file may have been cut, written, or evicted again.
//! A change that finds its data evicted again and again gives up after [`N_ATTEMPTS`] rounds with
//! [`FsError::Contended`], having changed nothing.
//!
//! An archive knows only the newest persisted version of each chunk. A recall of a version that was
//! overwritten and persisted since is answered with "missing"; that is damage only if the inode is
//! still the one that was loaded, and otherwise one more round (`unless_changed` in
//! `tier::recall`).
//!
//! An operation that must not wait says so ([`Blocking::NonBlocking`]): it gets [`FsError::Cold`]
//! instead of the third step's recall, or where it would have to make room first, and a mount then
//! hands it to a thread that may. One that may
//! be cancelled is asked once, between the decision and the commit: before that point nothing has
//! changed, and after it the change is done and the caller hears of it.

use std::time::Duration;

use tier_types::{
    Call, Cancel, ChunkNo, ChunkRange, ChunkRun, ChunkState, FileAttr, Ino, RecallHint,
};

use crate::FsError;
use crate::core::{Core, Kvfs, ROWS_BYTES};
use crate::space::{Permit, Purpose};
use crate::store::FILE_BYTES_MAX;
use crate::tx::{Draft, MapWindow};

/// How often an operation starts over because what it needs was evicted meanwhile.
pub(super) const N_ATTEMPTS: usize = 64;

/// How long a change does the reaper's work before it is refused for want of room.
const ROOM_WAIT_MAX: Duration = Duration::from_mins(5);

/// Rows and chunks that an operation deletes itself; more are left to the reaper.
pub(super) const N_ROWS_AT_ONCE: u64 = 64;

/// Whether an operation may wait for evicted data.
///
/// ```no_run
/// use kvfs::ops::Blocking;
/// use kvfs::{FsError, Kvfs};
/// use tier_types::Ino;
///
/// /// Reads on a thread that must not wait, and says whether another one should.
/// fn read_or_defer(fs: &Kvfs, ino: Ino) -> Result<Option<Vec<u8>>, FsError> {
///     match fs.read_with(Blocking::NonBlocking, ino, 0, 4096) {
///         Err(FsError::Cold { .. }) => Ok(None),
///         read => read.map(Some),
///     }
/// }
/// ```
#[derive(Clone, Copy)]
pub enum Blocking<'a> {
    /// It waits until the data is there, or does not come.
    Blocking,
    /// It waits for as long as its caller is not gone, and asks just before it changes anything
    /// whether it is still wanted: if not, it ends with [`FsError::Interrupted`].
    Cancellable(&'a dyn WaitingCaller),
    /// It ends with [`FsError::Cold`] at once, and has changed nothing, or of a large hole one end:
    /// the same operation done again does what is left.
    NonBlocking,
}

/// How data is wanted that is asked for.
#[derive(Clone, Copy)]
pub(crate) struct RecallWish<'a> {
    pub(crate) call: Call<'a>,
    pub(crate) hint: RecallHint,
}

/// A caller that waits for an operation, and may be gone before it comes to an end.
pub trait WaitingCaller: Cancel {
    /// Whether the answer is still wanted; from now on the caller cannot be gone.
    fn claim(&self) -> bool;

    /// Whether it was claimed.
    fn is_claimed(&self) -> bool;
}

impl<'a> Blocking<'a> {
    /// How a recall for it is called.
    pub(crate) fn call(self) -> Call<'a> {
        match self {
            Self::Blocking | Self::NonBlocking => Call::interactive(),
            Self::Cancellable(caller) => Call::interactive().cancelled_by(caller),
        }
    }

    /// Says that what follows cannot be taken back.
    pub(crate) fn claim(self) -> Result<(), FsError> {
        match self {
            Self::Cancellable(caller) if !caller.claim() => Err(FsError::Interrupted),
            Self::Blocking | Self::Cancellable(_) | Self::NonBlocking => Ok(()),
        }
    }
}

impl Blocking<'_> {
    pub(super) fn is_allowed(self) -> bool {
        match self {
            Self::Blocking | Self::Cancellable(_) => true,
            Self::NonBlocking => false,
        }
    }

    /// The same for what follows a first change, which cannot be cancelled any more.
    pub(super) fn once_changed(self) -> Self {
        match self {
            Self::Blocking | Self::Cancellable(_) => Self::Blocking,
            Self::NonBlocking => Self::NonBlocking,
        }
    }
}

impl std::fmt::Debug for Blocking<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Blocking => "Blocking",
            Self::Cancellable(_) => "Cancellable",
            Self::NonBlocking => "NonBlocking",
        })
    }
}

/// Writes a change into its draft.
pub(super) type Fill = Box<dyn FnOnce(&mut Draft, &MapWindow) + Send>;

/// The room that a change asks for.
#[derive(Clone, Copy)]
pub(super) struct RoomWanted {
    pub(super) purpose: Purpose,
    pub(super) bytes: u64,
}

impl RoomWanted {
    /// A change that adds so many bytes of data.
    pub(super) fn growth(data_bytes: u64) -> Self {
        Self { purpose: Purpose::Growth, bytes: data_bytes.saturating_add(ROWS_BYTES) }
    }

    /// A change that takes data away, and may keep some bytes of a chunk at each end.
    pub(super) fn removal(chunk_bytes: u32) -> Self {
        Self { purpose: Purpose::Removal, bytes: ROWS_BYTES + 2 * u64::from(chunk_bytes) }
    }
}

/// How a change goes on when its inode is locked and its map is loaded.
pub(super) enum Decision {
    /// All that it needs is in the store.
    Commit(Fill),
    /// The same, and a cut mark is among it, which the reaper has to settle.
    CommitMark(Fill),
    /// This run must come back first.
    Recall(ChunkRun),
    /// There are as many cut marks as there can be: the reaper's work comes first.
    Settle,
}

/// What is needed of the chunks at both ends of a change.
pub(super) enum Edges {
    /// The content of each that is needed, in order.
    Loaded(Vec<EdgeContent>),
    /// This one must come back first.
    Cold(ChunkRun),
}

/// The content of a chunk at the end of a change.
pub(super) struct EdgeContent {
    pub(super) chunk: ChunkNo,
    /// May be shorter than a chunk.
    pub(super) content: Vec<u8>,
}

impl Kvfs {
    /// Runs `decide` under the inode's lock until it has all it needs, then commits what it made.
    /// `scope` says, under the lock as well, which chunks are replaced.
    pub(super) fn change(
        &self,
        room: RoomWanted,
        blocking: Blocking<'_>,
        ino: Ino,
        scope: impl Fn(&FileAttr) -> Result<ChunkRange, FsError>,
        decide: impl Fn(&FileAttr, &MapWindow) -> Result<Decision, FsError>,
    ) -> Result<(), FsError> {
        // Before any lock: what makes room must not wait for a writer that waits for room.
        let permit = self.room_for(room, blocking)?;
        for _ in 0..N_ATTEMPTS {
            let guard = self.locks.lock(&[ino]);
            let attr = self.reader().regular(ino)?;
            let chunks = scope(&attr)?;
            let window = MapWindow::load(self.reader(), ino, chunks, self.size_of(&attr))?;
            let decision = decide(&attr, &window)?;
            let is_marked = matches!(decision, Decision::CommitMark(_));
            match decision {
                Decision::Commit(fill) | Decision::CommitMark(fill) => {
                    // The last moment: what follows cannot be taken back.
                    blocking.claim()?;
                    self.committer.commit(permit, 1, move |draft| {
                        fill(draft, &window);
                        window.put_sums(draft);
                    })?;
                    if is_marked {
                        self.reaping.wake();
                    }
                    drop(guard);
                    self.bound_backlogs();
                    return Ok(());
                }
                Decision::Settle => {
                    drop(guard);
                    self.make_room_for_mark(ino)?;
                }
                Decision::Recall(_) if !blocking.is_allowed() => {
                    return Err(FsError::Cold { ino });
                }
                Decision::Recall(run) => {
                    // No thread waits for the archive with a lock held.
                    drop(guard);
                    let recall = RecallWish { call: blocking.call(), hint: RecallHint::Unknown };
                    let recalled = self.make_resident(&recall, ino, &run, room.purpose);
                    // Whether or not it came, the next round decides by the map: it finds warm
                    // chunks, or another version to ask for.
                    self.unless_changed(&attr, recalled)?;
                }
            }
        }
        Err(FsError::Contended { ino, problem: "is evicted faster than it can be changed" })
    }
}

impl Core {
    /// The room of a change. One that may wait does the reaper's work if that may make room.
    pub(super) fn room_for(
        &self,
        room: RoomWanted,
        blocking: Blocking<'_>,
    ) -> Result<Permit<'_>, FsError> {
        match self.admit(room.purpose, room.bytes) {
            Err(refused @ FsError::NoSpace(_))
                if room.purpose == Purpose::Growth && self.dying_bytes() > 0 =>
            {
                if !blocking.is_allowed() {
                    return Err(refused);
                }
                // A caller that is interrupted meanwhile is answered at once, and the commit finds
                // that it is not wanted any more.
                self.admit_growth_within(ROOM_WAIT_MAX, room.bytes)
            }
            admitted => admitted,
        }
    }

    /// As much of a range as one transaction can make a hole: all of it, or else the first chunk,
    /// and the rest is left to a cut mark.
    pub(super) fn hole_scope(&self, ino: Ino, range: ChunkRange) -> Result<ChunkRange, FsError> {
        let is_resident = |run: &ChunkRun| run.state.is_resident();
        let reach = self.reader().reach(ino, range, N_ROWS_AT_ONCE, is_resident)?;
        let first = ChunkRange::one(range.start()).filter(|_| reach < range.end());
        Ok(first.unwrap_or(range))
    }

    /// The content of the first and the last chunk of a window, where it is needed.
    pub(super) fn load_edges(
        &self,
        window: &MapWindow,
        needed: impl Fn(&ChunkRun, ChunkNo) -> bool,
    ) -> Result<Edges, FsError> {
        let mut loaded = Vec::new();
        for edge in edges(window).into_iter().filter(|edge| needed(&edge.run, edge.chunk)) {
            match edge.run.state {
                ChunkState::Hole | ChunkState::Hot | ChunkState::Warm => {}
                ChunkState::Cold => return Ok(Edges::Cold(edge.alone())),
                // What would stay of it has no content.
                ChunkState::Lost => return Err(window.lost(&edge.alone())),
            }
            let content = self.reader().chunk(window.ino(), edge.chunk)?;
            loaded.push(EdgeContent { chunk: edge.chunk, content });
        }
        Ok(Edges::Loaded(loaded))
    }
}

/// Where a range ends, if a file can reach so far.
pub(super) fn end_of(offset: u64, len: u64) -> Result<u64, FsError> {
    match offset.checked_add(len) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(end),
        _ => Err(FsError::TooLarge("the file")),
    }
}

/// The first or the last chunk of a window, with its run.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    pub(super) chunk: ChunkNo,
    pub(super) run: ChunkRun,
}

impl Edge {
    /// The run of this chunk alone.
    #[expect(clippy::expect_used, reason = "a chunk of a run is not the end of all chunks")]
    pub(super) fn alone(&self) -> ChunkRun {
        let chunks = ChunkRange::one(self.chunk).expect("a chunk of a run");
        ChunkRun { chunks, ..self.run }
    }
}

/// The first and the last chunk of a window, once if they are the same.
pub(super) fn edges(window: &MapWindow) -> Vec<Edge> {
    let first = window.runs().first().map(|run| Edge { chunk: run.chunks.start(), run: *run });
    let last = window.runs().last().map(|run| Edge { chunk: run.chunks.last(), run: *run });
    let mut edges: Vec<_> = first.into_iter().chain(last).collect();
    edges.dedup_by_key(|edge| edge.chunk);
    edges
}
