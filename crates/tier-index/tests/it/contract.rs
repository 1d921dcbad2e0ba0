//! The index keeps the contract of what is persisted.

use tier_index::{Contents, Entry, Index, IndexOptions, TarballId};
use tier_testkit::contract::check_persisted;
use tier_testkit::{ArchivedInode, FakeKvs};
use tier_types::{Epoch, LogService, MountedInstance, SnapshotId};

const CHUNK: u32 = 512;

/// What a persister says of an inode, in a frame of its own.
fn entries(inode: &ArchivedInode, frame: u32) -> Vec<Entry> {
    let ino = inode.ino;
    let mut entries = vec![Entry::Inode { ino, xid: inode.xid, frame, offset: 0 }];
    let mut offset = 1024;
    for extent in &inode.extents {
        let bytes = u32::try_from(extent.bytes.len()).unwrap();
        let short_bytes = u32::try_from(extent.chunks.len()).unwrap() * CHUNK - bytes;
        let (chunks, data_xid) = (extent.chunks, extent.data_xid);
        entries.push(Entry::Data { ino, chunks, data_xid, frame, offset, short_bytes });
        offset += bytes;
    }
    entries
}

#[test]
fn the_contract_of_what_is_persisted_is_kept() {
    let kvs = FakeKvs::new(CHUNK)
        .file("long", &[1; 5000])
        .file("mixed", &[2; 4096])
        .write("mixed", 1024, &[3; 512])
        .punch("mixed", 5..6)
        .file("other", b"small");
    let publication = kvs.log().publish().unwrap().unwrap();
    let mounted = kvs.open_snapshot(&publication).unwrap();
    let snapshot = SnapshotId::new(3);
    let read = |name| ArchivedInode::read(mounted.as_ref(), snapshot, kvs.ino(name));
    let inodes = ["long", "mixed", "other"].map(|name| read(name).unwrap().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    let tarball = TarballId { epoch: Epoch::new(1), snapshot, part: 0 };
    let entries = inodes.iter().zip(0..).flat_map(|(inode, frame)| entries(inode, frame)).collect();
    let mut writer = index.writer();
    writer.add_tarball(tarball, b"row").unwrap();
    writer.apply(&Contents { tarball, chunk_bytes: CHUNK, entries }).unwrap();
    drop(writer);
    check_persisted(&index, &inodes);
    check_persisted(&index.persisted_until(snapshot), &inodes);
}
