//! Unit tests of the list of carried-over candidates.

use std::fs;

use tier_types::{ErrorKind, HasKind};

use super::*;

fn write(directory: &Path, cursor: u64, inos: &[u64]) {
    let mut list = CarriedOverWriter::create(directory, Xid::new(cursor)).unwrap();
    for ino in inos {
        list.add(Ino::new(*ino)).unwrap();
    }
    list.finish().unwrap();
}

/// The cursor and the inodes, if all can be read.
fn read(directory: &Path) -> Result<(u64, Vec<u64>), EvictError> {
    let list = CarriedOver::open(directory)?;
    let cursor = list.cursor.get();
    let inos: Result<Vec<_>, _> = list.map(|ino| ino.map(Ino::get)).collect();
    Ok((cursor, inos?))
}

#[test]
fn a_list_survives_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read(dir.path()).unwrap(), (1, Vec::new()), "no list yet");
    for (cursor, inos) in [(9, vec![]), (u64::MAX, vec![1, 2, 700, u64::MAX])] {
        write(dir.path(), cursor, &inos);
        assert_eq!(read(dir.path()).unwrap(), (cursor, inos));
    }
}

#[test]
fn the_format_stays_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 42, &[7, 11]);
    let text = fs::read_to_string(dir.path().join("survivors")).unwrap();
    assert_eq!(text, "tier-evict 1 cursor=42\n7\n11\nend 2\n");
}

#[test]
fn an_unfinished_list_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5, &[3, 4]);
    let mut given_up = CarriedOverWriter::create(dir.path(), Xid::new(9)).unwrap();
    given_up.add(Ino::new(8)).unwrap();
    drop(given_up);
    assert_eq!(read(dir.path()).unwrap(), (5, vec![3, 4]));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "and no temporary file");
    // A crash runs no destructor.
    let mut crashed = CarriedOverWriter::create(dir.path(), Xid::new(9)).unwrap();
    crashed.add(Ino::new(8)).unwrap();
    crashed.file.flush().unwrap();
    std::mem::forget(crashed);
    assert_eq!(read(dir.path()).unwrap(), (5, vec![3, 4]));
    write(dir.path(), 10, &[8]);
    assert_eq!(read(dir.path()).unwrap(), (10, vec![8]), "what the crash left is not in the way");
}

#[test]
fn a_torn_list_is_an_error_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 12, &(1..=12).collect::<Vec<_>>());
    let path = dir.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let error = read(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{len} bytes: {error}");
    }
    fs::write(&path, &whole).unwrap();
    read(dir.path()).unwrap();
}

#[test]
fn a_damaged_list_is_an_error_that_names_it_and_counts_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let long = "1".repeat(1000);
    for (line, text) in [
        (1, "tier-evict 2 cursor=5\nend 0\n"),
        (1, "tier-evict 1 cursor=x\nend 0\n"),
        (1, "\n"),
        (1, "\0\0\0\0\0\0\0\0"),
        (2, "tier-evict 1 cursor=5\nx\nend 1\n"),
        (2, "tier-evict 1 cursor=5\n-1\nend 1\n"),
        (2, &format!("tier-evict 1 cursor=5\n{long}\nend 1\n")),
        (2, "tier-evict 1 cursor=5\nend\n"),
        (2, "tier-evict 1 cursor=5\nend 1\n"),
        (3, "tier-evict 1 cursor=5\n7\nend 2\n"),
        (3, "tier-evict 1 cursor=5\n7\n7\nend 2\n"),
        (3, "tier-evict 1 cursor=5\n7\n6\nend 2\n"),
        (4, "tier-evict 1 cursor=5\n7\nend 1\n8\n"),
        (3, "tier-evict 1 cursor=5\n7\n"),
    ] {
        fs::write(&path, text).unwrap();
        let error = read(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{text:?}");
        let message = error.to_string();
        assert!(message.contains(&format!("line {line}:")), "{text:?}: {message}");
        assert!(message.contains(&path.display().to_string()), "{message}");
        let none = CarriedOver::open_whole(dir.path()).unwrap();
        assert_eq!((none.cursor, none.count()), (Xid::new(1), 0), "{text:?}");
    }
    fs::write(&path, b"tier-evict 1 cursor=5\n\xff\nend 1\n").unwrap();
    assert_eq!(read(dir.path()).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn after_an_error_the_list_is_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE_NAME), "tier-evict 1 cursor=5\n7\nx\n9\nend 3\n").unwrap();
    let mut list = CarriedOver::open(dir.path()).unwrap();
    assert_eq!(list.next().unwrap().unwrap(), Ino::new(7));
    assert!(list.next().unwrap().is_err());
    assert!(list.next().is_none());
}

#[test]
fn a_list_that_cannot_be_read_or_written_names_the_operation() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(FILE_NAME)).unwrap();
    let error = read(dir.path()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read"), "{error}");
    let list = CarriedOverWriter::create(dir.path(), Xid::new(1)).unwrap();
    let error = list.finish().unwrap_err();
    assert!(error.to_string().starts_with("cannot replace"), "{error}");
    let nowhere = dir.path().join("nowhere");
    let error = CarriedOverWriter::create(&nowhere, Xid::new(1)).map(drop).unwrap_err();
    assert!(error.to_string().starts_with("cannot create"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Failed);
}
