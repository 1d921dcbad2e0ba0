//! RocksDB's write-ahead log, as far as it must be understood to find a hole in it.
//!
//! The system writes pages and files that were not synced in any order, so that after a loss of
//! power a log may lack its end although the next log has its start, or lack a page in its middle.
//! RocksDB takes zeros at the start of a record for the end of what was preallocated, and a log
//! that ends with a whole record for a whole log; it goes on behind both, in every mode, and
//! replays transactions without those before them. Such a log must end before the hole.
//!
//! RocksDB has an option of its own against holes between files (`track_and_verify_wals`), which is
//! experimental and does not see those within one.
//!
//! # Format
//! (RocksDB's `db/log_format.h`, and its wiki page "Write Ahead Log File Format".) A file is a
//! sequence of blocks of 32 KiB. A block holds physical records, each with a header of 7 bytes:
//! checksum (u32, a masked CRC-32C of type and payload), length of the payload (u16), type (u8). A
//! logical record is one of type 1, or those of the types 2, 3, …, 4. What is left of a block that
//! is too short for a header is zeros. A logical record holds a batch: its first sequence number
//! (u64) and the number of its changes (u32), each of which takes one sequence number. So the
//! sequence numbers of batches follow each other without a gap, also from one file to the next, and
//! that is what a hole breaks. Numbers are little-endian.
//!
//! A file that ends in a torn record is in order if the next file goes on with the right number:
//! RocksDB began that one when a write had failed, and wrote the batch again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tier_types::{to_u64, to_usize};

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const EXTENSION: &str = "log";
/// Added to a checksum that is stored beside what it is of.
const MASK_DELTA: u32 = 0xa282_ead8;

/// Where the log must end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hole {
    /// The file in which it is.
    pub(super) file: PathBuf,
    /// Where the first record begins that is not there.
    pub(super) offset: u64,
    /// The files behind it.
    pub(super) later: Vec<PathBuf>,
}

/// A batch: its first sequence number, and the one that follows its last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Batch {
    first: u64,
    next: u64,
}

/// What comes next in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Batch(Batch),
    /// Nothing follows but zeros.
    End,
    /// No batch, and something follows.
    Broken,
    /// A record of a kind that is not known here: nothing can be said.
    Unknown,
}

/// The first hole in the logs with these numbers and higher ones that has anything behind it.
pub(super) fn find_hole(directory: &Path, first_number: u64) -> io::Result<Option<Hole>> {
    let files = logs(directory, first_number)?;
    let mut expected = None;
    let mut broken: Option<Broken> = None;
    for (number, path) in files.iter().enumerate() {
        let bytes = fs::read(path)?;
        let mut reader = Reader { bytes: &bytes, at: 0 };
        loop {
            let start = reader.at;
            match reader.step() {
                // What is not understood is left to RocksDB: a cut could drop what was synced.
                Step::Unknown => return Ok(None),
                // Whether anything is missing here shows in the number with which the next file
                // begins.
                Step::End => break,
                Step::Batch(batch) if expected.is_none_or(|next| next == batch.first) => {
                    expected = Some(batch.next);
                    // It goes on where it was torn: nothing is missing.
                    broken = None;
                }
                step @ (Step::Batch(_) | Step::Broken) => {
                    let is_behind = matches!(step, Step::Batch(_));
                    broken = broken.or(Some(Broken { number, offset: to_u64(start), is_behind }));
                    break;
                }
            }
        }
    }
    let Some(Broken { number, offset, is_behind }) = broken else { return Ok(None) };
    let (until, later) = files.split_at(number + 1);
    let hole = until.last().map(|file| Hole { file: file.clone(), offset, later: later.to_vec() });
    // A torn end with nothing behind it is what RocksDB expects after a crash.
    match hole {
        Some(hole) if is_behind || hole.is_followed()? => Ok(Some(hole)),
        Some(_) | None => Ok(None),
    }
}

/// Where the batches do not go on.
struct Broken {
    /// Of the file.
    number: usize,
    offset: u64,
    /// A later batch is there instead of the next one.
    is_behind: bool,
}

