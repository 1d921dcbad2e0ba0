//! The export of one file: its content or what else it is, then its attributes.
//!
//! A file of which some bytes cannot be read (the archive lacks them, or has them damaged) comes
//! out with all the others, and with a hole in the place of each such range. That is said of each,
//! and makes the export fail in the end: a hole reads as zeros, and nothing in the copy itself says
//! that these are none. A file of which nothing can be read is left out.
//!
//! Holes stay holes. What of a sparse file is data in the store may still be zeros, because a store
//! knows holes in whole chunks only: blocks of zeros in it become holes as well, so that the copy
//! takes no more of the disk than the original did. A file without holes is written as it is.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use kvfs::FsError;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tier_types::{ByteRange, FileAttr, FileKind, Ino, to_u64, to_usize, with_causes};

use super::Export;
use crate::transfer::copied::COPY_BYTES;
use crate::transfer::readable::{self, Piece};
use crate::transfer::walk;

/// Blocks of a sparse file that are all zeros stay holes.
const BLOCK_BYTES: usize = 4096;

/// Ranges of one file that are told of, where they cannot be read.
const N_TOLD: usize = 1000;

/// Ranges of data that are asked for at a time.
const N_RANGES: usize = 1024;

impl Export<'_> {
    /// Makes one file that is not a directory. It is no error if the file is gone from the store,
    /// or that its data is damaged: that is counted.
    pub(super) fn file(&self, path: &Path, attr: &FileAttr) -> Result<()> {
        let bytes = attr.size_bytes;
        tracing::debug!(path = %path.display(), ino = %attr.ino, bytes, "exporting");
        let failed = || format!("cannot export to {}", path.display());
        let made = self.make_with_attributes(path, attr).with_context(failed);
        self.go_on_if_damaged(walk::gone_is_fine(made))
    }

    fn make_with_attributes(&self, path: &Path, attr: &FileAttr) -> Result<()> {
        // A device that only root can make is said and left out; the files after it still come.
        self.tolerate(self.make(path, attr))?;
        // It is not there if making it was not allowed.
        if fs::symlink_metadata(path).is_ok() { self.attributes(path, attr) } else { Ok(()) }
    }

    fn make(&self, path: &Path, attr: &FileAttr) -> Result<()> {
        let special = |kind, device| -> Result<()> {
            let c_path = CString::new(path.as_os_str().as_bytes())?;
            // Private until the attributes are set: the final mode belongs to the final owner.
            Ok(mknodat(CWD, &c_path, kind, Mode::from_raw_mode(0o600), device)?)
        };
        match &attr.kind {
            FileKind::Regular => self.content(path, attr),
            FileKind::Directory => Ok(()),
            FileKind::Symlink(target) => Ok(symlink(OsStr::from_bytes(target), path)?),
            FileKind::Fifo => special(FileType::Fifo, 0),
            FileKind::Socket => special(FileType::Socket, 0),
            FileKind::CharDevice(d) => {
                special(FileType::CharacterDevice, rustix::fs::makedev(d.major, d.minor))
            }
            FileKind::BlockDevice(d) => {
                special(FileType::BlockDevice, rustix::fs::makedev(d.major, d.minor))
            }
        }
    }

    /// Copies the data under another name, and gives the file its own when all of it is there. A
    /// link instead of a renaming, so that a file that is there is not replaced.
    fn content(&self, path: &Path, attr: &FileAttr) -> Result<()> {
        // Two workers may copy files of one directory, and two exports may write into it.
        let number = self.n_parts.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let part = path.with_file_name(format!(".tier-export-{process}-{number}"));
        // A part that another export left under this name is not written into.
        let file = File::options().write(true).create_new(true).mode(0o600).open(&part)?;
        // Its error waits until the part is removed.
        let copied = self.copy_all(&file, attr);
        let named = copied.and_then(|unreadable| {
            fs::hard_link(&part, path)?;
            Ok(unreadable)
        });
        fs::remove_file(&part)?;
        self.tell(path, &named?);
        Ok(())
    }

    /// Says what of a file that has its name could not be read.
    fn tell(&self, path: &Path, unreadable: &[Unreadable]) {
        if unreadable.is_empty() {
            return;
        }
        let path = path.display();
        for Unreadable { bytes, error } in unreadable.iter().take(N_TOLD) {
            let why = with_causes(error);
            tracing::error!("{path}: bytes {bytes} could not be read and are left a hole: {why}");
        }
        if let Some(n) = unreadable.len().checked_sub(N_TOLD).filter(|n| *n > 0) {
            tracing::error!("{path}: and {n} more ranges");
        }
        self.n_partial.fetch_add(1, Ordering::Relaxed);
    }

    /// Copies what can be read, and returns what cannot; an error if that is everything.
    fn copy_all(&self, file: &File, attr: &FileAttr) -> Result<Vec<Unreadable>> {
        // The length is set first: a hole at the end would otherwise shorten the file.
        file.set_len(attr.size_bytes)?;
        let mut ranges = self.fs.data_ranges(attr.ino, 0, N_RANGES)?;
        // One range over all of the file is what a file without holes has.
        let sparse = ranges != [ByteRange { offset: 0, len: attr.size_bytes }];
        let (n_bytes, unreadable) = (0, Vec::new());
        let mut copy = CopyData { export: self, file, ino: attr.ino, sparse, n_bytes, unreadable };
        let mut at = 0;
        while !ranges.is_empty() {
            for ByteRange { offset, len } in &ranges {
                assert!(at <= *offset && *len > 0, "ranges of data come in order");
                at = offset + len;
                copy.range(*offset, at)?;
            }
            // Fewer than asked for were the last ones.
            ranges = if ranges.len() < N_RANGES {
                Vec::new()
            } else {
                self.fs.data_ranges(attr.ino, at, N_RANGES)?
            };
        }
        let CopyData { n_bytes, mut unreadable, .. } = copy;
        match unreadable.first() {
            Some(_) if n_bytes == 0 => Err(unreadable.swap_remove(0).error.into()),
            Some(_) | None => Ok(unreadable),
        }
    }
}

