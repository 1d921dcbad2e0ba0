//! The fakes keep the contracts.

use std::sync::Arc;

use tier_log::Operation;
use tier_testkit::contract::{
    TestFilesystem, TestFilesystems, check_log_service, check_mounted_instance, check_object_store,
    check_persisted, check_recall, check_staging_store,
};
use tier_testkit::{ArchivedInode, FakeArchive, FakeKvs, FakeLog, FaultyStore, MemoryStore};
use tier_types::{Ino, LogService, MountedInstance, Recall, SnapshotId, Xid};

const CHUNK: u32 = 512;

struct FakeFilesystems;

impl TestFilesystems for FakeFilesystems {
    type Filesystem = FakeKvs;

    fn create(&self, recall: Arc<dyn Recall>) -> FakeKvs {
        FakeKvs::with_recall(CHUNK, recall)
    }

    fn restore(
        &self,
        recall: Arc<dyn Recall>,
        last: Xid,
        fill: &dyn Fn(&dyn MountedInstance),
    ) -> FakeKvs {
        let kvs = FakeKvs::empty(CHUNK, recall, last);
        fill(&kvs);
        kvs
    }
}

#[test]
fn the_fake_log_keeps_the_contract_of_logs() {
    let log = FakeLog::new(CHUNK);
    let act = || {
        log.append(Operation::SetAttr { ino: Ino::ROOT });
    };
    check_log_service(&log, &act);
}

#[test]
fn the_fake_filesystem_keeps_the_contract_of_logs() {
    let kvs = FakeKvs::new(CHUNK);
    let act = || {
        TestFilesystem::write(&kvs, "a", 0, b"logged");
    };
    check_log_service(kvs.log(), &act);
}

#[test]
fn the_fake_filesystem_keeps_the_contract_of_instances() {
    check_mounted_instance(&FakeFilesystems);
}

/// An archive, and what must be in it.
fn archive(n_answer_chunks: u64) -> (FakeArchive, Vec<ArchivedInode>) {
    let kvs = FakeKvs::new(CHUNK)
        .file("long", &[1; 5000])
        .file("mixed", &[2; 4096])
        .write("mixed", 1024, &[3; 512])
        .punch("mixed", 5..6)
        .file("other", b"small");
    let publication = kvs.log().publish().unwrap().unwrap();
    let snapshot = kvs.open_snapshot(&publication).unwrap();
    let inos = ["long", "mixed", "other"].map(|name| kvs.ino(name));
    let archive = FakeArchive::with_answers_of(n_answer_chunks);
    archive.persist(snapshot.as_ref(), SnapshotId::new(7), &inos).unwrap();
    let read = |ino: &Ino| ArchivedInode::read(snapshot.as_ref(), SnapshotId::new(7), *ino);
    (archive, inos.iter().map(|ino| read(ino).unwrap().unwrap()).collect())
}

#[test]
fn the_fake_archive_keeps_the_contract_of_recalls() {
    for n_answer_chunks in [1, 2, 3, 100] {
        let (archive, inodes) = archive(n_answer_chunks);
        check_recall(&archive, CHUNK, &inodes);
    }
}

#[test]
fn the_fake_archive_keeps_the_contract_of_what_is_persisted() {
    let (archive, inodes) = archive(2);
    check_persisted(&archive, &inodes);
}

#[test]
fn the_fake_stores_keep_the_contracts_of_stores() {
    check_object_store(&MemoryStore::default());
    check_staging_store(&MemoryStore::default());
    check_object_store(&FaultyStore::new(Arc::new(MemoryStore::default())));
}
