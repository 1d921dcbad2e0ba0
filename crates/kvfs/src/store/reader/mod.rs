//! Typed reads, the same for the live store and for a snapshot of it.

use std::iter;

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, FileAttr, FileName, Ino, Link, Xattr, Xid,
};

use crate::db::Reader;
use crate::schema::{self, Table};
use crate::{FsError, patch, value};

/// Typed reads over any [`Reader`].
#[derive(Clone, Copy)]
pub(crate) struct View<'a>(pub(crate) &'a dyn Reader);

impl<'a> View<'a> {
    /// The inode's attributes, which must exist.
    pub(crate) fn attr(&self, ino: Ino) -> Result<FileAttr, FsError> {
        self.find_attr(ino)?.ok_or(FsError::NotFound)
    }

    pub(crate) fn find_attr(&self, ino: Ino) -> Result<Option<FileAttr>, FsError> {
        let Some(bytes) = self.0.get(Table::Inodes, &schema::ino(ino))? else { return Ok(None) };
        let attr = value::attr_from_bytes(ino, &bytes);
        attr.map(Some).ok_or(FsError::Damaged { ino, problem: "its attributes cannot be read" })
    }

    /// The inode and the cookie of a directory entry.
    pub(crate) fn entry(&self, dir: Ino, name: &FileName) -> Result<Option<(Ino, u64)>, FsError> {
        let key = schema::named(dir, name.as_bytes());
        let Some(bytes) = self.0.get(Table::Entries, &key)? else { return Ok(None) };
        let entry = value::entry_from_bytes(&bytes);
        entry.map(Some).ok_or(FsError::Damaged { ino: dir, problem: "an entry cannot be read" })
    }

    pub(crate) fn is_empty_dir(&self, dir: Ino) -> Result<bool, FsError> {
        let (from, until) = (schema::ino(dir), schema::ino(dir.next()));
        Ok(self.0.scan(Table::Entries, &from, &until)?.next().transpose()?.is_none())
    }

    /// The first name of an inode; none for the root and for orphans.
    pub(crate) fn first_link(&self, ino: Ino) -> Result<Option<Link>, FsError> {
        let (from, until) = (schema::ino(ino), schema::ino(ino.next()));
        let first = self.0.scan(Table::Links, &from, &until)?.next().transpose()?;
        first.map(|(key, _)| parse_link(ino, &key)).transpose()
    }

    pub(crate) fn links(&self, ino: Ino) -> Result<Vec<Link>, FsError> {
        let (from, until) = (schema::ino(ino), schema::ino(ino.next()));
        let pairs = self.0.scan(Table::Links, &from, &until)?;
        pairs.map(|pair| parse_link(ino, &pair?.0)).collect()
    }

    pub(crate) fn xattrs(&self, ino: Ino) -> Result<Vec<Xattr>, FsError> {
        let (from, until) = (schema::ino(ino), schema::ino(ino.next()));
        let pairs = self.0.scan(Table::Xattrs, &from, &until)?;
        pairs
            .map(|pair| {
                let (key, value) = pair?;
                let name = key.get(8..).unwrap_or_default().to_vec();
                Ok(Xattr { name, value: value.into_vec() })
            })
            .collect()
    }

    /// Bytes of the inode's data that are in the store.
    pub(crate) fn resident_bytes(&self, ino: Ino) -> Result<u64, FsError> {
        let Some(bytes) = self.0.get(Table::Resident, &schema::ino(ino))? else { return Ok(0) };
        let bytes = <[u8; 8]>::try_from(bytes.as_slice()).map(u64::from_le_bytes);
        bytes.map_err(|_| FsError::Damaged { ino, problem: "its size in the store cannot be read" })
    }

    /// The run that holds the chunk, from its own start.
    pub(crate) fn run_start(&self, ino: Ino, at: ChunkNo) -> Result<(ChunkNo, Place), FsError> {
        let (lower, upper) = (schema::chunk(ino, ChunkNo::new(0)), schema::chunk(ino, at));
        match self.0.last(Table::Map, &lower, &upper)? {
            Some((key, bytes)) => parse_run(ino, &key, &bytes),
            // Nothing was ever written.
            None => Ok((ChunkNo::new(0), (ChunkState::Hole, Xid::new(0)))),
        }
    }

