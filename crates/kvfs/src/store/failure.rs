//! Failures of RocksDB, told apart by what a caller can do about them.
//!
//! The binding hands out an error as a line of text: a kind, for some a second word that says it
//! more precisely, and then the file and the reason. The kind is read with the binding; the second
//! word stands right behind it, before any path, and is read from there and from nowhere else, so
//! that no name of a directory is ever taken for a reason. Four answers matter:
//!
//! - **Damaged**: a block whose checksum does not fit, a file that is missing or shorter than it
//!   was, a place of the disk that cannot be read. Everything else can be read all the same.
//! - **Busy**: the database is open already.
//! - **No space**: it works again when there is room.
//! - **Failed**: anything else.
//!
//! Of these a place of the disk alone may be read another time (`may_pass`): nothing is known of
//! what it holds. What is decided for good, as that data is lost, asks for that.
//!
//! A damaged row is named with its table and inode, as far as the key that was asked for tells
//! them: the text of the database names the file and the offset in it.

use tier_types::{ChunkNo, ErrorKind, Ino};

use super::keys::{self, Table};
use crate::error::{FsError, UnreadableRows};

/// How the database's own lock answers, by this process or by another one.
const LOCKED: [&str; 2] = ["IO error: lock hold by current process", "IO error: While lock file: "];
/// How a full disk answers, and a limit of space.
const FULL: [&str; 2] = ["IO error: No space left on device", "IO error: Space limit reached"];
/// How a file that is not there answers.
const MISSING: &str = "IO error: No such file or directory";
/// How a disk that fails answers: the system's reason comes last.
const DISK_FAILED: &str = ": Input/output error";
/// What was under way where it is a place of the disk that cannot be read. A write or a sync that
/// fails says nothing of what was written before.
const READING: [&str; 5] =
    ["pread ", "mmap read ", "reading ", "opening ", "open a file for random read"];

/// The row of a key.
pub(super) fn row_at(table: Table, key: &[u8]) -> UnreadableRows {
    let is_chunk = table == Table::Chunks;
    let chunk = keys::parse_second(key).filter(|_| is_chunk).map(ChunkNo::new);
    UnreadableRows { table: table.name(), ino: inode_of(table, key), chunk }
}

/// The rows from one key to another, or some of them.
pub(super) fn rows_between(table: Table, from: &[u8], until: &[u8]) -> UnreadableRows {
    let (first, end) = (inode_of(table, from), inode_of(table, until));
    let ends_with = |ino: Ino| end == Some(ino) || until == keys::ino(ino.next());
    let ino = first.filter(|ino| ends_with(*ino));
    UnreadableRows { table: table.name(), ino, chunk: None }
}

/// The inode at the start of a key, in the tables whose keys start with one.
fn inode_of(table: Table, key: &[u8]) -> Option<Ino> {
    let starts_with_inode = !matches!(table, Table::Log | Table::Meta);
    let number = keys::take_number(key).filter(|_| starts_with_inode);
    number.map(|(number, _)| Ino::new(number))
}

/// Whether a place of the disk could not be read.
fn is_unreadable(text: &str) -> bool {
    let operation = text.strip_prefix("IO error: While ").filter(|_| text.ends_with(DISK_FAILED));
    operation.is_some_and(|operation| READING.iter().any(|start| operation.starts_with(start)))
}

/// What a caller can do about an error.
fn kind(error: &rocksdb::Error) -> ErrorKind {
    let text: &str = error.as_ref();
    match error.kind() {
        rocksdb::ErrorKind::Corruption => ErrorKind::Damaged,
        rocksdb::ErrorKind::IOError => {
            if LOCKED.iter().any(|start| text.starts_with(start)) {
                ErrorKind::Busy
            } else if FULL.iter().any(|start| text.starts_with(start)) {
                ErrorKind::NoSpace
            } else if text.starts_with(MISSING) || is_unreadable(text) {
                ErrorKind::Damaged
            } else {
                ErrorKind::Failed
            }
        }
        rocksdb::ErrorKind::NotFound
        | rocksdb::ErrorKind::NotSupported
        | rocksdb::ErrorKind::InvalidArgument
        | rocksdb::ErrorKind::MergeInProgress
        | rocksdb::ErrorKind::Incomplete
        | rocksdb::ErrorKind::ShutdownInProgress
        | rocksdb::ErrorKind::TimedOut
        | rocksdb::ErrorKind::Aborted
        | rocksdb::ErrorKind::Busy
        | rocksdb::ErrorKind::Expired
        | rocksdb::ErrorKind::TryAgain
        | rocksdb::ErrorKind::CompactionTooLarge
        | rocksdb::ErrorKind::ColumnFamilyDropped
        | rocksdb::ErrorKind::Unknown => ErrorKind::Failed,
    }
}

