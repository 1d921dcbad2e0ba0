//! One inode of the fake, and what operations do to it.

use std::collections::BTreeMap;

use tier_types::{
    ByteRange, ChunkNo, ChunkRange, ChunkRun, ChunkState, ErrorKind, FileAttr, FileKind, Ino,
    InodeState, Link, PortError, RecalledExtent, Timestamp, Xid, to_u64, to_usize,
};

use super::chunk_map::{ChunkMap, RunState};

#[derive(Clone, Debug)]
pub(super) struct FakeInode {
    pub(super) state: InodeState,
    pub(super) map: ChunkMap,
    /// Content of the resident chunks. A shorter one than a chunk is followed by zeros.
    pub(super) data: BTreeMap<ChunkNo, Vec<u8>>,
    /// Given by the filesystem, the same for all.
    pub(super) chunk_bytes: u32,
}

/// Times are those of the transaction: the same in every run of a test.
pub(super) fn time_of(xid: Xid) -> Timestamp {
    Timestamp { seconds: i64::try_from(xid.get()).unwrap(), nanos: 0 }
}

impl FakeInode {
    pub(super) fn new(
        ino: Ino,
        kind: FileKind,
        link: Option<Link>,
        xid: Xid,
        chunk_bytes: u32,
    ) -> Self {
        let time = time_of(xid);
        let attr = FileAttr {
            ino,
            mode: if matches!(kind, FileKind::Directory) { 0o755 } else { 0o644 },
            kind,
            uid: 0,
            gid: 0,
            nlink: 1,
            size_bytes: 0,
            accessed: time,
            modified: time,
            changed: time,
            created: time,
            xid,
        };
        let state = InodeState { attr, links: link.into_iter().collect(), xattrs: Vec::new() };
        Self { state, map: ChunkMap::default(), data: BTreeMap::new(), chunk_bytes }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.state.attr.size_bytes
    }

    /// Marks the inode as changed by a transaction.
    pub(super) fn touch(&mut self, xid: Xid) {
        self.state.attr.xid = xid;
        self.state.attr.modified = time_of(xid);
    }

    /// Chunk bytes of the runs for which `counts` holds, up to the end of the file.
    pub(super) fn bytes_of(&self, counts: impl Fn(&ChunkRun) -> bool) -> u64 {
        let runs = self.map.runs(ChunkRange::ALL).into_iter().filter(counts);
        runs.map(|run| run.chunks.len_bytes(self.chunk_bytes, self.size_bytes())).sum()
    }

    /// The content of a chunk of which a part is to be kept. It must not be cold.
    fn check_kept(&self, chunk: ChunkNo) -> Result<(), PortError> {
        let state = self.map.at(chunk).state;
        assert!(state != ChunkState::Cold, "what is kept of a chunk was recalled");
        if state == ChunkState::Hole || self.data.contains_key(&chunk) {
            Ok(())
        } else {
            Err(self.no_chunk(chunk))
        }
    }

    fn no_chunk(&self, chunk: ChunkNo) -> PortError {
        let ino = self.state.attr.ino;
        PortError::new(ErrorKind::Damaged, format!("inode {ino} has no chunk {chunk}"))
    }

    /// Writes bytes. What a chunk held besides them must be resident.
    pub(super) fn write(&mut self, xid: Xid, offset: u64, content: &[u8]) -> Result<(), PortError> {
        let written = ByteRange { offset, len: to_u64(content.len()) };
        let end = written.end().unwrap();
        let Some(chunks) = ChunkRange::touching(offset, written.len, self.chunk_bytes) else {
            return Ok(());
        };
        let numbers = chunks.start().get()..chunks.end().get();
        let (kept, replaced): (Vec<_>, Vec<_>) = numbers.map(ChunkNo::new).partition(|chunk| {
            let start = chunk.get() * u64::from(self.chunk_bytes);
            let chunk_end = (start + u64::from(self.chunk_bytes)).min(self.size_bytes());
            start < chunk_end && (start < offset || end < chunk_end)
        });
        kept.into_iter().try_for_each(|chunk| self.check_kept(chunk))?;
        // Nothing of these stays, not even that they were lost.
        self.data.retain(|chunk, _| !replaced.contains(chunk));
        self.state.attr.size_bytes = self.size_bytes().max(end);
        for number in chunks.start().get()..chunks.end().get() {
            let chunk_offset = number * u64::from(self.chunk_bytes);
            let from = offset.max(chunk_offset);
            let until = end.min(chunk_offset + u64::from(self.chunk_bytes));
            let target = to_usize(from - chunk_offset)..to_usize(until - chunk_offset);
            let source = to_usize(from - offset)..to_usize(until - offset);
            let chunk = self.data.entry(ChunkNo::new(number)).or_default();
            chunk.resize(chunk.len().max(target.end), 0);
            chunk[target].copy_from_slice(&content[source]);
        }
        self.map.set(chunks, RunState { state: ChunkState::Hot, data_xid: xid });
        self.touch(xid);
        Ok(())
    }

