//! Archives of version 1 as they were once written. They are never edited: whatever changes, this
//! is still read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tier_cloud::DirStore;
use tier_index::{Index, IndexOptions};
use tier_persist::{
    Archive, Fetcher, FetcherOptions, Keys, ScanMode, Watch, rebuild_without_manifests,
};
use tier_status::StatusLog;
use tier_testkit::FakeKvs;
use tier_types::{Call, ChunkNo, ChunkRange, Ino, ObjectStore, RecallRequest, Xid};

use crate::common::{CHUNK, FILESYSTEM, Fixture, dump, noise};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/formats/v1")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(golden().join(name)).unwrap()
}

fn keys() -> Keys {
    Keys::from_identity_file(&read("identity.key")).unwrap()
}

/// The files of the golden archive.
fn first() -> FakeKvs {
    FakeKvs::new(CHUNK)
        .file("small", b"hello")
        .file("empty", b"")
        .symlink("link", "small")
        .file("big", &noise(20_000, 1))
        .file("text", &b"all work and no play ".repeat(400))
        .file("sparse", &[7; 1024])
        .write("sparse", 10 * 512, &[8; 700])
        .file("doomed", b"gone soon")
        .damage("text", 3)
}

fn second(kvs: FakeKvs) -> FakeKvs {
    kvs.write("big", 4 * 512, &[9; 512]).punch("big", 6..9).remove("doomed").file("late", b"x")
}

/// Behind a checkpoint.
fn third(kvs: FakeKvs) -> FakeKvs {
    kvs.write("late", 0, b"y")
}

/// Three tarballs and three segments, four manifests, and the objects of a checkpoint.
const N_OBJECTS: u64 = 16;

#[test]
fn archives_of_version_1_are_read() {
    if !golden().join("identity.key").exists() {
        write_golden_files();
        panic!("there were no golden files; now there are some: commit them and never edit them");
    }
    for directory in ["archive-encrypted", "archive-in-clear"] {
        let store = DirStore::create(&golden().join(directory)).unwrap();
        let keys = Arc::new(keys());
        let archive = Archive::open(&store, &keys, FILESYSTEM).unwrap();
        assert_eq!(archive.signer(), Some(keys.signer()));
        for mode in [ScanMode::Checkpoint, ScanMode::Tables, ScanMode::Full] {
            let dir = tempfile::tempdir().unwrap();
            let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
            assert_eq!(
                archive.rebuild_index(&index, mode, &mut Watch::default()).unwrap(),
                Vec::new()
            );
            assert_eq!(dump(&index), read("index.dump"), "{directory}, {mode:?}");
        }
        let report = archive.verify(true, &mut Watch::default()).unwrap();
        assert_eq!((report.n_objects, report.damages), (N_OBJECTS, Vec::new()));
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
        rebuild_without_manifests(&index, &store, &keys, FILESYSTEM, &mut Watch::default())
            .unwrap();
        assert_eq!(dump(&index), read("index.dump"), "{directory}, without manifests");
        let stores: Vec<Arc<dyn ObjectStore>> = vec![Arc::new(store.clone())];
        let options = FetcherOptions::default();
        let fetcher = Fetcher::new(FILESYSTEM, Arc::new(index), Arc::clone(&keys), stores, options);
        let chunks = ChunkRange::new(ChunkNo::new(4), ChunkNo::new(5)).unwrap();
        // As second() wrote it.
        let request = RecallRequest { ino: Ino::new(6), chunks, data_xid: Xid::new(15) };
        assert_eq!(fetcher.fetch(&request).unwrap().bytes(), [9; 512]);
    }
}

#[test]
fn a_status_log_of_version_1_is_read() {
    let path = golden().join("snapshot.status");
    let log = StatusLog::read(&path).unwrap().unwrap();
    insta::assert_debug_snapshot!(log.records());
}

/// Wrote them, when there were none.
fn write_golden_files() {
    let keys = Keys::generate().unwrap();
    let text = keys.to_identity_file("for the golden files, and for nothing else");
    std::fs::write(golden().join("identity.key"), text).unwrap();
    for (directory, keys) in [
        ("archive-encrypted", self::keys()),
        ("archive-in-clear", self::keys().without_encryption()),
    ] {
        let mut fixture = Fixture::new(first(), keys);
        fixture.persist();
        fixture.change(second);
        fixture.persist();
        fixture.options.object_bytes = 100;
        fixture.checkpoint();
        fixture.change(third);
        fixture.persist();
        let store = fixture.store();
        for name in store.names(&Call::bulk(), "").unwrap() {
            let to = golden().join(directory).join(name.as_str());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(fixture.root().join(name.as_str()), to).unwrap();
        }
        std::fs::write(golden().join("index.dump"), fixture.dump()).unwrap();
    }
}
