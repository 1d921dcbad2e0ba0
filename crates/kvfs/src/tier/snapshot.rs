//! A publication's KVS snapshot as a port, read in order of inodes.
//!
//! The persister asks for inode after inode in ascending order: state, path, map, chunks. Rows come
//! from [`OrderedTables`], whose cursors are close by already. Paths do not: the way up from an
//! inode jumps to inodes of any number. So the paths of directories are remembered, up to a limit,
//! and the first link of the inode that was read last, whose path is asked for next.

use std::collections::HashMap;
use std::sync::Arc;

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ErrorKind, FileKind, Ino, InodeState, Link, MountedSnapshot,
    PortError, SnapshotInode, SnapshotReader, Xid,
};

use crate::FsError;
use crate::activity::Activity;
use crate::core::Core;
use crate::error::Damage;
use crate::store::{KvsSnapshot, OrderedTables, may_pass};

/// Directories whose path is remembered.
const N_PATHS_MAX: usize = 10_000;

pub(super) struct KvfsSnapshot {
    pub(super) snapshot: Arc<KvsSnapshot>,
    pub(super) xid: Xid,
    pub(super) chunk_bytes: u32,
    pub(super) activity: Arc<Activity>,
}

impl MountedSnapshot for KvfsSnapshot {
    fn xid(&self) -> Xid {
        self.xid
    }

    fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    fn foreground_active(&self) -> bool {
        self.activity.is_foreground()
    }

    fn reader(&self) -> Box<dyn SnapshotReader + '_> {
        Box::new(KvfsReader::new(&self.snapshot, self.chunk_bytes))
    }
}

impl Core {
    /// One path of the inode as it is now, without a leading slash; `None` if it has no name.
    pub fn path_of(&self, ino: Ino) -> Result<Option<Vec<u8>>, FsError> {
        // A snapshot, so that a rename during the way up cannot make a path that never existed.
        let snapshot = KvsSnapshot::take(&self.db)?;
        KvfsReader::new(&snapshot, self.chunk_bytes).path_of(ino)
    }
}

/// One thread's reader.
struct KvfsReader<'a> {
    snapshot: &'a KvsSnapshot,
    chunk_bytes: u32,
    tables: OrderedTables<'a>,
    paths: HashMap<Ino, Arc<[u8]>>,
    /// The inode that was read last, and its first link: its path is often asked for next.
    first_link: Option<(Ino, Option<Link>)>,
}

impl<'a> KvfsReader<'a> {
    fn new(snapshot: &'a KvsSnapshot, chunk_bytes: u32) -> Self {
        let (tables, paths) = (OrderedTables::new(snapshot), HashMap::new());
        Self { snapshot, chunk_bytes, tables, paths, first_link: None }
    }

    fn read_inode(&mut self, ino: Ino) -> Result<Option<InodeState>, FsError> {
        let reader = self.tables.reader();
        let Some(attr) = reader.find_attr(ino)? else { return Ok(None) };
        let (links, xattrs) = (reader.links(ino)?, reader.xattrs(ino)?);
        self.first_link = Some((ino, links.first().cloned()));
        Ok(Some(InodeState { attr, links, xattrs }))
    }

    /// With its path and so many runs of its map.
    fn read_whole(
        &mut self,
        ino: Ino,
        n_runs_max: usize,
    ) -> Result<Option<SnapshotInode>, FsError> {
        let Some(state) = self.read_inode(ino)? else { return Ok(None) };
        let path = self.path_of(ino)?;
        let has_data = matches!(state.attr.kind, FileKind::Regular) && n_runs_max > 0;
        let runs = if has_data {
            self.tables.reader().runs(ino, ChunkNo::new(0), n_runs_max)?
        } else {
            Vec::new()
        };
        Ok(Some(SnapshotInode { state, path, runs }))
    }

    fn path_of(&mut self, ino: Ino) -> Result<Option<Vec<u8>>, FsError> {
        if ino == Ino::ROOT {
            return Ok(Some(Vec::new()));
        }
        let link = match self.first_link.take() {
            Some((known, link)) if known == ino => link,
            _ => self.snapshot.reader().first_link(ino)?,
        };
        let Some(link) = link else { return Ok(None) };
        let Some(dir) = self.directory_path(link.parent)? else { return Ok(None) };
        let mut path = Vec::with_capacity(dir.len() + 1 + link.name.as_bytes().len());
        path.extend_from_slice(&dir);
        push_name(&mut path, link.name.as_bytes());
        Ok(Some(path))
    }

    /// The path of a directory, from the nearest ancestor whose path is remembered.
    fn directory_path(&mut self, dir: Ino) -> Result<Option<Arc<[u8]>>, FsError> {
        if let Some(known) = self.paths.get(&dir) {
            return Ok(Some(Arc::clone(known)));
        }
        let mut names = Vec::new();
        let mut way = self.snapshot.reader().way_up(dir);
        let mut at = dir;
        let mut path = loop {
            if at == Ino::ROOT {
                break Vec::new();
            }
            if let Some(known) = self.paths.get(&at) {
                break known.to_vec();
            }
            let link = match way.step() {
                // What no way leads to has no path. It is persisted by its names all the same.
                Err(FsError::Damaged { damage: Damage::LinkCircle, .. }) => return Ok(None),
                step => step?,
            };
            let Some(link) = link else { return Ok(None) };
            names.push(link.name);
            at = link.parent;
        };
        for name in names.iter().rev() {
            push_name(&mut path, name.as_bytes());
        }
        // Directories come in order with what lies in them, so that those of before are of little
        // use.
        if self.paths.len() >= N_PATHS_MAX {
            self.paths.clear();
        }
        let path: Arc<[u8]> = path.into();
        self.paths.insert(dir, Arc::clone(&path));
        Ok(Some(path))
    }
}

fn push_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Damaged data is lost to the archive for good, and so it is called damaged only if it is.
fn data_error(error: FsError) -> PortError {
    if may_pass(&error) {
        return PortError::new(ErrorKind::Failed, "chunk data is out of reach").with_source(error);
    }
    error.into()
}

impl SnapshotReader for KvfsReader<'_> {
    fn inodes(
        &mut self,
        inodes: &[Ino],
        n_runs_max: usize,
    ) -> Vec<Result<Option<SnapshotInode>, PortError>> {
        let read = |ino: &Ino| Ok(self.read_whole(*ino, n_runs_max)?);
        inodes.iter().map(read).collect()
    }

    fn inodes_after(&mut self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        Ok(self.tables.reader().listed_inodes(after, n_max)?)
    }

    fn path(&mut self, ino: Ino) -> Result<Option<Vec<u8>>, PortError> {
        Ok(self.path_of(ino)?)
    }

    fn chunk_runs(
        &mut self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, PortError> {
        Ok(self.tables.reader().runs(ino, from, n_max)?)
    }

    fn read_chunks(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError> {
        self.tables.reader().read_chunks(ino, chunks, self.chunk_bytes, out).map_err(data_error)
    }
}
