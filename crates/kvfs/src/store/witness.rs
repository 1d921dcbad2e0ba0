//! The witness: a small file outside the key-value store that knows a transaction which was synced.
//!
//! A write-ahead log that lost its end, to a flipped bit or because an older copy of it was put
//! back, is a valid log of an earlier moment: nothing in the key-value store shows that there was
//! more, because tables, log records and the last transaction id went back together. So the
//! committer writes the id that each sync covered into this file, after the sync has returned. An
//! opening that finds an earlier last id in the key-value store knows that synced transactions are
//! lost. What is no transaction (an eviction, a recall, a step of a restore) has no id; so beside
//! it stands how many rows the key-value store had written by then, which RocksDB counts.
//!
//! **It never leads.** The record with id X is handed to the system only after the sync of
//! everything up to X has returned. From then on X is durable in the key-value store, whatever
//! becomes of the record: a flush moves it from the write-ahead log into tables that are synced
//! before the log is dropped. The record itself is not synced. A loss of power may leave it as it
//! was at any earlier moment, or half written, but a disk cannot hold a record that was not written
//! yet. Hence in every state that a crash can leave, the id in a readable record is one that the
//! key-value store has; a store that has not was damaged or put back. Syncs come one after the
//! other, so that the ids in the file only rise.
//!
//! **It may lag**, by what was synced after its last write reached the disk, and that is no harm: a
//! loss is then noticed only beyond that point. A record that is missing or torn proves nothing,
//! and is no error as long as nothing else is wrong.
//!
//! The record is 28 bytes at offset 0, which is within one sector of a disk: magic, id, number of
//! rows and a CRC-32C of all three, little-endian.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tier_types::Xid;

use crate::FsError;

const MAGIC: [u8; 8] = *b"TIERWTN1";
const RECORD_BYTES: usize = 28;

/// What a sync covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Synced {
    /// Every transaction up to this one.
    pub(crate) xid: Xid,
    /// So many rows as had ever been written.
    pub(crate) n_writes: u64,
}

/// The file, open for the next record.
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
}

impl Witness {
    /// Where it is in a filesystem's directory.
    pub(crate) fn path(root: &Path) -> PathBuf {
        root.join("witness")
    }

    /// Opens it, or makes it if it is lost.
    pub(crate) fn open(root: &Path) -> Result<Self, FsError> {
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).open(Self::path(root));
        Ok(Self { file: opened.map_err(failed("open the witness of"))? })
    }

    /// Makes the one of a new filesystem, durably: a file that is there from the first moment is
    /// missing only if it was removed.
    pub(crate) fn create(root: &Path, floor: Xid) -> Result<(), FsError> {
        let witness = Self::open(root)?;
        let record = encode(Synced { xid: floor, n_writes: 0 });
        let written = witness.file.write_all_at(&record, 0);
        written.and_then(|()| witness.file.sync_all()).map_err(failed("write the witness of"))
    }

    /// Notes what is durable, which must be so. Not synced.
    pub(crate) fn note(&self, synced: Synced) {
        // A record that is not written makes the file lag, and the sync that it is about succeeded.
        if let Err(error) = self.file.write_all_at(&encode(synced), 0) {
            tracing::warn!(?synced, "cannot write the witness: {error}");
        }
    }

    /// What it says; `None` if it proves nothing.
    pub(crate) fn read(root: &Path) -> Option<Synced> {
        let path = Self::path(root);
        let read = || -> io::Result<[u8; RECORD_BYTES]> {
            let mut record = [0; RECORD_BYTES];
            File::open(&path)?.read_exact_at(&mut record, 0)?;
            Ok(record)
        };
        let synced = read().map(|record| decode(&record));
        match synced {
            Ok(Some(synced)) => Some(synced),
            Ok(None) => {
                tracing::debug!(path = %path.display(), "the witness is torn, and proves nothing");
                None
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), "the witness cannot be read: {error}");
                None
            }
        }
    }
}

fn encode(synced: Synced) -> Vec<u8> {
    let Synced { xid, n_writes } = synced;
    let mut record = [MAGIC, xid.get().to_le_bytes(), n_writes.to_le_bytes()].concat();
    let checksum = crc32c::crc32c(&record);
    record.extend(checksum.to_le_bytes());
    assert_eq!(record.len(), RECORD_BYTES, "a record has one length");
    record
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<Synced> {
    let (content, checksum) = record.split_last_chunk::<4>()?;
    let (magic, numbers) = content.split_first_chunk::<8>()?;
    let fits = crc32c::crc32c(content).to_le_bytes() == *checksum;
    if *magic != MAGIC || !fits {
        return None;
    }
    let (xid, n_writes) = numbers.split_first_chunk::<8>()?;
    let n_writes = u64::from_le_bytes(n_writes.try_into().ok()?);
    Some(Synced { xid: Xid::new(u64::from_le_bytes(*xid)), n_writes })
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> FsError {
    move |source| FsError::io(operation, source)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn synced(xid: u64) -> Synced {
        Synced { xid: Xid::new(xid), n_writes: xid.saturating_mul(3) }
    }

    #[test]
    fn the_last_note_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Witness::read(dir.path()), None, "there is none");
        Witness::create(dir.path(), Xid::new(7)).unwrap();
        assert_eq!(Witness::read(dir.path()), Some(Synced { xid: Xid::new(7), n_writes: 0 }));
        let witness = Witness::open(dir.path()).unwrap();
        assert!(Witness::read(dir.path()).is_some(), "opening changes nothing");
        for xid in [8, 300, u64::MAX] {
            witness.note(synced(xid));
            assert_eq!(Witness::read(dir.path()), Some(synced(xid)));
        }
    }

    #[test]
    fn torn_and_foreign_records_prove_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let whole = encode(synced(77));
        for torn_at in 0..whole.len() {
            let mut torn = encode(synced(0xffff_ffff));
            torn[..torn_at].copy_from_slice(&whole[..torn_at]);
            fs::write(Witness::path(dir.path()), &torn).unwrap();
            let read = Witness::read(dir.path());
            // Before the first byte that differs, nothing is torn yet.
            assert!(read.is_none() || torn == encode(synced(0xffff_ffff)), "{torn_at}: {read:?}");
            fs::write(Witness::path(dir.path()), &whole[..torn_at]).unwrap();
            assert_eq!(Witness::read(dir.path()), None, "cut at {torn_at}");
        }
        fs::write(Witness::path(dir.path()), [0; RECORD_BYTES]).unwrap();
        assert_eq!(Witness::read(dir.path()), None);
    }

    /// What is on disks must stay readable: these bytes are the format.
    #[test]
    fn a_record_is_the_bytes_that_it_always_was() {
        let record = encode(Synced { xid: Xid::new(513), n_writes: 3 });
        assert_eq!(record[..24], *b"TIERWTN1\x01\x02\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        assert_eq!(record[24..], crc32c::crc32c(&record[..24]).to_le_bytes());
    }
}
