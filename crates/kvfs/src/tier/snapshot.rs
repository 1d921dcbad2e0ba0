//! A publication's view of the filesystem, read in order of inodes.

use std::collections::HashMap;
use std::sync::Arc;

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, Ino, InodeState, MountedSnapshot, PortError,
    SnapshotReader, Xattr, Xid, to_usize,
};

use crate::db::{Cursor, SnapshotView};
use crate::demand::Demand;
use crate::schema::{self, Table};
use crate::view::{LOST, View, parse_link, parse_run, run};
use crate::{FsError, patch, value};

/// Directories whose path is remembered.
const N_PATHS_MAX: usize = 10_000;

pub(crate) struct KvfsSnapshot {
    pub(crate) view: Arc<SnapshotView>,
    pub(crate) xid: Xid,
    pub(crate) chunk_bytes: u32,
    pub(crate) demand: Arc<Demand>,
}

impl MountedSnapshot for KvfsSnapshot {
    fn xid(&self) -> Xid {
        self.xid
    }

    fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    fn foreground_active(&self) -> bool {
        self.demand.is_there()
    }

    fn reader(&self) -> Box<dyn SnapshotReader + '_> {
        Box::new(KvfsReader {
            snapshot: self,
            cursors: HashMap::new(),
            paths: HashMap::new(),
            first_link: None,
        })
    }
}

/// One thread's reader. Its cursors are opened when they are first needed.
struct KvfsReader<'a> {
    snapshot: &'a KvfsSnapshot,
    cursors: HashMap<Table, Cursor<'a>>,
    paths: HashMap<Ino, Arc<[u8]>>,
    /// The inode that was read last, and its first link: its path is often asked for next.
    first_link: Option<(Ino, Option<tier_types::Link>)>,
}

