//! Whatever happens to an object: a typed error that names it, never a panic, never wrong bytes.

use std::sync::Arc;

use tier_index::{Index, IndexOptions};
use tier_persist::{
    Archive, Fetcher, FetcherOptions, Keys, PersistError, ScanMode, Watch,
    rebuild_without_manifests,
};
use tier_testkit::{FakeKvs, OneByOne};
use tier_types::{Call, ChunkNo, ErrorKind, HasKind, ObjectStore, RecallRequest};

use crate::common::{CHUNK, FILESYSTEM, Fixture, dump, noise};

fn fixture(keys: Keys) -> Fixture {
    let kvs = FakeKvs::new(CHUNK)
        .file("a", &noise(6000, 1))
        .file("b", &[3; 3000])
        .symlink("c", "a")
        .file("d", &noise(700, 2));
    let mut fixture = Fixture::new(kvs, keys);
    fixture.persist();
    fixture.change(|kvs| kvs.write("a", 512, &[1; 512]).remove("d"));
    fixture.persist();
    fixture
}

/// Every byte that a reader gets is right, or it gets an error of a kind that says damage.
fn check_everything(fixture: &Fixture, what: &str) -> usize {
    let good = |error: &PersistError| {
        matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing | ErrorKind::WrongKey)
    };
    let mut n_errors = 0;
    let mut expected = noise(6000, 1);
    expected[512..1024].fill(1);
    let fetcher = fixture.fetcher();
    for (name, content) in [("a", expected), ("b", vec![3; 3000])] {
        let ino = fixture.kvs.ino(name);
        for extent in fixture.kvs.resident_of(ino, ChunkNo::new(0), 100).unwrap() {
            let (chunks, data_xid) = (extent.chunks, extent.data_xid);
            match fetcher.fetch(&RecallRequest { ino, chunks, data_xid }) {
                Ok(recalled) => {
                    let start = recalled.chunks().offset_bytes(CHUNK) as usize;
                    let end = start + recalled.bytes().len();
                    assert!(recalled.bytes() == &content[start..end], "wrong bytes: {what}");
                }
                Err(error) => {
                    assert!(good(&error), "{what}: {error}");
                    n_errors += 1;
                }
            }
        }
    }
    for mode in [ScanMode::Checkpoint, ScanMode::Tables, ScanMode::Full] {
        match fixture.regenerated(mode) {
            Ok(dump) => assert!(dump == fixture.dump(), "wrong index: {what}, {mode:?}"),
            Err(error) => {
                assert!(good(&error), "{what}: {error}");
                n_errors += 1;
            }
        }
    }
    n_errors
}

/// Verifying finds the damage and names the object.
fn check_verify(fixture: &Fixture, object: &str, what: &str) {
    let store = fixture.store();
    let named = match Archive::open(&store, &fixture.keys, FILESYSTEM) {
        Err(error) => error.to_string(),
        Ok(archive) => {
            let report = archive.verify(true, &mut Watch::default()).unwrap();
            report.damages.first().map(|damage| damage.object.clone()).unwrap_or_default()
        }
    };
    assert!(named.contains(object), "{what}: {named}");
}

/// Verifying names what is missing; for the newest manifest, which nothing else points at, the
/// index knows that it was there.
fn check_missing(fixture: &Fixture, object: &str) {
    let store = fixture.store();
    let error = match Archive::open(&store, &fixture.keys, FILESYSTEM) {
        Err(error) => error.to_string(),
        Ok(archive) => match archive.catch_up(&fixture.index) {
            Err(error) => {
                assert!(object.contains("s0000000003.manifest"), "{object}: {error}");
                return;
            }
            Ok(()) => {
                let report = archive.verify(false, &mut Watch::default()).unwrap();
                assert!(report.damages.iter().all(|damage| damage.missing));
                report.damages.first().map(|damage| damage.object.clone()).unwrap_or_default()
            }
        },
    };
    assert!(error.contains(object), "{object}: {error}");
}

