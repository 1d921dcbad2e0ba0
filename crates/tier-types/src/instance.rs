//! The instance port: a mounted filesystem is read, evicted from and restored.
//!
//! To be tiered, a filesystem implements this port and the [log](crate::LogService), and is given a
//! [`Recall`](crate::Recall). The engine calls it in four ways, and each has one rule that
//! everything else rests on.
//!
//! *Persisting* reads a [`MountedSnapshot`]: attributes, names, chunk map and chunks of the inodes
//! that a publication changed, in ascending order of inode numbers, by several threads. The rule:
//! the view is of exactly one transaction. Writes, deletions and evictions that come later do not
//! show in it.
//!
//! *Evicting* names an extent by inode, chunks and **data xid**, the transaction that last changed
//! its data. The rule: only chunks that still have this data xid are evicted. That comparison, made
//! under the inode's own lock, is what orders an eviction and a concurrent write: either the write
//! came first and the chunk has a newer xid, so that it is skipped, or the eviction came first and
//! the write finds a detour. No other lock is held between the decision to evict and the deletion,
//! however long that takes. An eviction is no operation: it has no transaction, changes no
//! attribute, and nothing of it is logged, because the content of the filesystem stays what it is.
//!
//! *Recalling* goes the other way: a reader that meets a detour asks for exactly its data xid and
//! keeps the answer as *warm*, if a detour with this xid still stands. A warm chunk is resident,
//! archived and unchanged, so that evicting it again costs nothing.
//!
//! ```text
//!           write             evict            recall
//!   hole ─────────▶ hot ─────────────▶ cold ───────────▶ warm
//!    ▲               ▲                  ▲  ◀─────────────  │
//!    └── unmap ──────┴──── write ───────┴───── evict ──────┘   (write and unmap: from any state)
//! ```
//!
//! *Restoring* fills an empty filesystem from an archive: states, names and chunk maps whose data
//! is all cold, or *lost*. The rule: inodes may come in any order, and one whose restore was cut
//! off is not there.
//!
//! A mapped chunk with neither data nor detour is an error wherever it is met, never zeros. A chunk
//! that could not be read when it was persisted comes back from the archive as *lost*, with the
//! data xid that it had. There is no way to lost but a restore, and none back but newer content:
//!
//! ```text
//!   restore                  write of the whole chunk
//!  ─────────▶ lost ────────────────────────────────────▶ hot
//!               └───────── unmap ─────────▶ hole
//! ```
//!
//! Until then every read of it is an error of kind `Damaged`, and so is a change that would keep
//! some of its bytes. It takes no room, is evicted and recalled by nothing, and is persisted again
//! as what it is.
//!
//! The rules of this page are asserted by `tier_testkit::contract::check_mounted_instance`, which
//! runs on any implementation.

use std::sync::Arc;

use crate::{
    ChunkNo, ChunkRange, ErrorKind, Ino, InodeState, PortError, Publication, Timestamp, Xid,
};

/// Where a run of chunks is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChunkState {
    /// Nowhere: reads as zeros.
    Hole,
    /// In the KVS, and perhaps only there.
    Hot,
    /// In the KVS, recalled from a tarball and unchanged since.
    Warm,
    /// Evicted: a detour stands for it.
    Cold,
    /// Nowhere, and not zeros: it could not be read when it was persisted. It reads as an error
    /// until newer content takes its place.
    Lost,
}

impl ChunkState {
    /// Whether the bytes are in the KVS.
    pub fn is_resident(self) -> bool {
        matches!(self, Self::Hot | Self::Warm)
    }
}

/// A run of chunks of one file in one state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ChunkRun {
    /// The chunks.
    pub chunks: ChunkRange,
    /// Where they are.
    pub state: ChunkState,
    /// The transaction that last changed their data, or unmapped them. Zero for what was never
    /// written.
    pub data_xid: Xid,
}

/// A run of chunks that is in the KVS and could be evicted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ResidentExtent {
    /// The inode.
    pub ino: Ino,
    /// The chunks.
    pub chunks: ChunkRange,
    /// Their version.
    pub data_xid: Xid,
}

/// What a policy may want to know of an inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EvictionFacts {
    /// The inode.
    pub ino: Ino,
    /// Its size in bytes, resident or not.
    pub size_bytes: u64,
    /// Bytes in the KVS.
    pub resident_bytes: u64,
    /// When it was last read or written.
    pub last_used: Timestamp,
    /// Whether an operator pinned it, or a directory above it.
    pub pinned: bool,
}

