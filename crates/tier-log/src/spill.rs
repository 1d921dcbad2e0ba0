//! Sorted runs of folded changes in a temporary file, for ranges that change more inodes than fit
//! into memory. The file has no name and is never read by another process: its format may change.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tier_types::{ChunkNo, ChunkRange, Ino, Xid, to_u64, to_usize};

use crate::LogError;
use crate::fold::Folded;

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
}

impl SpilledRun {
    /// Writes a run to a new temporary file in `dir`.
    pub(crate) fn write(dir: &Path, inodes: &[(Ino, Folded)]) -> Result<Self, LogError> {
        let failed = |source| LogError::Spill { operation: "write", source };
        let mut sink = BufWriter::new(tempfile::tempfile_in(dir).map_err(failed)?);
        for (ino, folded) in inodes {
            let spilled = SpilledInode {
                ino: ino.get(),
                created: folded.created,
                gone: folded.gone.map(Xid::get),
                touched: folded
                    .touched
                    .ranges()
                    .map(|range| (range.start().get(), range.end().get()))
                    .collect(),
            };
            // Serialising plain values into memory has no way to fail.
            let bytes = postcard::to_allocvec(&spilled).unwrap_or_default();
            sink.write_all(&to_u64(bytes.len()).to_le_bytes()).map_err(failed)?;
            sink.write_all(&bytes).map_err(failed)?;
        }
        let mut file = sink.into_inner().map_err(|error| failed(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(Self { file: BufReader::new(file), n_left: to_u64(inodes.len()) })
    }

    pub(crate) fn next(&mut self) -> Result<Option<(Ino, Folded)>, LogError> {
        if self.n_left == 0 {
            return Ok(None);
        }
        self.n_left -= 1;
        let failed = |source| LogError::Spill { operation: "read", source };
        let mut len = [0; 8];
        self.file.read_exact(&mut len).map_err(failed)?;
        let mut bytes = Vec::new();
        let len = u64::from_le_bytes(len);
        Read::take(&mut self.file, len).read_to_end(&mut bytes).map_err(failed)?;
        let short = || failed(std::io::ErrorKind::InvalidData.into());
        if bytes.len() != to_usize(len) {
            return Err(short());
        }
        let spilled: SpilledInode = postcard::from_bytes(&bytes).map_err(|_| short())?;
        let mut folded = Folded {
            created: spilled.created,
            gone: spilled.gone.map(Xid::new),
            ..Folded::default()
        };
        for (start, end) in spilled.touched {
            let range = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end));
            folded.touched.insert(range.ok_or_else(short)?);
        }
        Ok(Some((Ino::new(spilled.ino), folded)))
    }
}