impl Hole {
    /// Makes the log end before it, durably.
    pub(super) fn cut(&self) -> io::Result<()> {
        // From the last one on: whatever a crash leaves is found again.
        for path in self.later.iter().rev() {
            fs::remove_file(path)?;
        }
        let file = OpenOptions::new().write(true).open(&self.file)?;
        file.set_len(self.offset)?;
        file.sync_all()?;
        match self.file.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Makes a copy of the database as it would be after the cut, to be read only. Files that are
    /// not changed are links.
    pub(super) fn try_cut(&self, directory: &Path, copy: &Path) -> io::Result<()> {
        fs::create_dir(copy)?;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
            if path == self.file {
                let mut until = File::open(&path)?.take(self.offset);
                io::copy(&mut until, &mut File::create(copy.join(name))?)?;
            } else if !self.later.contains(&path) {
                // Not all filesystems have links of the first kind.
                let (to, from) = (copy.join(name), path.canonicalize()?);
                fs::hard_link(&from, &to).or_else(|_| symlink(&from, &to))?;
            }
        }
        Ok(())
    }

    /// Whether RocksDB would find a batch behind it, in the same file or in later ones.
    fn is_followed(&self) -> io::Result<bool> {
        // RocksDB finds its way again at the start of a block.
        let next_block = to_usize(self.offset) / BLOCK_BYTES + 1;
        if has_batch(&fs::read(&self.file)?, next_block) {
            return Ok(true);
        }
        for later in &self.later {
            if has_batch(&fs::read(later)?, 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a batch begins in the blocks of a log from one on. The rest of a batch that began before
/// is none: it may be that of the one that is torn.
fn has_batch(log: &[u8], first_block: usize) -> bool {
    log.chunks(BLOCK_BYTES).skip(first_block).any(|block| {
        let mut at = 0;
        while let Physical::Record { kind, end, .. } = physical(block, at) {
            if matches!(kind, 1 | 2) {
                return true;
            }
            at = end;
        }
        false
    })
}

/// The logs of a database, in the order in which they were written.
fn logs(directory: &Path, first_number: u64) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let number = stem.and_then(|stem| stem.parse::<u64>().ok());
        let is_log = path.extension().is_some_and(|extension| extension == EXTENSION);
        if let Some(number) = number.filter(|number| is_log && *number >= first_number) {
            logs.push((number, path));
        }
    }
    logs.sort();
    Ok(logs.into_iter().map(|(_, path)| path).collect())
}

/// Reads batch after batch.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn step(&mut self) -> Step {
        let mut batch = Vec::new();
        let mut is_first = true;
        loop {
            self.skip_block_end();
            match physical(self.bytes, self.at) {
                Physical::End if is_first => return Step::End,
                Physical::End | Physical::Broken => return Step::Broken,
                Physical::Record { kind, payload, end } => {
                    let is_start = matches!(kind, 1 | 2);
                    match kind {
                        1..=4 if is_start == is_first => batch.extend_from_slice(payload),
                        1..=4 => return Step::Broken,
                        _ => return Step::Unknown,
                    }
                    self.at = end;
                    is_first = false;
                    if matches!(kind, 1 | 4) {
                        return parse_batch(&batch).map_or(Step::Broken, Step::Batch);
                    }
                }
            }
        }
    }

    fn skip_block_end(&mut self) {
        let left = BLOCK_BYTES - self.at % BLOCK_BYTES;
        if left < HEADER_BYTES {
            self.at += left;
        }
    }
}

/// One physical record.
enum Physical<'a> {
    Record {
        kind: u8,
        payload: &'a [u8],
        end: usize,
    },
    /// Zeros up to the end of the file.
    End,
    Broken,
}

fn physical(bytes: &[u8], at: usize) -> Physical<'_> {
    let rest = bytes.get(at..).unwrap_or(&[]);
    if rest.iter().all(|byte| *byte == 0) {
        return Physical::End;
    }
    let Some(([c0, c1, c2, c3, l0, l1, kind], payload)) = rest.split_first_chunk::<HEADER_BYTES>()
    else {
        return Physical::Broken;
    };
    let len = usize::from(u16::from_le_bytes([*l0, *l1]));
    let fits = HEADER_BYTES + len <= BLOCK_BYTES - at % BLOCK_BYTES;
    let Some((payload, _)) = payload.split_at_checked(len).filter(|_| fits) else {
        return Physical::Broken;
    };
    if masked_checksum(*kind, payload) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) {
        return Physical::Broken;
    }
    Physical::Record { kind: *kind, payload, end: at + HEADER_BYTES + len }
}

