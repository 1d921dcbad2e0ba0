//! Frames that are read ahead: each is read once, however many readers go on side by side.

use std::collections::BTreeSet;
use std::sync::Arc;

use tier_persist::{Fetcher, FetcherOptions, Keys};
use tier_testkit::{FakeKvs, Fault, FaultyStore, OneByOne};
use tier_types::{ChunkNo, ChunkRange, Ino, ObjectStore, RecallRequest, Xid};

use crate::common::{CHUNK, FILESYSTEM, Fixture, noise};

const N_BYTES: usize = 400_000;
/// Frames that are read ahead of each reader.
const N_AHEAD: u32 = 8;

struct Reader {
    ino: Ino,
    data_xid: Xid,
    rest: Option<ChunkRange>,
}

/// What is read ahead for one reader must not push out what another one is about to come to, and
/// what was read and used must not push out either.
#[test]
fn readers_side_by_side_read_each_frame_once() {
    // Incompressible, so that a frame takes in memory what it takes when it is opened.
    let kvs = FakeKvs::new(CHUNK).file("a", &noise(N_BYTES, 1)).file("b", &noise(N_BYTES, 2));
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.persist();
    let store = Arc::new(FaultyStore::new(Arc::new(fixture.store())));
    // The half for what is read ahead has room for the frames of both.
    let options = FetcherOptions { cache_bytes: 8 * 4096 * 5, n_tarballs: 4 };
    let (index, keys) = (Arc::clone(&fixture.index), Arc::clone(&fixture.keys));
    let fetcher = Fetcher::new(FILESYSTEM, index, keys, vec![store.clone()], options);
    let end = ChunkNo::new(u64::try_from(N_BYTES.div_ceil(512)).unwrap());
    let mut readers = ["a", "b"].map(|name| {
        let ino = fixture.kvs.ino(name);
        let extent = fixture.kvs.resident_of(ino, ChunkNo::new(0), 1).unwrap()[0];
        let rest = ChunkRange::new(ChunkNo::new(0), end);
        Reader { ino, data_xid: extent.data_xid, rest }
    });
    let before = store.count();
    let mut frames = BTreeSet::new();
    let first = fetcher_frame(&fetcher, &readers[0]);
    while readers.iter().any(|reader| reader.rest.is_some()) {
        for reader in &mut readers {
            let Some(chunks) = reader.rest else { continue };
            let request = RecallRequest { ino: reader.ino, chunks, data_xid: reader.data_xid };
            let located = fetcher.locate(&request).unwrap();
            let frame = located.frame();
            frames.insert(frame.distance_from(first).unwrap());
            for n in 1..=N_AHEAD {
                fetcher.read_ahead(frame.behind(n)).unwrap();
            }
            let came = fetcher.fetch_located(&request, &located).unwrap();
            assert!(came.bytes() == &expected(&fixture, reader.ino)[range_of(&came)]);
            reader.rest = ChunkRange::new(came.chunks().end(), end);
        }
    }
    let n_frames = u64::try_from(frames.len()).unwrap();
    let n_reads = store.count() - before;
    assert!(n_frames > 90, "{n_frames} frames");
    // A few behind the end of each file are read for nothing.
    assert!(n_reads <= n_frames + u64::from(2 * N_AHEAD), "{n_reads} reads of {n_frames} frames");
}

/// What is damaged is found when it is read, as long as there is another copy to go to.
#[test]
fn a_frame_that_is_read_ahead_comes_from_a_whole_copy() {
    for keys in [Keys::generate().unwrap(), Keys::generate().unwrap().without_encryption()] {
        let mut fixture = Fixture::new(FakeKvs::new(CHUNK).file("a", &noise(5000, 1)), keys);
        fixture.persist();
        let damaged = Arc::new(FaultyStore::new(Arc::new(fixture.store())));
        let stores: Vec<Arc<dyn ObjectStore>> = vec![damaged.clone(), Arc::new(fixture.store())];
        let options = FetcherOptions { cache_bytes: 1 << 20, n_tarballs: 4 };
        let (index, keys) = (Arc::clone(&fixture.index), Arc::clone(&fixture.keys));
        let fetcher = Fetcher::new(FILESYSTEM, index, keys, stores, options);
        let ino = fixture.kvs.ino("a");
        let extent = fixture.kvs.resident_of(ino, ChunkNo::new(0), 1).unwrap()[0];
        let chunks = ChunkRange::one(ChunkNo::new(0)).unwrap();
        let request = RecallRequest { ino, chunks, data_xid: extent.data_xid };
        let located = fetcher.locate(&request).unwrap();
        damaged.break_at(0, Fault::FlippedBit);
        assert!(fetcher.read_ahead(located.frame()).unwrap());
        assert!(damaged.broken().is_some(), "it was read");
        let came = fetcher.fetch_located(&request, &located).unwrap();
        assert!(came.bytes() == &noise(5000, 1)[range_of(&came)]);
    }
}

fn fetcher_frame(fetcher: &Fetcher, reader: &Reader) -> tier_persist::FrameId {
    let chunks = reader.rest.unwrap();
    let request = RecallRequest { ino: reader.ino, chunks, data_xid: reader.data_xid };
    fetcher.locate(&request).unwrap().frame()
}

fn expected(fixture: &Fixture, ino: Ino) -> Vec<u8> {
    noise(N_BYTES, if ino == fixture.kvs.ino("a") { 1 } else { 2 })
}

fn range_of(came: &tier_types::RecalledExtent) -> std::ops::Range<usize> {
    let start = usize::try_from(came.chunks().start().get()).unwrap() * 512;
    start..start + came.bytes().len()
}
