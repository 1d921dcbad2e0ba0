//! A publication's view of the fake: the inodes as they were copied when it was made.

use std::sync::Arc;

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, Ino, MountedSnapshot, PortError, SnapshotInode, SnapshotReader,
    Xid,
};

use super::{Inodes, gone};

pub(super) struct FakeSnapshot {
    pub(super) inodes: Arc<Inodes>,
    pub(super) xid: Xid,
    pub(super) chunk_bytes: u32,
}

impl MountedSnapshot for FakeSnapshot {
    fn xid(&self) -> Xid {
        self.xid
    }

    fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    fn reader(&self) -> Box<dyn SnapshotReader + '_> {
        Box::new(self)
    }
}

impl SnapshotReader for &FakeSnapshot {
    fn inodes(
        &mut self,
        inodes: &[Ino],
        n_runs_max: usize,
    ) -> Vec<Result<Option<SnapshotInode>, PortError>> {
        let mut read = |ino: &Ino| {
            let Some(inode) = self.inodes.get(ino) else { return Ok(None) };
            let runs = self.chunk_runs(*ino, ChunkNo::new(0), n_runs_max)?;
            Ok(Some(SnapshotInode { state: inode.state.clone(), path: self.path(*ino)?, runs }))
        };
        inodes.iter().map(&mut read).collect()
    }

    fn inodes_after(&mut self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        Ok(self.inodes.range(after.next()..).map(|(ino, _)| *ino).take(n_max).collect())
    }

    fn path(&mut self, ino: Ino) -> Result<Option<Vec<u8>>, PortError> {
        if ino == Ino::ROOT {
            return Ok(Some(Vec::new()));
        }
        let link = self.inodes.get(&ino).and_then(|inode| inode.state.links.first());
        Ok(link.map(|link| link.name.as_bytes().to_vec()))
    }

    fn chunk_runs(
        &mut self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, PortError> {
        let inode = self.inodes.get(&ino).ok_or_else(|| gone(ino))?;
        let rest = ChunkRange::from(from);
        let mut runs = rest.map(|rest| inode.map.runs(rest)).unwrap_or_default();
        runs.truncate(n_max);
        Ok(runs)
    }

    fn read_chunks(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError> {
        self.inodes.get(&ino).ok_or_else(|| gone(ino))?.read_chunks(chunks, out)
    }
}