fn masked_checksum(kind: u8, payload: &[u8]) -> u32 {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
    checksum.rotate_right(15).wrapping_add(MASK_DELTA)
}

fn parse_batch(bytes: &[u8]) -> Option<Batch> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    let (count, _) = rest.split_first_chunk::<4>()?;
    let first = u64::from_le_bytes(*first);
    let next = first.checked_add(u64::from(u32::from_le_bytes(*count)))?;
    Some(Batch { first, next })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tier_types::{FileKind, Ino, LogReader, SystemClock};

    use super::*;
    use crate::Core;
    use crate::store::{Db, OpenAs};
    use crate::testing::{filesystem, name, node, options};

    /// So many that the log has several blocks.
    const N_FILES: usize = 200;

    fn file_name(number: usize) -> tier_types::FileName {
        name(&format!("file-{number}"))
    }

    /// A filesystem with files whose batches are in the write-ahead log, and not synced but for the
    /// first one; the log, and its batches.
    fn logged() -> (TempDir, PathBuf, Vec<Vec<u8>>) {
        let (dir, filesystem) = filesystem();
        for number in 0..N_FILES {
            let node = node(FileKind::Regular);
            filesystem.create_node(Ino::ROOT, &file_name(number), &node).unwrap();
        }
        drop(filesystem);
        let log = logs(&dir.path().join("kvs"), 0).unwrap().pop().unwrap();
        let batches = batches(&fs::read(&log).unwrap());
        assert_eq!(batches.len(), 1 + N_FILES, "the root, and the files");
        (dir, log, batches)
    }

    fn batches(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = Reader { bytes, at: 0 };
        let mut batches = vec![Vec::new()];
        while let Physical::Record { kind, payload, end } = physical(bytes, reader.at) {
            batches.last_mut().unwrap().extend_from_slice(payload);
            if matches!(kind, 1 | 4) {
                batches.push(Vec::new());
            }
            reader.at = end;
            reader.skip_block_end();
        }
        assert_eq!(batches.pop().unwrap(), b"", "the log ends with a whole batch");
        batches
    }

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        let checksum = masked_checksum(kind, payload).to_le_bytes();
        let len = u16::try_from(payload.len()).unwrap().to_le_bytes();
        [&checksum[..], &len, &[kind], payload].concat()
    }

    /// The file of these batches.
    fn log_of(batches: &[Vec<u8>]) -> Vec<u8> {
        let mut log = Vec::new();
        for batch in batches {
            let mut rest = Some(batch.as_slice());
            let mut is_first = true;
            while let Some(bytes) = rest {
                let left = BLOCK_BYTES - log.len() % BLOCK_BYTES;
                if left < HEADER_BYTES {
                    log.resize(log.len() + left, 0);
                    continue;
                }
                let (piece, after) = bytes.split_at(bytes.len().min(left - HEADER_BYTES));
                let kind = match (is_first, after.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                log.extend(record(kind, piece));
                (rest, is_first) = (Some(after).filter(|after| !after.is_empty()), false);
            }
        }
        log
    }

    /// The name of the log that comes after another one.
    fn next(log: &Path) -> PathBuf {
        let number: u64 = log.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        log.with_file_name(format!("{:06}.log", number + 10))
    }

    /// The database's own way to open it.
    fn open_strictly(dir: &TempDir) -> Db {
        Db::open(&dir.path().join("kvs"), &options(), OpenAs::Strict).unwrap()
    }

    #[test]
    fn a_log_is_what_the_database_wrote() {
        let (dir, log, batches) = logged();
        let bytes = fs::read(&log).unwrap();
        assert!(bytes.len() > BLOCK_BYTES);
        assert!(log_of(&batches) == bytes, "written as it was read");
        assert_eq!(find_hole(&dir.path().join("kvs"), 0).unwrap(), None);
        let numbers: Vec<_> = batches.iter().map(|batch| parse_batch(batch).unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0].next == pair[1].first), "{numbers:?}");
    }

    /// Leaves a batch out: between two files, or with zeros up to the end of its block.
    fn leave_out(log: &Path, batches: &[Vec<u8>], number: usize, in_one_file: bool) -> Hole {
        let (before, behind) = (log_of(&batches[..number]), log_of(&batches[number + 1..]));
        let offset = to_u64(before.len());
        if in_one_file {
            let zeros = vec![0; before.len().next_multiple_of(BLOCK_BYTES) - before.len()];
            fs::write(log, [before, zeros, behind].concat()).unwrap();
            Hole { file: log.to_path_buf(), offset, later: Vec::new() }
        } else {
            fs::write(log, before).unwrap();
            fs::write(next(log), behind).unwrap();
            Hole { file: next(log), offset: 0, later: Vec::new() }
        }
    }

    #[test]
    fn the_database_steps_over_a_hole_and_opening_does_not() {
        for (number, in_one_file) in
            [(1, true), (1, false), (17, true), (160, true), (160, false), (199, false)]
        {
            let (dir, log, batches) = logged();
            let hole = leave_out(&log, &batches, number, in_one_file);
            assert_eq!(find_hole(&dir.path().join("kvs"), 0).unwrap(), Some(hole));
            // Batch by batch, as transactions are.
            let core =
                Core::open(dir.path(), &options(), std::sync::Arc::new(SystemClock)).unwrap();
            assert_eq!(to_usize(core.last_xid().get()), number, "it ends before the hole");
            for file in 0..N_FILES {
                let is_there = core.lookup(Ino::ROOT, &file_name(file)).is_ok();
                assert_eq!(is_there, file + 1 < number, "{file} of {number}");
            }
            drop(core);

            let (dir, log, batches) = logged();
            leave_out(&log, &batches, number, in_one_file);
            let last = open_strictly(&dir).reader().last_xid().unwrap();
            assert_eq!(to_usize(last.get()), batches.len(), "this is what it is for");
        }
    }

    #[test]
    fn a_torn_end_is_no_hole() {
        let (dir, log, batches) = logged();
        let directory = dir.path().join("kvs");
        let bytes = log_of(&batches);
        for len in bytes.len() - 300..bytes.len() {
            fs::write(&log, &bytes[..len]).unwrap();
            assert_eq!(find_hole(&directory, 0).unwrap(), None, "cut at {len}");
        }
        // A write that failed half way is in the next log as a whole.
        let (half, _) = bytes.split_at(bytes.len() - 20);
        fs::write(&log, half).unwrap();
        fs::write(next(&log), "").unwrap();
        assert_eq!(find_hole(&directory, 0).unwrap(), None, "RocksDB began the next one");
        fs::write(next(&log), log_of(&batches[batches.len() - 1..])).unwrap();
        assert_eq!(find_hole(&directory, 0).unwrap(), None);
        drop(Core::open(dir.path(), &options(), std::sync::Arc::new(SystemClock)).unwrap());
    }

    #[test]
    fn a_torn_batch_of_many_blocks_is_no_hole() {
        let (dir, log, mut batches) = logged();
        let whole = log_of(&batches).len();
        batches.push(vec![7; 5 * BLOCK_BYTES]);
        let mut bytes = log_of(&batches);
        // A page of it is missing, and what follows is there.
        bytes[whole + BLOCK_BYTES..][..4096].fill(0);
        fs::write(&log, &bytes).unwrap();
        assert_eq!(find_hole(&dir.path().join("kvs"), 0).unwrap(), None);
        // Whatever begins behind it would be replayed.
        bytes.extend(log_of(&batches[1..2]));
        fs::write(&log, &bytes).unwrap();
        assert!(find_hole(&dir.path().join("kvs"), 0).unwrap().is_some());
    }

    #[test]
    fn logs_that_are_not_needed_or_not_understood_have_no_hole() {
        let (dir, log, batches) = logged();
        let directory = dir.path().join("kvs");
        leave_out(&log, &batches, 20, false);
        let number: u64 = log.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!(find_hole(&directory, number + 1).unwrap(), None);
        fs::write(&log, record(200, b"of a later version")).unwrap();
        assert_eq!(find_hole(&directory, 0).unwrap(), None);
    }
}
