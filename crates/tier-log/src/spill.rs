//! Sorted runs of net changes in a temporary file, for ranges that change more inodes than fit into
//! memory.
//!
//! The file has no name: it is gone with the process, whatever ends it, and no other process ever
//! reads it, so that its format may change at any time. It is written once from the first byte to
//! the last and then read once in the same order. Its bytes come from this process, but by way of a
//! disk: what cannot be read back is an error of the spill, never a panic.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tier_types::{ChunkNo, ChunkRange, Ino, Xid, to_u64};

use crate::LogError;
use crate::fold::{InodeChange, NetChange};

/// What an inode takes in the file: its length in 8 bytes, and a value of this type.
#[derive(Serialize, Deserialize)]
struct SpilledInode {
    ino: u64,
    created: bool,
    gone: Option<u64>,
    touched: Vec<(u64, u64)>,
}

/// One run, read back in order of inodes.
#[derive(Debug)]
pub(crate) struct SpilledRun {
    file: BufReader<File>,
    n_left: u64,
    /// The inode that was read last.
    last: Option<Ino>,
}

/// Writes one run, in order of inodes.
#[derive(Debug)]
pub(crate) struct RunWriter {
    sink: BufWriter<File>,
    n_inodes: u64,
    /// The inode that was written last.
    last: Option<Ino>,
}

impl RunWriter {
    /// A new temporary file in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self, LogError> {
        let file = tempfile::tempfile_in(dir).map_err(not_written)?;
        Ok(Self { sink: BufWriter::new(file), n_inodes: 0, last: None })
    }

    pub(crate) fn push(&mut self, inode: &InodeChange) -> Result<(), LogError> {
        assert!(Some(inode.ino) > self.last, "a run is sorted, and has each inode once");
        let bytes = encode(inode);
        self.sink.write_all(&to_u64(bytes.len()).to_le_bytes()).map_err(not_written)?;
        self.sink.write_all(&bytes).map_err(not_written)?;
        self.n_inodes += 1;
        self.last = Some(inode.ino);
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<SpilledRun, LogError> {
        let mut file = self.sink.into_inner().map_err(|error| not_written(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(not_written)?;
        Ok(SpilledRun { file: BufReader::new(file), n_left: self.n_inodes, last: None })
    }
}

fn not_written(source: std::io::Error) -> LogError {
    LogError::Spill { operation: "write", source }
}

impl SpilledRun {
    pub(crate) fn next(&mut self) -> Result<Option<InodeChange>, LogError> {
        if self.n_left == 0 {
            return Ok(None);
        }
        self.n_left -= 1;
        let failed = |source| LogError::Spill { operation: "read", source };
        let mut header = [0; 8];
        self.file.read_exact(&mut header).map_err(failed)?;
        let len = u64::from_le_bytes(header);
        let mut bytes = Vec::new();
        let read = Read::take(&mut self.file, len).read_to_end(&mut bytes).map_err(failed)?;
        let whole = to_u64(read) == len;
        let inode = if whole { decode(&bytes) } else { None }
            // The disk may have changed a number: what merges runs relies on their order.
            .filter(|inode| Some(inode.ino) > self.last)
            .ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))?;
        self.last = Some(inode.ino);
        Ok(Some(inode))
    }
}

#[expect(clippy::expect_used, reason = "plain values are serialised into memory")]
fn encode(inode: &InodeChange) -> Vec<u8> {
    let InodeChange { ino, change } = inode;
    let touched = change.touched.ranges().map(|range| (range.start().get(), range.end().get()));
    let spilled = SpilledInode {
        ino: ino.get(),
        created: change.created,
        gone: change.gone.map(Xid::get),
        touched: touched.collect(),
    };
    postcard::to_allocvec(&spilled).expect("serialising into memory cannot fail")
}

fn decode(bytes: &[u8]) -> Option<InodeChange> {
    let spilled: SpilledInode = postcard::from_bytes(bytes).ok()?;
    let gone = spilled.gone.map(Xid::new);
    let mut change = NetChange { created: spilled.created, gone, ..NetChange::default() };
    // There are no more of them than were written: none is to be joined.
    let n_ranges = spilled.touched.len();
    for (start, end) in spilled.touched {
        let range = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end))?;
        change.touched.insert(range, n_ranges);
    }
    Some(InodeChange { ino: Ino::new(spilled.ino), change })
}
