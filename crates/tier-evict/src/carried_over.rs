//! The list of carried-over candidates: what an eviction pass leaves to the next one.
//!
//! A text file: `tier-evict 1 cursor=XID`, then one inode number a line in ascending order, then
//! `end N` with their number. It is written beside the old one, synced, renamed over it, and the
//! directory synced: a crash at any point leaves the old list or the new one, never a mixture. What
//! a crash leaves of an unfinished one is a temporary file that nothing reads.
//!
//! The list is read from disk and therefore not trusted. Everything is checked as it is read: the
//! header, the order (the merge of candidates relies on it), the number of inodes, that the last
//! line is whole and nothing follows it. Losing the list loses no data: without a file, or with a
//! damaged one, the next pass starts over at the first transaction, goes through every inode again,
//! and leaves a new one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tier_types::{Ino, Xid};

use crate::EvictError;

// Stores have files of this name; under another one their cursor would look lost.
const FILE_NAME: &str = "survivors";
const HEADER: &str = "tier-evict 1 cursor=";
const FOOTER: &str = "end ";
/// No line is longer: a word and a number.
const LINE_BYTES_MAX: u64 = 64;

/// The list that the last pass left, read in order.
pub(crate) struct CarriedOver {
    path: PathBuf,
    /// The first transaction that no pass has gone through.
    pub(crate) cursor: Xid,
    /// None without a file, at the end and after an error.
    rest: Option<BufReader<File>>,
    n_lines: u64,
    n_inodes: u64,
    last: Option<Ino>,
}

impl CarriedOver {
    /// Opens the list of this directory. Without one the cursor is at the first transaction.
    pub(crate) fn open(directory: &Path) -> Result<Self, EvictError> {
        let path = directory.join(FILE_NAME);
        let rest = match File::open(&path) {
            Ok(file) => Some(BufReader::new(file)),
            // No pass was ever finished, or an operator moved a damaged list away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &path, error)),
        };
        let mut list =
            Self { path, cursor: Xid::new(1), rest, n_lines: 0, n_inodes: 0, last: None };
        if list.rest.is_some() {
            let header = list.line()?;
            let cursor = header.strip_prefix(HEADER).and_then(|cursor| cursor.parse().ok());
            list.cursor = Xid::new(cursor.ok_or_else(|| list.damaged("not a header"))?);
        }
        Ok(list)
    }

    /// The same, if the list is whole. One that is damaged counts as none.
    pub(crate) fn open_whole(directory: &Path) -> Result<Self, EvictError> {
        let all_of_it = Self::open(directory)
            .and_then(|list| list.into_iter().try_for_each(|ino| ino.map(drop)));
        match all_of_it {
            Err(error @ EvictError::CarriedOverDamaged { .. }) => {
                tracing::warn!("all inodes come up again: {error}");
                let path = directory.join(FILE_NAME);
                Ok(Self {
                    path,
                    cursor: Xid::new(1),
                    rest: None,
                    n_lines: 0,
                    n_inodes: 0,
                    last: None,
                })
            }
            Err(error) => Err(error),
            Ok(()) => Self::open(directory),
        }
    }

    fn step(&mut self) -> Result<Option<Ino>, EvictError> {
        let line = self.line()?;
        if let Some(number) = line.strip_prefix(FOOTER) {
            // A list that lost lines in its middle still ascends, and only their number tells.
            if number.parse() != Ok(self.n_inodes) {
                return Err(self.damaged("it ends with another number of inodes"));
            }
            if self.read_line()?.is_some() {
                return Err(self.damaged("something follows the last line"));
            }
            self.rest = None;
            return Ok(None);
        }
        let ino = line.parse().map(Ino::new).map_err(|_| self.damaged("not an inode number"))?;
        if self.last.is_some_and(|last| ino <= last) {
            return Err(self.damaged("its inodes are out of order"));
        }
        self.n_inodes += 1;
        self.last = Some(ino);
        Ok(Some(ino))
    }

    /// The next line, of which there must be one.
    fn line(&mut self) -> Result<String, EvictError> {
        self.read_line()?.ok_or_else(|| self.damaged("the list is cut off"))
    }

    /// The next line without its end; `None` at the end of the file.
    fn read_line(&mut self) -> Result<Option<String>, EvictError> {
        let Some(rest) = &mut self.rest else { return Ok(None) };
        self.n_lines += 1;
        // A damaged file may be one endless line, which must not be held in memory.
        let mut line = Vec::new();
        let read = rest.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(|source| failed("read", &self.path, source))?;
        if line.is_empty() {
            return Ok(None);
        }
        // Also of the last line the end is needed: "end 1" may be what is left of "end 12".
        let bytes = line.strip_suffix(b"\n").ok_or_else(|| self.damaged("a line is cut off"))?;
        let text = str::from_utf8(bytes).map_err(|_| self.damaged("not a line of text"))?;
        Ok(Some(text.to_owned()))
    }

    fn damaged(&self, problem: &'static str) -> EvictError {
        EvictError::CarriedOverDamaged { path: self.path.clone(), line: self.n_lines, problem }
    }
}

impl Iterator for CarriedOver {
    type Item = Result<Ino, EvictError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest.as_ref()?;
        let next = self.step();
        // Nothing behind damage is trusted, and an error that comes again would have no end.
        if next.is_err() {
            self.rest = None;
        }
        next.transpose()
    }
}

/// The list that this pass leaves. Nothing of it counts until it is finished; dropped before, it
/// leaves the old one.
pub(crate) struct CarriedOverWriter {
    directory: PathBuf,
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    n_inodes: u64,
    last: Option<Ino>,
}

impl CarriedOverWriter {
    pub(crate) fn create(directory: &Path, cursor: Xid) -> Result<Self, EvictError> {
        let path = directory.join(FILE_NAME);
        // In the same directory, or it could not be renamed over the old list.
        let temporary =
            NamedTempFile::new_in(directory).map_err(|source| failed("create", &path, source))?;
        let mut file = BufWriter::new(temporary);
        writeln!(file, "{HEADER}{cursor}").map_err(|source| failed("write", &path, source))?;
        Ok(Self { directory: directory.to_path_buf(), path, file, n_inodes: 0, last: None })
    }

    pub(crate) fn add(&mut self, ino: Ino) -> Result<(), EvictError> {
        assert!(self.last.is_none_or(|last| last < ino), "a list that can be merged ascends");
        self.last = Some(ino);
        self.n_inodes += 1;
        writeln!(self.file, "{ino}").map_err(|source| failed("write", &self.path, source))
    }

    /// Puts the list in the place of the old one, durably.
    pub(crate) fn finish(self) -> Result<(), EvictError> {
        let Self { directory, path, mut file, n_inodes, .. } = self;
        let failed = |operation| {
            let path = path.clone();
            move |source| failed(operation, &path, source)
        };
        writeln!(file, "{FOOTER}{n_inodes}").map_err(failed("write"))?;
        let file = file.into_inner().map_err(|error| failed("write")(error.into_error()))?;
        // The content first: a crash after the rename must not find a name without it.
        file.as_file().sync_all().map_err(failed("sync"))?;
        file.persist(&path).map_err(|error| failed("replace")(error.error))?;
        // A rename is durable once its directory is.
        File::open(&directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("sync the directory of"))
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> EvictError {
    EvictError::CarriedOver { operation, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests;
