//! Where the last pass ended, and whom it spared.
//!
//! A text file: `tier-evict 1 cursor=XID`, one inode number a line in order, `end N`. It is
//! replaced as a whole; without its last line it is not valid. Losing it loses no data: the next
//! pass starts over at the first transaction.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Lines, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tier_types::{Ino, Xid};

use crate::EvictError;

const HEADER: &str = "tier-evict 1 cursor=";

/// What the last pass left, read in order.
pub(crate) struct CarryOver {
    path: PathBuf,
    /// The first transaction that no pass has gone through.
    pub(crate) cursor: Xid,
    lines: Option<Lines<BufReader<File>>>,
}

impl CarryOver {
    pub(crate) fn open(path: &Path) -> Result<Self, EvictError> {
        let failed = |source| failed("read", path, source);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path: path.to_path_buf(), cursor: Xid::new(1), lines: None });
            }
            Err(error) => return Err(failed(error)),
        };
        let mut lines = BufReader::new(file).lines();
        let header = lines.next().transpose().map_err(failed)?.unwrap_or_default();
        let cursor = header.strip_prefix(HEADER).and_then(|cursor| cursor.parse().ok());
        let cursor = cursor.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        Ok(Self { path: path.to_path_buf(), cursor: Xid::new(cursor), lines: Some(lines) })
    }
}

impl Iterator for CarryOver {
    type Item = Result<Ino, EvictError>;

    fn next(&mut self) -> Option<Self::Item> {
        let failed = |source| failed("read", &self.path, source);
        let line = match self.lines.as_mut()?.next() {
            Some(Ok(line)) => line,
            Some(Err(error)) => return Some(Err(failed(error))),
            None => {
                self.lines = None;
                return Some(Err(failed(io::ErrorKind::UnexpectedEof.into())));
            }
        };
        if line.starts_with("end ") {
            self.lines = None;
            return None;
        }
        let ino = line.parse().map(Ino::new);
        Some(ino.map_err(|_| failed(io::ErrorKind::InvalidData.into())))
    }
}

/// What this pass leaves; nothing of it counts until it is finished.
pub(crate) struct NewCarryOver {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    n_inodes: u64,
}

impl NewCarryOver {
    pub(crate) fn create(path: &Path, cursor: Xid) -> Result<Self, EvictError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let file =
            NamedTempFile::new_in(folder).map_err(|source| failed("create", path, source))?;
        let mut file = BufWriter::new(file);
        writeln!(file, "{HEADER}{cursor}").map_err(|source| failed("write", path, source))?;
        Ok(Self { path: path.to_path_buf(), file, n_inodes: 0 })
    }

    pub(crate) fn add(&mut self, ino: Ino) -> Result<(), EvictError> {
        self.n_inodes += 1;
        writeln!(self.file, "{ino}").map_err(|source| failed("write", &self.path, source))
    }

    pub(crate) fn finish(mut self) -> Result<(), EvictError> {
        let path = self.path;
        let failed = |operation| {
            let path = path.clone();
            move |source| failed(operation, &path, source)
        };
        writeln!(self.file, "end {}", self.n_inodes).map_err(failed("write"))?;
        let file = self.file.into_inner().map_err(|error| failed("write")(error.into_error()))?;
        file.as_file().sync_all().map_err(failed("sync"))?;
        file.persist(&path).map_err(|error| failed("replace")(error.error))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("sync the folder of"))
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> EvictError {
    EvictError::CarryOver { operation, path: path.to_path_buf(), source }
}
