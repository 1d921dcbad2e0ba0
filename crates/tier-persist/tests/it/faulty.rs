//! A snapshot of which some reads fail, as those of a disk that does not answer every time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ErrorKind, Ino, MountedSnapshot, PortError, SnapshotInode,
    SnapshotReader, Xid,
};

/// What fails, and what was met of it.
pub(crate) struct Faults {
    kind: ErrorKind,
    chunks: BTreeSet<(Ino, ChunkNo)>,
    maps: BTreeMap<Ino, MapFault>,
    inodes: BTreeSet<Ino>,
    met: Mutex<Met>,
}

/// Reads of a chunk map from a chunk on, or from one behind it, fail after so many that did not.
struct MapFault {
    from: ChunkNo,
    n_before: usize,
}

#[derive(Default)]
struct Met {
    chunks: BTreeSet<Ino>,
    n_chunk_reads: usize,
    maps: BTreeMap<Ino, usize>,
}

impl Faults {
    pub(crate) fn of(kind: ErrorKind) -> Self {
        let (chunks, maps, inodes) = Default::default();
        Self { kind, chunks, maps, inodes, met: Mutex::default() }
    }

    /// Reading the metadata of an inode fails.
    pub(crate) fn inode(mut self, ino: Ino) -> Self {
        self.inodes.insert(ino);
        self
    }

    /// Reading a chunk fails.
    pub(crate) fn chunk(mut self, ino: Ino, number: u64) -> Self {
        self.chunks.insert((ino, ChunkNo::new(number)));
        self
    }

    /// Reading a chunk map from a chunk on fails after it succeeded so often.
    pub(crate) fn map(mut self, ino: Ino, from: u64, n_before: usize) -> Self {
        self.maps.insert(ino, MapFault { from: ChunkNo::new(from), n_before });
        self
    }

    /// Inodes of which a chunk was asked for that could not be read.
    pub(crate) fn met_chunks(&self) -> Vec<Ino> {
        self.met.lock().unwrap().chunks.iter().copied().collect()
    }

    /// How many reads of chunks failed.
    pub(crate) fn n_chunk_reads(&self) -> usize {
        self.met.lock().unwrap().n_chunk_reads
    }

    /// Inodes whose chunk map was asked for and could not be read.
    pub(crate) fn met_maps(&self) -> Vec<Ino> {
        let met = self.met.lock().unwrap();
        let failed = |(ino, n): &(&Ino, &usize)| **n > self.maps[*ino].n_before;
        met.maps.iter().filter(failed).map(|(ino, _)| *ino).collect()
    }

    fn error(&self) -> PortError {
        PortError::new(self.kind, "told to fail")
    }
}

pub(crate) struct FaultySnapshot<'a> {
    pub(crate) inner: Arc<dyn MountedSnapshot>,
    pub(crate) faults: &'a Faults,
}

impl MountedSnapshot for FaultySnapshot<'_> {
    fn xid(&self) -> Xid {
        self.inner.xid()
    }

    fn chunk_bytes(&self) -> u32 {
        self.inner.chunk_bytes()
    }

    fn reader(&self) -> Box<dyn SnapshotReader + '_> {
        Box::new(FaultyReader { inner: self.inner.reader(), faults: self.faults })
    }
}

struct FaultyReader<'a> {
    inner: Box<dyn SnapshotReader + 'a>,
    faults: &'a Faults,
}

impl FaultyReader<'_> {
    /// Counts a reading of a chunk map; whether it fails.
    fn map_fails(&self, ino: Ino, from: ChunkNo) -> bool {
        let fault = self.faults.maps.get(&ino).filter(|fault| fault.from <= from);
        let Some(fault) = fault else { return false };
        let mut met = self.faults.met.lock().unwrap();
        let n = met.maps.entry(ino).or_default();
        *n += 1;
        *n > fault.n_before
    }
}

impl SnapshotReader for FaultyReader<'_> {
    fn inodes(
        &mut self,
        inodes: &[Ino],
        n_runs_max: usize,
    ) -> Vec<Result<Option<SnapshotInode>, PortError>> {
        let mut answers = self.inner.inodes(inodes, n_runs_max);
        for (ino, answer) in inodes.iter().zip(&mut answers) {
            if self.faults.inodes.contains(ino)
                || n_runs_max > 0 && self.map_fails(*ino, ChunkNo::new(0))
            {
                *answer = Err(self.faults.error());
            }
        }
        answers
    }

    fn inodes_after(&mut self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        self.inner.inodes_after(after, n_max)
    }

    fn path(&mut self, ino: Ino) -> Result<Option<Vec<u8>>, PortError> {
        self.inner.path(ino)
    }

    fn chunk_runs(
        &mut self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, PortError> {
        if self.map_fails(ino, from) {
            return Err(self.faults.error());
        }
        self.inner.chunk_runs(ino, from, n_max)
    }

    fn read_chunks(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError> {
        let numbers = chunks.start()..chunks.end();
        let mut of_inode = self.faults.chunks.iter().filter(|(other, _)| *other == ino);
        if of_inode.any(|(_, number)| numbers.contains(number)) {
            let mut met = self.faults.met.lock().unwrap();
            met.chunks.insert(ino);
            met.n_chunk_reads += 1;
            drop(met);
            // What was read before it counts for nothing.
            out.extend(b"half of it");
            return Err(self.faults.error());
        }
        self.inner.read_chunks(ino, chunks, out)
    }
}