fn damage_matrix(keys: Keys) {
    let mut fixture = fixture(keys);
    fixture.options.object_bytes = 100;
    fixture.checkpoint();
    assert_eq!(check_everything(&fixture, "nothing"), 0);
    let objects = fixture.store().names(&Call::bulk(), "").unwrap();
    let n_objects =
        |ending: &str| objects.iter().filter(|name| name.as_str().contains(ending)).count();
    assert_eq!((n_objects(".tar"), n_objects(".log"), n_objects(".manifest")), (2, 2, 3));
    assert!(n_objects(".inodes") > 1 && n_objects(".steps") > 1, "{objects:?}");
    for object in &objects {
        let path = fixture.root().join(object.as_str());
        let whole = std::fs::read(&path).unwrap();
        let other = objects.iter().find(|other| *other != object).unwrap();
        let other = std::fs::read(fixture.root().join(other.as_str())).unwrap();
        let step = (whole.len() / 16).max(1);
        let mut damages: Vec<(String, Vec<u8>)> = Vec::new();
        for at in (0..whole.len()).step_by(step) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            damages.push((format!("bit flip at {at}"), flipped));
            damages.push((format!("cut at {at}"), whole[..at].to_vec()));
        }
        let mut zeroed = whole.clone();
        let quarter = whole.len() / 4;
        zeroed[quarter..2 * quarter].fill(0);
        damages.push(("zeroed block".into(), zeroed));
        let mut swapped = whole[quarter..2 * quarter].to_vec();
        swapped.extend(&whole[..quarter]);
        swapped.extend(&whole[2 * quarter..]);
        damages.push(("swapped blocks".into(), swapped));
        damages.push(("another object".into(), other));
        damages.push(("longer".into(), [&whole[..], b"x"].concat()));
        for (what, bytes) in damages {
            std::fs::write(&path, bytes).unwrap();
            let what = format!("{object}, {what}");
            check_everything(&fixture, &what);
            check_verify(&fixture, object.as_str(), &what);
        }
        std::fs::remove_file(&path).unwrap();
        check_missing(&fixture, object.as_str());
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(check_everything(&fixture, "repaired"), 0);
}

#[test]
fn damage_of_encrypted_objects_is_found() {
    damage_matrix(Keys::generate().unwrap());
}

#[test]
fn damage_of_objects_in_clear_is_found() {
    damage_matrix(Keys::generate().unwrap().without_encryption());
}

