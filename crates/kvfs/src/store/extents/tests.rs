//! Extent files by themselves, and the encoding of rows.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;
use tier_types::{FileKind, Ino};

use super::content::Patches;
use super::*;
use crate::testing::{filesystem, name, node};

const CHUNK: u32 = 8192;

fn files() -> (TempDir, Arc<ExtentFiles>) {
    let dir = tempfile::tempdir().unwrap();
    let files = open(&dir);
    (dir, files)
}

fn open(dir: &TempDir) -> Arc<ExtentFiles> {
    Arc::new(ExtentFiles::open(dir.path(), u64::from(CHUNK), 0).unwrap())
}

/// Appends bytes and lets rows refer to them.
fn append(files: &Arc<ExtentFiles>, bytes: &[u8]) -> Vec<FileExtent> {
    let appended = files.append(bytes).unwrap();
    let extents = appended.extents(bytes, CHUNK);
    appended.into_committing().commit();
    extents
}

fn read(files: &ExtentFiles, extent: FileExtent) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(extent.len).unwrap()];
    files.read(extent, &mut bytes).unwrap().then_some(bytes)
}

#[test]
fn what_is_appended_is_read_again_in_another_process_too() {
    let (dir, files) = files();
    let bytes: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let extents = append(&files, &bytes);
    let lens: Vec<_> = extents.iter().map(|extent| extent.len).collect();
    assert_eq!(lens, [8192, 8192, 3616]);
    let more = append(&files, b"more");
    assert_eq!(more[0].place.offset % 4096, 0, "appends start with a block");
    assert!(more[0].place > extents[2].place);
    files.sync().unwrap();
    let again = open(&dir);
    for (extent, chunk) in extents.iter().zip(bytes.chunks(8192)) {
        assert_eq!(read(&again, *extent).unwrap(), chunk);
    }
    let later = append(&again, b"later");
    assert!(later[0].place.file > more[0].place.file, "each process has a file of its own");
}

#[test]
fn other_bytes_than_those_that_were_written_are_noticed() {
    let (dir, files) = files();
    let extents = append(&files, &vec![7; 20_000]);
    drop(files);
    let [path] = &fs::read_dir(dir.path()).unwrap().collect::<Vec<_>>()[..] else {
        panic!("one file");
    };
    let path = path.as_ref().unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8192] ^= 1;
    bytes.truncate(20_000 - 1);
    fs::write(&path, bytes).unwrap();
    let files = open(&dir);
    assert_eq!(read(&files, extents[0]), Some(vec![7; 8192]));
    assert_eq!(read(&files, extents[1]), None, "a flipped bit");
    assert_eq!(read(&files, extents[2]), None, "the file is too short");
    fs::remove_file(&path).unwrap();
    assert_eq!(read(&open(&dir), extents[0]), None, "the file is gone");
}

#[test]
fn nothing_behind_the_floor_is_in_flight() {
    let (_dir, files) = files();
    let start = files.floor();
    let first = files.append(b"first").unwrap();
    let second = append(&files, b"second");
    assert_eq!(files.floor(), start, "the first one is not settled");
    let place = first.extents(b"first", CHUNK)[0].place;
    assert_eq!(place, start);
    first.into_committing().commit();
    assert!(files.floor() > second[0].place);
    // It is not known whether rows refer to it.
    let lost = files.append(b"lost").unwrap();
    let place = lost.extents(b"lost", CHUNK)[0].place;
    drop(lost.into_committing());
    append(&files, b"third");
    assert_eq!(files.floor(), place);
}

#[test]
fn space_comes_back_whole() {
    let (dir, files) = files();
    let extents = append(&files, &vec![7; 50_000]);
    files.sync().unwrap();
    assert!(files.physical_bytes().unwrap() >= 50_000);
    // All but one, the short last one with its block among them.
    let kept = extents[2];
    for extent in extents.iter().filter(|extent| **extent != kept) {
        files.punch(extent.place, u64::from(extent.len)).unwrap();
        assert_eq!(read(&files, *extent), None);
    }
    assert_eq!(read(&files, kept), Some(vec![7; 8192]));
    assert_eq!(files.physical_bytes().unwrap(), 8192);
    files.remove_empty().unwrap();
    assert_eq!(read(&files, kept), Some(vec![7; 8192]));
    files.punch(kept.place, u64::from(kept.len)).unwrap();
    files.remove_empty().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the newest file stays");
    let again = open(&dir);
    again.remove_empty().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "its number does not come again");
    let later = append(&again, b"later");
    again.remove_empty().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(later[0].place.file > kept.place.file);
    again.punch(kept.place, u64::from(kept.len)).expect("it was given back before");
}

#[test]
fn what_no_row_came_to_refer_to_is_given_back() {
    let (_dir, files) = files();
    let before = files.physical_bytes().unwrap();
    let appended = files.append(&vec![7; 50_000]).unwrap();
    files.sync().unwrap();
    drop(appended);
    assert_eq!(files.physical_bytes().unwrap(), before);
    assert!(files.floor() > Place { file: 1, offset: 0 });
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), b"of an operator").unwrap();
    let files = open(&dir);
    append(&files, b"bytes");
    files.remove_empty().unwrap();
    assert!(dir.path().join("notes.txt").exists());
}

