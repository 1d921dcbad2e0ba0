//! Publication: snapshot and segment of one moment, repaired after a crash at any step.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tier_types::{ErrorKind, HasKind, Ino, LogReader, LogService, MountedInstance, Xid, XidRange};

use crate::common::{create, file, name, open};

#[test]
fn a_snapshot_shows_the_moment_of_its_publication() {
    let (_dir, fs) = create();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, b"before").unwrap();
    let publication = fs.publish().unwrap().unwrap();
    fs.write(ino, 0, b"after!").unwrap();
    fs.unlink(Ino::ROOT, &name("f")).unwrap();
    let snapshot = fs.open_snapshot(&publication).unwrap();
    let mut reader = snapshot.reader();
    assert_eq!(reader.path(ino).unwrap().unwrap(), b"f");
    let mut data = Vec::new();
    let chunks = reader.chunk_runs(ino, tier_types::ChunkNo::new(0), 1).unwrap()[0].chunks;
    reader.read_chunks(ino, chunks, &mut data).unwrap();
    assert_eq!(&data[..6], b"before");
    drop(reader);
    fs.release(&publication).unwrap();
    let gone = fs.open_snapshot(&publication).err().unwrap();
    assert_eq!(gone.kind(), ErrorKind::Missing);
}

/// What each crash leaves: the segment but not yet its record, or everything; and the temporary
/// file of another attempt.
#[test]
fn a_crash_between_two_steps_of_a_publication_is_repaired() {
    let (dir, fs) = create();
    file(&fs, Ino::ROOT, "a");
    let segments = dir.path().join("segments");
    drop(fs);
    let before = copy(&dir);
    let fs = open(&dir);
    let publication = fs.publish().unwrap().unwrap();
    drop(fs);
    let segment = fs::read_dir(&segments).unwrap().next().unwrap().unwrap();
    // Records are still in the store, and the segment is there as well.
    let to = before.path().join("segments").join(segment.file_name());
    fs::copy(segment.path(), &to).unwrap();
    fs::write(before.path().join("segments/half.tmp"), b"half a segment").unwrap();
    for (crashed, is_recorded) in [(&before, false), (&dir, true)] {
        let fs = open(crashed);
        assert_eq!(fs.last_xid(), publication.range.last());
        assert_eq!(fs.publish().unwrap(), (!is_recorded).then_some(publication), "nothing twice");
        file(&fs, Ino::ROOT, "b");
        let second = fs.publish().unwrap().unwrap();
        assert_eq!(second.range.start(), publication.range.end(), "nothing missing");
        let all = XidRange::new(Xid::new(1), second.range.end()).unwrap();
        let mut n_records = 0;
        tier_log::read_range(fs.core().as_ref(), all, |_, _| {
            n_records += 1;
            Ok::<(), tier_log::LogError>(())
        })
        .unwrap();
        assert_eq!(n_records, all.len());
        assert!(!crashed.path().join("segments/half.tmp").exists());
    }
}

#[test]
fn a_missing_segment_is_noticed() {
    let (dir, fs) = create();
    for text in ["a", "b", "c"] {
        file(&fs, Ino::ROOT, text);
        fs.publish().unwrap();
    }
    drop(fs);
    let names = segment_files(dir.path());
    assert_eq!(names.len(), 3);
    // The newest and the oldest as well as one with neighbours on both sides.
    for (missing, first) in names.iter().zip(1..) {
        let content = fs::read(missing).unwrap();
        fs::remove_file(missing).unwrap();
        let clock = std::sync::Arc::new(tier_testkit::VirtualClock::at(0));
        let error = kvfs::Core::open(dir.path(), &crate::common::options(), clock).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        let first_xid = if first == 1 { 1 } else { first + 1 };
        let expected = XidRange::new(Xid::new(first_xid), Xid::new(first + 2)).unwrap();
        let kvfs::FsError::Lost(kvfs::Loss::Segment { range, path }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((range, &path), (expected, missing));
        fs::write(missing, content).unwrap();
    }
    let segments = dir.path().join("segments");
    fs::rename(&segments, dir.path().join("moved")).unwrap();
    let clock = std::sync::Arc::new(tier_testkit::VirtualClock::at(0));
    let error = kvfs::Core::open(dir.path(), &crate::common::options(), clock).unwrap_err();
    assert!(matches!(error, kvfs::FsError::Lost(kvfs::Loss::Segment { .. })), "{error:?}");
    fs::rename(dir.path().join("moved"), &segments).unwrap();
    assert_eq!(open(&dir).last_xid(), Xid::new(4), "with the files put back all is there again");
}

/// The files of all segments, oldest first.
pub(crate) fn segment_files(root: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(root.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

/// The files of a filesystem as they are on the disk now: what a crash would leave.
pub(crate) fn copy(from: &tempfile::TempDir) -> tempfile::TempDir {
    loop {
        let to = tempfile::tempdir().unwrap();
        let before = names(from.path());
        // The store of a filesystem that is open makes and removes files at any time: a copy of two
        // moments is none.
        if copy_files(from.path(), to.path(), &before).is_ok() && names(from.path()) == before {
            return to;
        }
    }
}

/// The files in all directories, sorted.
fn names(root: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for directory in ["kvs", "segments", "chunks"] {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        names.extend(entries.map(|entry| Path::new(directory).join(entry.unwrap().file_name())));
    }
    names.sort();
    names
}

fn copy_files(from: &Path, to: &Path, names: &[PathBuf]) -> io::Result<()> {
    for directory in ["kvs", "segments", "chunks"] {
        fs::create_dir(to.join(directory))?;
    }
    names.iter().try_for_each(|name| fs::copy(from.join(name), to.join(name)).map(drop))
}