#[test]
fn the_header_is_in_the_manifest_so_that_a_damaged_one_loses_nothing() {
    let fixture = fixture(Keys::generate().unwrap());
    for name in fixture.tarballs() {
        let path = fixture.root().join(name.as_str());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[50] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(check_everything(&fixture, "damaged headers"), 0);
}

/// The inode numbers of the lines of a dump, with the lines.
fn by_inode(dump: &str) -> Vec<(&str, &str)> {
    let number = |line| str::split(line, ' ').nth(1).unwrap();
    dump.lines()
        .filter(|line| !line.starts_with("tier") && !line.starts_with("tarball"))
        .map(|line| (number(line), line))
        .collect()
}

/// A scan goes on at the next frame: whatever is not in a damaged one is found.
fn scan_past_damage(keys: Keys) {
    let encrypts = keys.encrypts();
    let mut kvs = FakeKvs::new(CHUNK);
    // More than a few chunks of the encryption.
    for n in 0..150 {
        let size = if n % 10 == 7 { 7000 } else { 900 };
        kvs = kvs.file(&format!("f{n}"), &noise(size, n));
    }
    let mut fixture = Fixture::new(kvs, keys);
    fixture.persist();
    let name = fixture.tarballs().remove(0);
    let path = fixture.root().join(name.as_str());
    let mut whole = std::fs::read(&path).unwrap();
    let expected = fixture.dump();
    let middle = whole.len() / 2;
    whole[middle] ^= 4;
    std::fs::write(&path, &whole).unwrap();
    let (found, damages) = fixture.scanned();
    assert_eq!((found, damages.is_empty()), (expected.clone(), false), "the table knows the rest");
    whole[middle] ^= 4;
    // Without the tables at the end, frames are found one after another, and nothing else says what
    // is in a damaged one.
    let end = whole.len() - 2500;
    whole[end..].fill(0);
    std::fs::write(&path, &whole).unwrap();
    let (found, damages) = fixture.scanned();
    assert!(!damages.is_empty());
    let (found, all) = (by_inode(&found), by_inode(&expected));
    assert!(all.starts_with(&found), "frames are found without a table");
    // With encryption the last piece of 64 KiB does not open any more.
    assert!(found.len() == all.len() || (encrypts && found.len() > 50), "{}", found.len());
    let mut n_partial = 0;
    for at in (0..whole.len()).step_by(whole.len() / 50) {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        std::fs::write(&path, &flipped).unwrap();
        let (found, damages) = fixture.scanned();
        let first_damaged = damages.iter().filter_map(|damage| {
            let frame = damage.problem.split(" in frame ").nth(1)?;
            frame.split([' ', ':']).next()?.parse::<u32>().ok()
        });
        let first_damaged = first_damaged.min().unwrap_or(0);
        // Where the next frame begins cannot be told if it is a frame's length that was hit.
        let hit = |line: &str| {
            let mut frames = line.split(" frame=").skip(1);
            frames.any(|frame| {
                let frame: u32 = frame.split(' ').next().unwrap().parse().unwrap();
                frame >= first_damaged
            })
        };
        let expected = by_inode(&expected);
        let lost: Vec<_> = expected.iter().filter(|(_, line)| hit(line)).map(|(n, _)| n).collect();
        let found = by_inode(&found);
        for entry in &expected {
            assert!(found.contains(entry) || lost.contains(&&entry.0), "flip at {at}: {entry:?}");
        }
        let is_lost = |entry: &(&str, &str)| entry.1.starts_with("lost ");
        let known = |entry: &(&str, &str)| expected.contains(entry) || is_lost(entry);
        assert!(found.iter().all(known), "flip at {at}: invented");
        n_partial += usize::from(!lost.is_empty() && !found.is_empty());
    }
    assert!(n_partial > 10, "some damage hits members, and others are still found: {n_partial}");
}

#[test]
fn a_scan_finds_all_members_behind_the_damage() {
    scan_past_damage(Keys::generate().unwrap().without_encryption());
    scan_past_damage(Keys::generate().unwrap());
}

/// A file that holds a tarball of this very format is a file: none of its members is taken for one
/// of the tarball in which it lies, not even when the frame with its header is lost, and not even
/// if it is of the same filesystem and snapshot.
#[test]
fn a_tarball_within_a_file_is_not_mistaken() {
    let keys = || Keys::generate().unwrap().without_encryption();
    let mut inner = Fixture::new(FakeKvs::new(CHUNK).file("inner", &noise(6000, 9)), keys());
    inner.persist();
    let name = inner.tarballs().remove(0);
    let mut tar = Vec::new();
    tier_persist::write_tar(&inner.store(), &name, &inner.keys, &mut tar).unwrap();
    // The second frame of the file starts as the first one of the tarball does.
    let content = [&[0; 4096], &tar[..4096]].concat();
    let kvs = FakeKvs::new(CHUNK).file("x", b"x").file("tar", &content).file("y", b"y");
    let mut fixture = Fixture::new(kvs, keys());
    fixture.persist();
    assert_eq!(fixture.scanned(), (fixture.dump(), Vec::new()));
    let path = fixture.root().join(fixture.tarballs()[0].as_str());
    let whole = std::fs::read(&path).unwrap();
    let expected = fixture.dump();
    let mut first_frame = true;
    for at in (0..whole.len()).step_by(97) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let (found, damages) = fixture.scanned();
        // Without the first frame the token is not known.
        first_frame &= damages.iter().any(|damage| damage.problem.contains("in frame 0 "));
        let (found, expected) = (by_inode(&found), by_inode(&expected));
        let invented = found.iter().any(|entry| !expected.contains(entry));
        assert!(first_frame || !invented, "flip at {at}: {found:?}");
    }
}

/// One damaged place costs its frame, and not the tarball, also when the manifests are lost.
#[test]
fn a_rebuild_without_manifests_goes_past_damage() {
    for keys in [Keys::generate().unwrap(), Keys::generate().unwrap().without_encryption()] {
        let mut kvs = FakeKvs::new(CHUNK);
        for n in 0..50 {
            kvs = kvs.file(&format!("f{n}"), &noise(300, n));
        }
        let mut fixture = Fixture::new(kvs, keys);
        fixture.persist();
        let path = fixture.root().join(fixture.tarballs()[0].as_str());
        let whole = std::fs::read(&path).unwrap();
        for sixteenth in 2..12 {
            let mut flipped = whole.clone();
            flipped[whole.len() * sixteenth / 16] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            check_rebuilt_without_manifests(&fixture);
        }
    }
}