/// What became of a conditional eviction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvictOutcome {
    /// This many bytes of chunk data left the KVS; detours are in their place.
    Evicted {
        /// Chunk bytes before compression.
        bytes: u64,
    },
    /// Nothing to do: changed since, or already cold, or the inode is gone.
    Skipped,
}

/// What became of the space of what was evicted, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reclaimed {
    /// What the disk got back.
    pub returned_bytes: u64,
    /// What is free and not given back, about: it goes when more of its neighbours have.
    pub garbage_bytes: u64,
    /// What is free and needed by a KVS snapshot: it goes when that is released.
    pub pinned_bytes: u64,
}

/// What a filesystem takes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Bytes that the KVS takes on its disk.
    pub physical_bytes: u64,
    /// Inodes.
    pub n_inodes: u64,
    /// Bytes of chunks with data in the KVS.
    pub resident_bytes: u64,
    /// Bytes of chunks for which a detour stands.
    pub cold_bytes: u64,
    /// Bytes of chunks that are lost.
    pub lost_bytes: u64,
    /// What the store as a whole takes, and may take.
    pub space: SpaceUsage,
    /// What was done since the last publication.
    pub backlog: Backlog,
}

/// The space of a store, in bytes: of the filesystem, and of all that its archive keeps beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpaceUsage {
    /// What is taken of the limit. Where a store may fill a whole disk, everything else on the disk
    /// counts.
    pub used_bytes: u64,
    /// What may be taken, the reserve left out; zero for no limit.
    pub limit_bytes: u64,
    /// What writers can still take.
    pub free_bytes: u64,
    /// What is left to the archive and to what makes room when writers find none.
    pub reserve_bytes: u64,
    /// Operations that wait for room.
    pub n_waiting: u64,
}

/// What was done since the last publication, and so is in no snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// Logged operations.
    pub operations: u64,
    /// Bytes that they wrote into the key-value store, about; those since the filesystem was opened
    /// at least.
    pub bytes: u64,
}

/// A read-only view of the filesystem at one transaction.
pub trait MountedSnapshot: Send + Sync {
    /// The last transaction that the view includes.
    fn xid(&self) -> Xid;

    /// The size of a chunk in bytes, the same for all files.
    fn chunk_bytes(&self) -> u32;

    /// Whether the filesystem is in use right now: foreground activity, to which background readers
    /// of the snapshot should yield.
    fn foreground_active(&self) -> bool {
        // A filesystem that cannot tell is persisted at full speed.
        false
    }

    /// A way to read it, for one thread; there may be several at a time.
    fn reader(&self) -> Box<dyn SnapshotReader + '_>;
}

/// An inode as a snapshot shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInode {
    /// Everything about it but its data.
    pub state: InodeState,
    /// One path of it, as [`SnapshotReader::path`] gives it.
    pub path: Option<Vec<u8>>,
    /// The first runs of its chunk map, as [`SnapshotReader::chunk_runs`] gives them; what is no
    /// regular file may have none.
    pub runs: Vec<ChunkRun>,
}

/// Reads a mounted snapshot. A walk over many inodes goes in ascending order, and an implementation
/// makes that cheap: it keeps its place and reads ahead.
pub trait SnapshotReader: Send {
    /// All about these inodes but their data, with `n_runs_max` runs of each chunk map at most;
    /// `None` for one that does not exist. There is an answer for each of them, in their order, and
    /// one that is an error says nothing of the others.
    fn inodes(
        &mut self,
        inodes: &[Ino],
        n_runs_max: usize,
    ) -> Vec<Result<Option<SnapshotInode>, PortError>>;