    /// The runs of a total map from `from` on; the first one is cut there.
    pub(crate) fn runs(
        &self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, FsError> {
        let (_, mut place) = self.run_start(ino, from)?;
        let mut start = from;
        let mut runs = Vec::new();
        let after = schema::chunk(ino, from.next());
        for pair in self.0.scan(Table::Map, &after, &schema::ino(ino.next()))? {
            if runs.len() == n_max {
                return Ok(runs);
            }
            let (key, bytes) = pair?;
            let (next, next_place) = parse_run(ino, &key, &bytes)?;
            runs.extend(run(start, next, place));
            (start, place) = (next, next_place);
        }
        if runs.len() < n_max {
            runs.extend(run(start, ChunkNo::END, place));
        }
        Ok(runs)
    }

    /// All runs from `from` on, read in pages: between two of them the map may change, and with it
    /// what follows.
    pub(crate) fn all_runs(
        self,
        ino: Ino,
        from: ChunkNo,
    ) -> impl Iterator<Item = Result<ChunkRun, FsError>> + use<'a> {
        let mut at = Some(from);
        let mut page = Vec::new().into_iter();
        iter::from_fn(move || {
            loop {
                if let Some(run) = page.next() {
                    return Some(Ok(run));
                }
                match self.runs(ino, at.take()?, N_RUNS) {
                    Ok(runs) => {
                        let end = runs.last().map(|run| run.chunks.end());
                        at = end.filter(|end| *end < ChunkNo::END);
                        page = runs.into_iter();
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// The runs that lie in `range`, cut at its ends.
    pub(crate) fn runs_in(&self, ino: Ino, range: ChunkRange) -> Result<Vec<ChunkRun>, FsError> {
        let (_, mut place) = self.run_start(ino, range.start())?;
        let mut start = range.start();
        let mut runs = Vec::new();
        let after = schema::chunk(ino, start.next());
        for pair in self.0.scan(Table::Map, &after, &schema::chunk(ino, range.end()))? {
            let (key, bytes) = pair?;
            let (next, next_place) = parse_run(ino, &key, &bytes)?;
            runs.extend(run(start, next, place));
            (start, place) = (next, next_place);
        }
        runs.extend(run(start, range.end(), place));
        Ok(runs)
    }

    /// Appends resident chunks, each filled up with zeros.
    pub(crate) fn read_chunks(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        chunk_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        for number in chunks.start().get()..chunks.end().get() {
            let key = schema::chunk(ino, ChunkNo::new(number));
            let (start, mut found) = (out.len(), false);
            self.0.visit(Table::Chunks, &key, &mut |bytes| {
                found = !patch::is_lost(bytes);
                out.extend_from_slice(bytes.get(..chunk_bytes).unwrap_or(bytes));
            })?;
            if !found {
                return Err(FsError::Damaged { ino, problem: LOST });
            }
            out.resize(start + chunk_bytes, 0);
        }
        Ok(())
    }
}

/// What must not be: a chunk that is said to be in the store and is not.
pub(crate) const LOST: &str = "a chunk has neither data nor detour";

/// State and data xid of a run.
pub(crate) type Place = (ChunkState, Xid);

pub(crate) fn run(start: ChunkNo, end: ChunkNo, (state, data_xid): Place) -> Option<ChunkRun> {
    ChunkRange::new(start, end).map(|chunks| ChunkRun { chunks, state, data_xid })
}

pub(crate) fn parse_run(ino: Ino, key: &[u8], bytes: &[u8]) -> Result<(ChunkNo, Place), FsError> {
    let parsed = schema::parse_pair(key).zip(value::run_from_bytes(bytes));
    let ((_, start), place) =
        parsed.ok_or(FsError::Damaged { ino, problem: "its chunk map cannot be read" })?;
    Ok((ChunkNo::new(start), place))
}

pub(crate) fn parse_link(ino: Ino, key: &[u8]) -> Result<Link, FsError> {
    let parse = || {
        let (_, rest) = schema::take_number(key)?;
        let (parent, name) = schema::take_number(rest)?;
        Some(Link { parent: Ino::new(parent), name: FileName::new(name)? })
    };
    parse().ok_or(FsError::Damaged { ino, problem: "a link cannot be read" })
}

/// Chunk bytes before compression that some runs hold in the store.
pub(crate) fn resident_bytes(runs: &[ChunkRun], chunk_bytes: u32, file_bytes: u64) -> u64 {
    let resident = |run: &&ChunkRun| matches!(run.state, ChunkState::Hot | ChunkState::Warm);
    let bytes = |run: &ChunkRun| run.chunks.len_bytes(chunk_bytes, file_bytes);
    runs.iter().filter(resident).map(bytes).sum()
}

/// How many runs are read at a time.
const N_RUNS: usize = 1024;