    /// Sets the size. The chunk in which the file is cut must be resident or a hole.
    pub(super) fn truncate(&mut self, xid: Xid, size_bytes: u64) -> Result<(), PortError> {
        if size_bytes < self.size_bytes() {
            let chunk_bytes = u64::from(self.chunk_bytes);
            let cut = ChunkNo::new(size_bytes / chunk_bytes);
            let kept_bytes = size_bytes % chunk_bytes;
            let first_gone = if kept_bytes > 0 { cut.next() } else { cut };
            if kept_bytes > 0 {
                self.check_kept(cut)?;
            }
            if let Some(chunk) = self.data.get_mut(&cut).filter(|_| kept_bytes > 0) {
                chunk.truncate(to_usize(kept_bytes));
                let hot = RunState { state: ChunkState::Hot, data_xid: xid };
                self.map.set(ChunkRange::one(cut).unwrap(), hot);
            }
            self.unmap(xid, ChunkRange::from(first_gone).unwrap());
        }
        self.state.attr.size_bytes = size_bytes;
        self.touch(xid);
        Ok(())
    }

    /// Makes chunks a hole.
    pub(super) fn unmap(&mut self, xid: Xid, chunks: ChunkRange) {
        self.data.retain(|chunk, _| !chunks.contains(*chunk));
        self.map.set(chunks, RunState { state: ChunkState::Hole, data_xid: xid });
        self.touch(xid);
    }

    /// Evicts the resident chunks of exactly this version. Returns how many bytes left.
    pub(super) fn evict(&mut self, chunks: ChunkRange, data_xid: Xid) -> u64 {
        let mut bytes = 0;
        for run in self.map.runs(chunks) {
            let resident = run.state.is_resident();
            if resident && run.data_xid == data_xid {
                bytes += run.chunks.len_bytes(self.chunk_bytes, self.size_bytes());
                self.map.set(run.chunks, RunState { state: ChunkState::Cold, data_xid });
                self.data.retain(|chunk, _| !run.chunks.contains(*chunk));
            }
        }
        bytes
    }

    /// Keeps what came back, as far as a detour still stands for exactly this version.
    pub(super) fn store_recalled(&mut self, data_xid: Xid, extent: &RecalledExtent) {
        let chunk_bytes = to_usize(u64::from(self.chunk_bytes));
        let cold = RunState { state: ChunkState::Cold, data_xid };
        let numbers = extent.chunks().start().get()..extent.chunks().end().get();
        for (number, content) in numbers.zip(extent.bytes().chunks(chunk_bytes)) {
            let chunk = ChunkNo::new(number);
            if self.map.at(chunk) == cold {
                self.data.insert(chunk, content.to_vec());
                let warm = RunState { state: ChunkState::Warm, data_xid };
                self.map.set(ChunkRange::one(chunk).unwrap(), warm);
            }
        }
    }

    /// Appends resident chunks, each but the last filled up with zeros.
    pub(super) fn read_chunks(
        &self,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError> {
        let mut end = out.len();
        for number in chunks.start().get()..chunks.end().get() {
            let chunk = ChunkNo::new(number);
            let resident = self.map.at(chunk).is_resident();
            let found = self.data.get(&chunk).filter(|_| resident);
            let content = found.ok_or_else(|| self.no_chunk(chunk))?;
            out.resize(end, 0);
            out.extend(content);
            end += to_usize(u64::from(self.chunk_bytes));
        }
        Ok(())
    }

    /// The first run of these chunks that must be recalled before they can be read.
    pub(super) fn first_cold(&self, chunks: ChunkRange) -> Option<ChunkRun> {
        self.map.runs(chunks).into_iter().find(|run| run.state == ChunkState::Cold)
    }

    /// The bytes of the file, none of which may be cold.
    pub(super) fn content(&self) -> Result<Vec<u8>, PortError> {
        let chunks = ChunkRange::touching(0, self.size_bytes(), self.chunk_bytes);
        chunks.map_or(Ok(Vec::new()), |chunks| self.bytes_in(chunks))
    }

    /// The bytes of these chunks up to the end of the file, none of which may be cold.
    pub(super) fn bytes_in(&self, chunks: ChunkRange) -> Result<Vec<u8>, PortError> {
        let begin = chunks.offset_bytes(self.chunk_bytes);
        let mut content = Vec::new();
        for run in self.map.runs(chunks) {
            content.resize(to_usize(run.chunks.offset_bytes(self.chunk_bytes) - begin), 0);
            if run.state != ChunkState::Hole {
                self.read_chunks(run.chunks, &mut content)?;
            }
        }
        content.resize(to_usize(chunks.len_bytes(self.chunk_bytes, self.size_bytes())), 0);
        Ok(content)
    }
}