/// The error of an operation on the database as a whole.
pub(super) fn failed(operation: &'static str, source: rocksdb::Error) -> FsError {
    let kind = kind(&source);
    if kind == ErrorKind::NoSpace {
        // The committer says it once, and this would be said for each operation.
        tracing::debug!(operation, error = %source, "the disk of the key-value store is full");
        return FsError::NoSpace("the disk of the store is full");
    }
    FsError::Store { operation, kind, source: source.into() }
}

/// The error of opening a database that was there before.
pub(super) fn not_opened(source: rocksdb::Error) -> FsError {
    // The settings are this program's own: what does not fit them is a database from which a file
    // is gone, or a table.
    let does_not_fit = source.kind() == rocksdb::ErrorKind::InvalidArgument;
    let kind = if does_not_fit { ErrorKind::Damaged } else { kind(&source) };
    if kind == ErrorKind::Damaged {
        return FsError::Store { operation: "open", kind, source: source.into() };
    }
    if kind == ErrorKind::Busy { FsError::Busy } else { failed("open", source) }
}

/// The error of reading rows.
pub(super) fn not_read(rows: UnreadableRows, source: rocksdb::Error) -> FsError {
    let kind = kind(&source);
    if kind == ErrorKind::Damaged {
        return FsError::Unreadable { rows, source: source.into() };
    }
    FsError::Store { operation: "read", kind, source: source.into() }
}

