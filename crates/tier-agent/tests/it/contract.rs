//! The recaller, and the index behind it, keep the contracts of the way back.

use std::sync::Arc;

use tier_agent::{Recaller, RecallerOptions};
use tier_persist::{Fetcher, FetcherOptions};
use tier_testkit::ArchivedInode;
use tier_testkit::contract::{check_persisted, check_recall};
use tier_types::{
    FileKind, Ino, LogReader, MountedInstance, ObjectStore, Publication, Xid, XidRange,
};

use crate::harness::{CHUNK, Harness, file_name, node};

/// Archives some files through the whole pipeline; returns what must be in the archive.
fn archive(harness: &Harness) -> Vec<ArchivedInode> {
    let fs = harness.fs();
    let inos = ["long", "mixed", "small"].map(|name| {
        fs.create_node(Ino::ROOT, &file_name(name), &node(FileKind::Regular, 0o644)).unwrap().ino
    });
    let [long, mixed, small] = inos;
    let chunk = u64::from(CHUNK);
    let noise: Vec<u8> =
        (0..9000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs.write(long, 0, &noise).unwrap();
    fs.write(mixed, 0, &noise[..8 * CHUNK as usize]).unwrap();
    fs.write(small, 0, b"small").unwrap();
    fs.write(mixed, 2 * chunk, &noise[7..7 + CHUNK as usize]).unwrap();
    fs.punch_hole(mixed, 5 * chunk, chunk).unwrap();
    let snapshot = harness.snapshot().unwrap();
    // Nothing was logged since, and so the present is the snapshot.
    let range = XidRange::new(Xid::new(1), fs.last_xid().next()).unwrap();
    let mounted = fs.open_snapshot(&Publication { range }).unwrap();
    let read = |ino| ArchivedInode::read(mounted.as_ref(), snapshot, ino).unwrap().unwrap();
    inos.map(read).to_vec()
}

#[test]
fn the_contracts_of_the_way_back_are_kept() {
    let harness = Harness::new();
    let archived = archive(&harness);
    let index = Arc::clone(&harness.live().index);
    check_persisted(index.as_ref(), &archived);
    let stores: Vec<Arc<dyn ObjectStore>> = vec![harness.cloud.clone()];
    let options = FetcherOptions { cache_bytes: 20_000, n_tarballs: 2 };
    let keys = Arc::clone(&harness.keys);
    let fetcher = Fetcher::new(harness.filesystem, index, keys, stores, options);
    let recaller = Recaller::start(fetcher, RecallerOptions::default()).unwrap();
    check_recall(&recaller, CHUNK, &archived);
}