/// What the table of contents knows of a damaged frame is in the index, and an error to a
/// reader: never wrong bytes.
fn check_rebuilt_without_manifests(fixture: &Fixture) {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    let store = fixture.store();
    let (_, damages) =
        rebuild_without_manifests(&index, &store, &fixture.keys, FILESYSTEM, &mut Watch::default())
            .unwrap();
    assert!(!damages.is_empty(), "a flipped bit is found without a digest as well");
    if fixture.keys.encrypts() {
        // The bit may lie in the chunk of the encryption that holds the table.
        return;
    }
    assert_eq!(dump(&index), fixture.dump());
    let stores: Vec<Arc<dyn ObjectStore>> = vec![Arc::new(store)];
    let (index, keys) = (Arc::new(index), Arc::clone(&fixture.keys));
    let fetcher = Fetcher::new(FILESYSTEM, index, keys, stores, FetcherOptions::default());
    let mut n_damaged = 0;
    for n in 0..50 {
        let ino = fixture.kvs.ino(&format!("f{n}"));
        let extent = fixture.kvs.resident_of(ino, ChunkNo::new(0), 1).unwrap().remove(0);
        let (chunks, data_xid) = (extent.chunks, extent.data_xid);
        match fetcher.fetch(&RecallRequest { ino, chunks, data_xid }) {
            Ok(recalled) => assert!(recalled.bytes() == noise(300, n), "wrong bytes of f{n}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                n_damaged += 1;
            }
        }
    }
    assert!(n_damaged > 0);
}

#[test]
fn another_identity_opens_nothing() {
    let fixture = fixture(Keys::generate().unwrap());
    let store = fixture.store();
    let other = Keys::generate().unwrap();
    let error = Archive::open(&store, &other, FILESYSTEM).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongKey, "{error}");
}

/// A header with a flipped bit names another key, as it seems; but the others of its history name
/// this one.
#[test]
fn a_damaged_header_of_a_manifest_is_no_wrong_identity() {
    let fixture = fixture(Keys::generate().unwrap());
    let store = fixture.store();
    let names = store.names(&Call::bulk(), "").unwrap();
    let manifests = names.iter().filter(|name| name.as_str().ends_with(".manifest"));
    let paths: Vec<_> = manifests.map(|name| fixture.root().join(name.as_str())).collect();
    assert_eq!(paths.len(), 2);
    for path in paths {
        let whole = std::fs::read(&path).unwrap();
        // In the line after the recipient's, which holds the wrapped key.
        let line = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
        let mut flipped = whole.clone();
        flipped[line + 5] = if flipped[line + 5] == b'A' { b'B' } else { b'A' };
        std::fs::write(&path, flipped).unwrap();
        let error = Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name), "{error}");
        std::fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_forged_removed_or_rolled_back_manifest_is_noticed() {
    let recovery = Keys::generate().unwrap();
    let mut keys = Keys::generate().unwrap();
    keys.add_recipient(&recovery.public_key()).unwrap();
    let mut fixture = fixture(keys);
    fixture.change(|kvs| kvs.file("e", b"third"));
    fixture.persist();
    let store = fixture.store();
    // An extra recipient reads everything, and sees that it did not sign.
    let archive = Archive::open(&store, &recovery, FILESYSTEM).unwrap();
    assert_eq!(archive.signer(), Some(fixture.keys.signer()));
    assert_ne!(archive.signer(), Some(recovery.signer()));
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    archive.rebuild_index(&index, ScanMode::Full, &mut Watch::default()).unwrap();
    assert_eq!(dump(&index), fixture.dump());
    let manifests = archive.manifests();
    let path = |n: usize| fixture.root().join(manifests[n].name.as_str());
    let first = std::fs::read(path(0)).unwrap();
    let second = std::fs::read(path(1)).unwrap();
    std::fs::remove_file(path(1)).unwrap();
    let error = Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    std::fs::write(path(1), &first).unwrap();
    let error = Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    std::fs::write(path(1), second).unwrap();
    Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap();
}