fn extent() -> impl Strategy<Value = FileExtent> {
    (any::<u32>(), 0..=1_u64 << 62, 1..=1_u32 << 20, any::<u32>()).prop_map(
        |(file, offset, len, checksum)| FileExtent { place: Place { file, offset }, len, checksum },
    )
}

proptest! {
    #[test]
    fn rows_survive(extent in extent(), bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let row = inline_to_bytes(&bytes);
        prop_assert_eq!(Content::from_bytes(&row), Some(Content::Inline(&bytes)));
        let mut row = extent_to_bytes(extent);
        let plain = Content::InFile(extent, Patches::default());
        prop_assert_eq!(Content::from_bytes(&row), Some(plain));
        prop_assert_eq!(Content::from_bytes(&row[..row.len() - 1]), None);
        row.extend(Patches::default().with(5, b"patch"));
        let Some(Content::InFile(same, patches)) = Content::from_bytes(&row) else {
            panic!("a chunk in a file");
        };
        prop_assert_eq!(same, extent);
        prop_assert_eq!(patches.iter().collect::<Vec<_>>(), [(5, &b"patch"[..])]);
    }

    #[test]
    fn no_bytes_are_too_strange(row in prop::collection::vec(any::<u8>(), 0..60), tag in 0..3_u8) {
        let row = [&[tag], row.as_slice()].concat();
        if let Some(Content::InFile(_, patches)) = Content::from_bytes(&row) {
            let mut out = Vec::new();
            patches.apply(&mut out, 0);
            prop_assert!(out.len() <= CHUNK_BYTES_MAX);
        }
    }
}

#[test]
fn patches_out_of_order_are_none() {
    let first = Patches::default().with(10, b"ab");
    let before = Patches::default().with(3, b"c");
    let touching = Patches::default().with(8, b"xy");
    assert!(Patches::from_bytes(&[before.clone(), first.clone()].concat()).is_some());
    assert_eq!(Patches::from_bytes(&[first.clone(), before].concat()), None);
    assert_eq!(Patches::from_bytes(&[touching, first.clone()].concat()), None);
    assert_eq!(Patches::from_bytes(&[0; 8]), None, "no bytes");
    assert_eq!(Patches::from_bytes(&first[..9]), None, "cut off");
}

#[test]
fn what_a_failed_commit_left_behind_is_resolved_when_the_store_says_how() {
    let (_dir, files) = files();
    let start = files.floor();
    for is_referred in [false, true] {
        let appended = files.append(&vec![7; 8192]).unwrap();
        let extent = appended.extents(&vec![7; 8192], CHUNK)[0];
        drop(appended.into_committing());
        assert_eq!(files.floor(), extent.place, "it is in flight");
        assert_eq!(files.abandoned(), [(extent.place, 8192)]);
        files.resolve(extent.place, is_referred).unwrap();
        assert_eq!(files.abandoned(), []);
        assert!(files.floor() > extent.place);
        assert_eq!(read(&files, extent).is_some(), is_referred);
        // Once is enough.
        files.resolve(extent.place, false).unwrap();
        assert_eq!(read(&files, extent).is_some(), is_referred);
    }
    assert!(files.floor() > start);
}

#[test]
fn no_sync_is_believed_after_one_that_failed_until_all_was_written_again() {
    let (dir, files) = files();
    let extents = append(&files, &vec![7; 20_000]);
    files.fail_sync();
    for _ in 0..2 {
        assert!(files.sync().is_err());
    }
    let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let disk = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    disk.set_modified(before).unwrap();
    // A page that the system dropped is not what was written, and no sync makes it that.
    disk.write_all_at(&[0; 4096], 8192).unwrap();
    assert!(files.rewrite(&extents).is_err());
    assert!(files.sync().is_err());
    disk.write_all_at(&[7; 4096], 8192).unwrap();
    disk.set_modified(before).unwrap();
    files.rewrite(&extents).unwrap();
    assert!(fs::metadata(&path).unwrap().modified().unwrap() > before, "it was written");
    files.sync().unwrap();
    for extent in extents {
        assert!(read(&files, extent).is_some());
    }
}

#[test]
fn a_filesystem_goes_on_after_a_failed_sync() {
    let (_dir, fs) = filesystem();
    let node = node(FileKind::Regular);
    let ino = fs.create_node(Ino::ROOT, &name("f"), &node).unwrap().ino;
    fs.write(ino, 0, &[1; 2048]).unwrap();
    fs.db.extent_files().fail_sync();
    assert!(fs.fsync().is_err());
    fs.write(ino, 2048, &[2; 2048]).unwrap();
    fs.fsync().unwrap();
    assert_eq!(fs.read(ino, 0, 9999).unwrap(), [[1; 2048], [2; 2048]].concat());
}