/// Whether a read that met damage may succeed another time: the disk did not answer, which says
/// nothing of the bytes that it holds.
pub(crate) fn may_pass(error: &FsError) -> bool {
    let FsError::Unreadable { source, .. } = error else { return false };
    let source = source.downcast_ref::<rocksdb::Error>();
    source.is_some_and(|source| is_unreadable(source.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_by_what_their_keys_tell() {
        let ino = Ino::new(7);
        let chunk = keys::chunk(ino, ChunkNo::new(3));
        let (from, until) = keys::rows_of(ino);
        let text = |rows: UnreadableRows| rows.to_string();
        assert_eq!(text(row_at(Table::Chunks, &chunk)), "chunk 3 of inode 7");
        assert_eq!(text(row_at(Table::Map, &chunk)), "inode 7 in table map");
        assert_eq!(text(row_at(Table::Log, &chunk)), "table log");
        let between = |until: &[u8]| text(rows_between(Table::Links, &from, until));
        assert_eq!(between(&until), "inode 7 in table links");
        assert_eq!(between(&chunk), "inode 7 in table links");
        assert_eq!(between(&keys::LAST), "table links", "of any inode");
    }

    #[test]
    fn what_cannot_be_read_is_unreadable_and_what_cannot_be_written_is_not() {
        let of =
            |operation: &str| is_unreadable(&format!("IO error: {operation}: Input/output error"));
        for reading in [
            "While pread offset 8192 len 4096: kvs/000054.sst",
            "While reading file sequentially: kvs/MANIFEST-000031",
            "While open a file for random read: kvs/000054.sst",
        ] {
            assert!(of(reading), "{reading}");
        }
        for writing in [
            "While fsync: kvs/MANIFEST-000031",
            "While fdatasync: kvs/While pread ",
            "While appending to file: kvs/000055.log",
            "While open a file for appending: kvs/000055.log",
        ] {
            assert!(!of(writing), "{writing}");
        }
    }

    /// What the database really answers, made in each of the ways.
    mod answers {
        use std::fs;
        use std::path::Path;

        use rocksdb::{DB, Options};

        use super::*;

        /// A database with a table file, below a directory whose name is full of words.
        fn database() -> (tempfile::TempDir, std::path::PathBuf) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("lock file: No space left on device").join("blockstore");
            fs::create_dir_all(&path).unwrap();
            let db = open(&path, true).unwrap();
            for number in 0..1000_u32 {
                db.put(number.to_be_bytes(), [7; 100]).unwrap();
            }
            db.flush().unwrap();
            (dir, path)
        }

        fn open(path: &Path, create: bool) -> Result<DB, rocksdb::Error> {
            let mut options = Options::default();
            options.create_if_missing(create);
            DB::open(&options, path)
        }

        fn file(path: &Path, is_wanted: impl Fn(&str) -> bool) -> std::path::PathBuf {
            let mut files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
            files.find(|path| is_wanted(path.file_name().unwrap().to_str().unwrap())).unwrap()
        }

        fn is_table(name: &str) -> bool {
            Path::new(name).extension().is_some_and(|extension| extension == "sst")
        }

        fn opened(path: &Path) -> ErrorKind {
            use tier_types::HasKind;
            not_opened(open(path, false).unwrap_err()).kind()
        }

        #[test]
        fn an_open_database_is_busy() {
            let (_dir, path) = database();
            let _first = open(&path, false).unwrap();
            assert_eq!(opened(&path), ErrorKind::Busy);
        }

        #[test]
        fn files_that_are_missing_or_cut_are_damage() {
            let table = is_table;
            let manifest = |name: &str| name.starts_with("MANIFEST");
            let current = |name: &str| name == "CURRENT";
            let kinds: [fn(&str) -> bool; 3] = [table, manifest, current];
            for is_wanted in kinds {
                let (_dir, path) = database();
                fs::write(file(&path, is_wanted), "").unwrap();
                assert_eq!(opened(&path), ErrorKind::Damaged, "cut to nothing");
                fs::remove_file(file(&path, is_wanted)).unwrap();
                assert_eq!(opened(&path), ErrorKind::Damaged, "missing");
            }
        }

        #[test]
        fn a_flipped_bit_is_damage_of_the_rows_that_it_hits() {
            let (_dir, path) = database();
            let table = file(&path, is_table);
            let mut bytes = fs::read(&table).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&table, bytes).unwrap();
            let db = open(&path, false).unwrap();
            let mut n_damaged = 0;
            for number in 0..1000_u32 {
                match db.get(number.to_be_bytes()) {
                    Ok(value) => assert_eq!(value.unwrap(), [7; 100]),
                    Err(error) => {
                        assert!(error.as_ref().contains("block checksum mismatch"), "{error}");
                        let error = not_read(row_at(Table::Inodes, &[]), error);
                        assert!(error.is_damage() && !may_pass(&error), "{error}");
                        n_damaged += 1;
                    }
                }
            }
            assert!((1..500).contains(&n_damaged), "{n_damaged}");
        }

        /// The memory of this process as a file: where nothing is mapped a read is an I/O error.
        #[test]
        fn a_disk_that_does_not_answer_may_answer_another_time() {
            let (_dir, path) = database();
            let current = file(&path, |name| name == "CURRENT");
            fs::remove_file(&current).unwrap();
            std::os::unix::fs::symlink("/proc/self/mem", &current).unwrap();
            let error = open(&path, false).unwrap_err();
            assert!(is_unreadable(error.as_ref()), "{error}");
            let error = not_read(row_at(Table::Inodes, &[]), error);
            assert!(error.is_damage(), "the rest can be read: {error}");
            assert!(may_pass(&error));
        }

        #[test]
        fn a_full_disk_has_no_space() {
            let small = Path::new("/dev/full");
            assert!(small.exists(), "a device that is always full");
            let (_dir, path) = database();
            let db = open(&path, false).unwrap();
            // The next table file is one that cannot be written.
            let last = file(&path, is_table);
            let number: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            for number in number + 1..number + 20 {
                let place = path.join(format!("{number:06}.sst"));
                if !place.exists() {
                    std::os::unix::fs::symlink(small, place).unwrap();
                }
            }
            db.put(b"key", [7; 100]).unwrap();
            let error = db.flush().unwrap_err();
            assert_eq!(kind(&error), ErrorKind::NoSpace, "{error}");
        }
    }
}