/// Bytes that could not be read.
struct Unreadable {
    bytes: ByteRange,
    /// Why not; of several in a row what the first one said.
    error: FsError,
}

/// Copies data of one file of the store to one of the host.
struct CopyData<'a> {
    export: &'a Export<'a>,
    file: &'a File,
    ino: Ino,
    /// Whether there are holes: then zeros are left out as well.
    sparse: bool,
    /// How much could be read.
    n_bytes: u64,
    unreadable: Vec<Unreadable>,
}

impl CopyData<'_> {
    /// Copies the bytes from `start` up to `end`.
    fn range(&mut self, start: u64, end: u64) -> Result<()> {
        let (fs, ino) = (self.export.fs, self.ino);
        let mut at = start;
        while at < end {
            let n = to_usize((end - at).min(to_u64(COPY_BYTES)));
            let mut came = 0;
            readable::read_pieces::<anyhow::Error>(fs, ino, at, n, &mut |offset, piece| {
                came += self.piece(offset, piece)?;
                Ok(())
            })?;
            // The file may be cut by a writer; a copy with zeros in place of the rest would be
            // wrong.
            if came == 0 {
                bail!("it became shorter while it was read");
            }
            at += came;
        }
        Ok(())
    }

    /// Takes a piece of the file, and says how long it is.
    fn piece(&mut self, offset: u64, piece: Piece) -> Result<u64> {
        match piece {
            Piece::Data(data) => {
                if self.sparse {
                    write_blocks(self.file, &data, offset)?;
                } else {
                    self.file.write_all_at(&data, offset)?;
                }
                let len = to_u64(data.len());
                self.n_bytes += len;
                // Also within a file, so that a long one can be stopped and shows that it moves.
                self.export.count(0, len)?;
                Ok(len)
            }
            Piece::Unreadable(len, error) => {
                assert!(len > 0, "what cannot be read has bytes");
                match self.unreadable.last_mut() {
                    Some(last) if last.bytes.end() == Some(offset) => last.bytes.len += len,
                    _ => {
                        let bytes = ByteRange { offset, len };
                        self.unreadable.push(Unreadable { bytes, error });
                    }
                }
                Ok(len)
            }
        }
    }
}

/// Writes runs of blocks that are not all zeros.
fn write_blocks(file: &File, data: &[u8], offset: u64) -> Result<()> {
    let is_zero = |block: &[u8]| block.iter().all(|&byte| byte == 0);
    let blocks: Vec<_> = data.chunks(BLOCK_BYTES).collect();
    let mut at = offset;
    // Neighbours that are alike are one run, so that a write is as long as it can be.
    for run in blocks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let len: usize = run.iter().map(|block| block.len()).sum();
        if run.first().is_some_and(|block| !is_zero(block)) {
            file.write_all_at(&run.concat(), at)?;
        }
        at += to_u64(len);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeros_are_left_out_and_all_others_are_written() {
        let file = tempfile::tempfile().unwrap();
        let mut data = vec![0; 5 * BLOCK_BYTES + 100];
        data[BLOCK_BYTES] = 1;
        data[2 * BLOCK_BYTES + 7] = 2;
        data[5 * BLOCK_BYTES + 99] = 3;
        // What is there shows what was written over it.
        file.write_all_at(&vec![9; 10 + data.len()], 0).unwrap();
        write_blocks(&file, &data, 10).unwrap();
        let mut found = vec![0; data.len()];
        file.read_exact_at(&mut found, 10).unwrap();
        for (block, (found, data)) in
            found.chunks(BLOCK_BYTES).zip(data.chunks(BLOCK_BYTES)).enumerate()
        {
            let is_written = found == data;
            let is_untouched = found.iter().all(|&byte| byte == 9);
            assert!(if [1, 2, 5].contains(&block) { is_written } else { is_untouched }, "{block}");
        }
    }
}
