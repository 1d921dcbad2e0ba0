//! An archive in memory: answers [`Recall`] and [`Persisted`] for what was read from snapshots.
//!
//! It stands for tarballs, index, fetcher and recaller together. [`FakeArchive::persist`] reads
//! inodes from a mounted snapshot, as the persister does, and keeps all that it ever read, so that
//! a recall finds exactly the version asked for or none. An answer brings a group of chunks that
//! may begin before the one asked for and end before the last one, as a frame does.

use parking_lot::Mutex;
use tier_types::{
    Call, ChunkNo, ChunkRange, ErrorKind, Ino, MountedSnapshot, Persisted, PortError, Recall,
    RecallHint, RecallRequest, RecalledExtent, SnapshotId, Xid, to_u64, to_usize,
};

/// Runs of a chunk map that are read at a time.
const N_RUNS: usize = 16;

/// An inode as one snapshot archived it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchivedInode {
    /// The inode.
    pub ino: Ino,
    /// Its metadata xid.
    pub xid: Xid,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its data, in order and without holes.
    pub extents: Vec<ArchivedExtent>,
}

/// A run of chunks of one version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchivedExtent {
    /// The chunks.
    pub chunks: ChunkRange,
    /// Their version.
    pub data_xid: Xid,
    /// Their bytes; the last chunk ends where the file does.
    pub bytes: Vec<u8>,
}

impl ArchivedInode {
    /// Reads an inode and its resident data from a snapshot; `None` if it is not there.
    pub fn read(
        mounted: &dyn MountedSnapshot,
        snapshot: SnapshotId,
        ino: Ino,
    ) -> Result<Option<Self>, PortError> {
        let mut reader = mounted.reader();
        let Some(state) = reader.inode(ino)? else { return Ok(None) };
        let mut extents = Vec::new();
        let mut from = ChunkNo::new(0);
        while from < ChunkNo::END {
            let runs = reader.chunk_runs(ino, from, N_RUNS)?;
            assert!(!runs.is_empty(), "a chunk map is total");
            for run in runs {
                from = run.chunks.end();
                if run.state.is_resident() {
                    let mut bytes = Vec::new();
                    reader.read_chunks(ino, run.chunks, &mut bytes)?;
                    let len = run.chunks.len_bytes(mounted.chunk_bytes(), state.attr.size_bytes);
                    bytes.resize(to_usize(len), 0);
                    let (chunks, data_xid) = (run.chunks, run.data_xid);
                    extents.push(ArchivedExtent { chunks, data_xid, bytes });
                }
            }
        }
        Ok(Some(Self { ino, xid: state.attr.xid, snapshot, extents }))
    }

    /// The extent of this version that holds a chunk.
    fn extent_at(&self, chunk: ChunkNo, data_xid: Xid) -> Option<&ArchivedExtent> {
        let fits = |e: &&ArchivedExtent| e.data_xid == data_xid && e.chunks.contains(chunk);
        self.extents.iter().find(fits)
    }
}

/// Keeps what was read from snapshots, and answers for it.
#[derive(Debug)]
pub struct FakeArchive {
    /// Chunks of one answer.
    n_answer_chunks: u64,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    chunk_bytes: u32,
    inodes: Vec<ArchivedInode>,
}

impl Default for FakeArchive {
    fn default() -> Self {
        Self::with_answers_of(2)
    }
}

impl FakeArchive {
    /// An empty archive that brings this many chunks at a time.
    pub fn with_answers_of(n_chunks: u64) -> Self {
        assert!(n_chunks > 0, "an answer has a chunk");
        Self { n_answer_chunks: n_chunks, content: Mutex::default() }
    }

    /// Archives these inodes as a snapshot shows them. Those that it does not have are left out.
    pub fn persist(
        &self,
        mounted: &dyn MountedSnapshot,
        snapshot: SnapshotId,
        inos: &[Ino],
    ) -> Result<(), PortError> {
        for ino in inos {
            let read = ArchivedInode::read(mounted, snapshot, *ino)?;
            let mut content = self.content.lock();
            content.chunk_bytes = mounted.chunk_bytes();
            content.inodes.extend(read);
        }
        Ok(())
    }

    /// Everything that was archived, in that order.
    pub fn inodes(&self) -> Vec<ArchivedInode> {
        self.content.lock().inodes.clone()
    }

    /// Loses all that was archived of an inode: damage.
    pub fn lose(&self, ino: Ino) {
        self.content.lock().inodes.retain(|archived| archived.ino != ino);
    }
}

impl Recall for FakeArchive {
    fn recall_with(
        &self,
        _: &Call<'_>,
        _: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        let RecallRequest { ino, chunks, data_xid } = *request;
        let first = chunks.start();
        let content = self.content.lock();
        let of_inode = content.inodes.iter().filter(|archived| archived.ino == ino);
        let found = of_inode.rev().find_map(|archived| archived.extent_at(first, data_xid));
        let extent = found.ok_or_else(|| {
            let message = format!("inode {ino}: chunk {first} of xid {data_xid} is not archived");
            PortError::new(ErrorKind::Missing, message)
        })?;
        let group_start = first.get() / self.n_answer_chunks * self.n_answer_chunks;
        let group = ChunkRange::new(
            ChunkNo::new(group_start),
            ChunkNo::new(group_start.saturating_add(self.n_answer_chunks)),
        );
        let answered = group.and_then(|group| group.intersection(extent.chunks)).unwrap();
        let chunk_bytes = u64::from(content.chunk_bytes);
        let skipped_bytes = (answered.start().get() - extent.chunks.start().get()) * chunk_bytes;
        let end_bytes =
            (skipped_bytes + answered.len() * chunk_bytes).min(to_u64(extent.bytes.len()));
        let bytes = extent.bytes[to_usize(skipped_bytes)..to_usize(end_bytes)].to_vec();
        RecalledExtent::new(request, answered, bytes, content.chunk_bytes)
    }
}

impl Persisted for FakeArchive {
    fn first_persisted(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        let content = self.content.lock();
        let extents = content.inodes.iter().filter(|a| a.ino == ino).flat_map(|a| &a.extents);
        let mut parts: Vec<_> = extents
            .filter(|extent| extent.data_xid == data_xid)
            .filter_map(|extent| extent.chunks.intersection(chunks))
            .collect();
        parts.sort_by_key(|part| part.start());
        // Snapshots may have archived the same version in parts that overlap.
        let joined = parts.into_iter().reduce(|run, part| {
            let end = if part.start() <= run.end() { run.end().max(part.end()) } else { run.end() };
            ChunkRange::new(run.start(), end).unwrap()
        });
        Ok(joined)
    }

    fn snapshot_of(&self, ino: Ino, xid: Xid) -> Result<Option<SnapshotId>, PortError> {
        let content = self.content.lock();
        let exactly = |a: &&ArchivedInode| a.ino == ino && a.xid == xid;
        Ok(content.inodes.iter().rev().find(exactly).map(|archived| archived.snapshot))
    }
}