    /// The inodes of the snapshot above `after`, in order, at most `n_max`: for where the log
    /// cannot say which changed.
    fn inodes_after(&mut self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError>;

    /// One inode, without its path and its map.
    fn inode(&mut self, ino: Ino) -> Result<Option<InodeState>, PortError> {
        let answers = self.inodes(&[ino], 0);
        let unanswered = || PortError::new(ErrorKind::Failed, format!("no answer for inode {ino}"));
        let inode = answers.into_iter().next().ok_or_else(unanswered)??;
        Ok(inode.map(|inode| inode.state))
    }

    /// One path of the inode, without a leading slash, empty for the root; `None` if it has no
    /// name.
    fn path(&mut self, ino: Ino) -> Result<Option<Vec<u8>>, PortError>;

    /// The first `n_max` runs of the chunk map from `from` on. The map is total: runs are
    /// adjacent, the first one holds `from` (it is cut there) and the last one of the file ends at
    /// [`ChunkNo::END`].
    fn chunk_runs(
        &mut self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, PortError>;

    /// Appends the bytes of these resident chunks, each but the last filled up with zeros to a
    /// whole chunk; the last one may end where its stored bytes do, and zeros follow. A chunk that
    /// has no data, or whose data is not what was written, is an error of kind `Damaged`, never
    /// zeros. An error of another kind, unless it is `Away` or `Cancelled`, says that these
    /// chunks cannot be read now and may be another time. After either the reader can be asked for
    /// the chunks one by one.
    fn read_chunks(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError>;
}

/// A place in a file: one of its chunks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ChunkPlace {
    /// The inode.
    pub ino: Ino,
    /// The chunk.
    pub chunk: ChunkNo,
}

impl ChunkPlace {
    /// The first chunk of a file.
    pub fn start_of(ino: Ino) -> Self {
        Self { ino, chunk: ChunkNo::new(0) }
    }
}

/// The live filesystem, as far as it can be asked: nothing is changed by it.
///
/// Questions about many inodes are asked together, and answered in their order. An error of kind
/// `Damaged` is of this inode alone, and says nothing of the others. Any other error is of the
/// filesystem as a whole, and no answer need follow it; without one there is an answer for each.
pub trait InstanceView: Send + Sync {
    /// The resident runs of data from each of these places on, to the end of its file or so many
    /// that there are `n_max`; the first one is cut at the place. None for an inode that is gone.
    fn resident_extents(
        &self,
        from: &[ChunkPlace],
        n_max: usize,
    ) -> Vec<Result<Vec<ResidentExtent>, PortError>>;

    /// What a policy may want to know of each of these inodes; `None` for one that is gone.
    fn eviction_facts(&self, inodes: &[Ino]) -> Vec<Result<Option<EvictionFacts>, PortError>>;

    /// Inodes above `after` that have warm data, in order, at most `n_max`.
    fn warm_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError>;

    /// Inodes above `after`, in order, at most `n_max`: all there are, for where the log cannot say
    /// which changed.
    fn inodes_after(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError>;

    /// What is taken up.
    fn usage(&self) -> Result<Usage, PortError>;
}

/// The live filesystem.
pub trait MountedInstance: InstanceView {
    /// The KVS snapshot of a publication. If it is held no more, because it was released or a crash
    /// lost it, the present state serves as long as nothing was logged since; after that it is
    /// `Missing`, and the next publication covers both.
    fn open_snapshot(
        &self,
        publication: &Publication,
    ) -> Result<Arc<dyn MountedSnapshot>, PortError>;

    /// Evicts, of each of these extents, the chunks that are resident in exactly this version, and
    /// leaves detours. What has another version by now is left alone. Outcomes come like the
    /// answers of an [`InstanceView`]: behind an error that is not `Damaged` there need be none,
    /// and nothing more is evicted.
    fn evict_extents(&self, extents: &[ResidentExtent]) -> Vec<Result<EvictOutcome, PortError>>;

    /// Gives the space of what was evicted back to the disk, as far as that is worth its cost, in
    /// steps that fit into what is free; it ends early when `is_stopped` says so.
    fn reclaim(&self, is_stopped: &dyn Fn() -> bool) -> Result<Reclaimed, PortError>;

    /// Puts back an inode of a lost filesystem: its state, its names, and its chunk map as runs in
    /// order, each a hole, cold or lost; what no run covers was never written. Inodes may come in
    /// any order, each once. Runs that are not in order or resident, an error that `runs` yields,
    /// and an inode that is there already are errors; then no inode is put back.
    fn restore_inode(
        &self,
        inode: &InodeState,
        runs: &mut dyn Iterator<Item = Result<ChunkRun, PortError>>,
    ) -> Result<(), PortError>;

    /// Says whether something may make room: while it may, operations that find none wait, for as
    /// long as the filesystem has them wait. A filesystem in which none waits has no use for it.
    fn expect_room(&self, is_expected: bool) {
        let _ = is_expected;
    }

    /// Asks whether its archive may take so many bytes more on the store's disk, just before it
    /// does: an error of the kind `NoSpace` says that there is no room. A filesystem that keeps no
    /// account of room has no objection.
    fn check_room(&self, bytes: u64) -> Result<(), PortError> {
        let _ = bytes;
        Ok(())
    }
}
