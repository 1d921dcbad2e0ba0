//! A publication's view of the filesystem.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, Ino, InodeState, MountedSnapshot, PortError, Xid, to_usize,
};

use crate::FsError;
use crate::db::SnapshotView;
use crate::view::View;

/// Directories whose path is remembered.
const N_PATHS_MAX: usize = 10_000;

pub(crate) struct KvfsSnapshot {
    pub(crate) view: Arc<SnapshotView>,
    pub(crate) xid: Xid,
    pub(crate) chunk_bytes: u32,
    pub(crate) paths: Mutex<HashMap<Ino, Arc<[u8]>>>,
}

impl KvfsSnapshot {
    fn view(&self) -> View<'_> {
        View(self.view.as_ref())
    }

    fn path_of(&self, ino: Ino) -> Result<Option<Vec<u8>>, FsError> {
        if ino == Ino::ROOT {
            return Ok(Some(Vec::new()));
        }
        let Some(link) = self.view().first_link(ino)? else { return Ok(None) };
        let Some(mut path) = self.directory_path(link.parent)? else { return Ok(None) };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(link.name.as_bytes());
        Ok(Some(path))
    }

    /// The path of a directory, from the nearest ancestor whose path is remembered.
    fn directory_path(&self, dir: Ino) -> Result<Option<Vec<u8>>, FsError> {
        let mut names = Vec::new();
        let mut at = dir;
        let mut path = loop {
            if at == Ino::ROOT {
                break Vec::new();
            }
            if let Some(known) = self.paths.lock().get(&at) {
                break known.to_vec();
            }
            let Some(link) = self.view().first_link(at)? else { return Ok(None) };
            names.push(link.name);
            at = link.parent;
        };
        for name in names.iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
        }
        let mut paths = self.paths.lock();
        if paths.len() >= N_PATHS_MAX {
            paths.clear();
        }
        paths.insert(dir, path.clone().into());
        Ok(Some(path))
    }
}

impl MountedSnapshot for KvfsSnapshot {
    fn xid(&self) -> Xid {
        self.xid
    }

    fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    fn inode(&self, ino: Ino) -> Result<Option<InodeState>, PortError> {
        Ok(self.view().inode(ino)?)
    }

    fn path(&self, ino: Ino) -> Result<Option<Vec<u8>>, PortError> {
        Ok(self.path_of(ino)?)
    }

    fn chunk_runs(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, PortError> {
        Ok(self.view().runs(ino, from, n_max)?)
    }

    fn read_chunks(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError> {
        let chunk_bytes = to_usize(u64::from(self.chunk_bytes));
        Ok(self.view().read_chunks(ino, chunks, chunk_bytes, out)?)
    }
}