impl<'a> KvfsReader<'a> {
    fn view(&self) -> View<'a> {
        View(self.snapshot.view.as_ref())
    }

    fn cursor(&mut self, table: Table) -> Result<&mut Cursor<'a>, FsError> {
        use std::collections::hash_map::Entry;
        match self.cursors.entry(table) {
            Entry::Occupied(cursor) => Ok(cursor.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(self.snapshot.view.cursor(table)?)),
        }
    }

    fn read_inode(&mut self, ino: Ino) -> Result<Option<InodeState>, FsError> {
        let key = schema::ino(ino);
        let found = self.cursor(Table::Inodes)?.at_or_after(&key)?;
        let Some((_, bytes)) = found.filter(|(at, _)| *at == key) else { return Ok(None) };
        let attr = value::attr_from_bytes(ino, bytes);
        let attr =
            attr.ok_or(FsError::Damaged { ino, problem: "its attributes cannot be read" })?;
        let mut links = Vec::new();
        self.each_of(Table::Links, ino, |key, _| {
            links.push(parse_link(ino, key)?);
            Ok(())
        })?;
        let mut xattrs = Vec::new();
        self.each_of(Table::Xattrs, ino, |key, value| {
            let name = key.get(8..).unwrap_or_default().to_vec();
            xattrs.push(Xattr { name, value: value.to_vec() });
            Ok(())
        })?;
        self.first_link = Some((ino, links.first().cloned()));
        Ok(Some(InodeState { attr, links, xattrs }))
    }

    /// Calls `visit` for all pairs of a table whose key starts with the inode.
    fn each_of(
        &mut self,
        table: Table,
        ino: Ino,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let prefix = schema::ino(ino);
        let cursor = self.cursor(table)?;
        let mut item = cursor.at_or_after(&prefix)?;
        while let Some((key, value)) = item.filter(|(key, _)| key.starts_with(&prefix)) {
            visit(key, value)?;
            item = cursor.next()?;
        }
        Ok(())
    }

    fn path_of(&mut self, ino: Ino) -> Result<Option<Vec<u8>>, FsError> {
        if ino == Ino::ROOT {
            return Ok(Some(Vec::new()));
        }
        let link = match self.first_link.take() {
            Some((known, link)) if known == ino => link,
            _ => self.view().first_link(ino)?,
        };
        let Some(link) = link else { return Ok(None) };
        let Some(dir) = self.directory_path(link.parent)? else { return Ok(None) };
        let mut path = Vec::with_capacity(dir.len() + 1 + link.name.as_bytes().len());
        path.extend_from_slice(&dir);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(link.name.as_bytes());
        Ok(Some(path))
    }

    /// The path of a directory, from the nearest ancestor whose path is remembered.
    fn directory_path(&mut self, dir: Ino) -> Result<Option<Arc<[u8]>>, FsError> {
        if let Some(known) = self.paths.get(&dir) {
            return Ok(Some(Arc::clone(known)));
        }
        let mut names = Vec::new();
        let mut at = dir;
        let mut path = loop {
            if at == Ino::ROOT {
                break Vec::new();
            }
            if let Some(known) = self.paths.get(&at) {
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
        if self.paths.len() >= N_PATHS_MAX {
            self.paths.clear();
        }
        let path: Arc<[u8]> = path.into();
        self.paths.insert(dir, Arc::clone(&path));
        Ok(Some(path))
    }

    fn runs(&mut self, ino: Ino, from: ChunkNo, n_max: usize) -> Result<Vec<ChunkRun>, FsError> {
        let key = schema::chunk(ino, from);
        let cursor = self.cursor(Table::Map)?;
        let prefix = schema::ino(ino);
        // From the start on it can be read without looking back.
        let holds_from = match from == ChunkNo::new(0) {
            true => cursor.at_or_after(&key)?.filter(|(at, _)| *at == key),
            false => cursor.at_or_before(&key)?.filter(|(at, _)| at.starts_with(&prefix)),
        };
        let mut place = match holds_from {
            Some((at, bytes)) => parse_run(ino, at, bytes)?.1,
            // Nothing was ever written.
            None => (ChunkState::Hole, Xid::new(0)),
        };
        let mut start = from;
        let mut runs = Vec::new();
        while runs.len() < n_max {
            let after = cursor.at_or_after(&schema::chunk(ino, start.next()))?;
            let Some((at, bytes)) = after.filter(|(at, _)| at.starts_with(&prefix)) else {
                runs.extend(run(start, ChunkNo::END, place));
                break;
            };
            let (next, next_place) = parse_run(ino, at, bytes)?;
            if next == ChunkNo::END {
                return Err(FsError::Damaged {
                    ino,
                    problem: "a run starts beyond the last chunk",
                });
            }
            runs.extend(run(start, next, place));
            (start, place) = (next, next_place);
        }
        Ok(runs)
    }

    fn read(&mut self, ino: Ino, chunks: ChunkRange, out: &mut Vec<u8>) -> Result<(), FsError> {
        let chunk_bytes = to_usize(u64::from(self.snapshot.chunk_bytes));
        let cursor = self.cursor(Table::Chunks)?;
        let mut end = out.len();
        for number in chunks.start().get()..chunks.end().get() {
            let key = schema::pair(ino.get(), number);
            let found = cursor.at_or_after(&key)?.filter(|(at, _)| *at == key);
            let found = found.filter(|(_, bytes)| !patch::is_lost(bytes));
            let (_, bytes) = found.ok_or(FsError::Damaged { ino, problem: LOST })?;
            out.resize(end, 0);
            out.extend_from_slice(bytes.get(..chunk_bytes).unwrap_or(bytes));
            end += chunk_bytes;
        }
        Ok(())
    }
}

impl SnapshotReader for KvfsReader<'_> {
    fn inode(&mut self, ino: Ino) -> Result<Option<InodeState>, PortError> {
        Ok(self.read_inode(ino)?)
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
        Ok(self.runs(ino, from, n_max)?)
    }

    fn read_chunks(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError> {
        Ok(self.read(ino, chunks, out)?)
    }
}
