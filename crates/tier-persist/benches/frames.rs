//! Frames: built by persisting, read by fetching.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tier_cloud::DirStore;
use tier_index::{Index, IndexOptions};
use tier_log::{NetChanges, NetChangesOptions};
use tier_persist::{
    Fetcher, FetcherOptions, FilesystemId, Keys, PartBounds, PersistOptions, PersistRequest,
    Persister, WriterToken,
};
use tier_status::NullSink;
use tier_testkit::{FakeKvs, VirtualClock};
use tier_types::{
    ChunkNo, ChunkRange, Epoch, Ino, LogService, MountedInstance, ObjectStore, PortError,
    Publication, RecallRequest, SnapshotId, to_u64, to_usize,
};

const CHUNK_BYTES: u32 = 65536;
const FILESYSTEM: FilesystemId = FilesystemId::from_bytes([7; 16]);
const N_FILES: usize = 4000;
const FILE_BYTES: usize = 2500;
const MIB: usize = 1 << 20;

/// Text that compresses about as source code does.
fn text(seed: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "let ", "self", ".", "match ", "Result", "(", ")", "{\n    ", "}\n", "index", "frame",
        " = ", "&", "mut ", "::", ";\n",
    ];
    let mut state = to_u64(seed) + 1;
    let mut out = Vec::new();
    while out.len() < FILE_BYTES {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = WORDS.iter().cycle().nth(to_usize(state >> 60));
        out.extend_from_slice(word.unwrap_or(&"").as_bytes());
        if (state >> 40).is_multiple_of(8) {
            out.extend_from_slice(format!("v{} ", (state >> 48) % 4096).as_bytes());
        }
    }
    out
}

fn files() -> (FakeKvs, Publication) {
    let mut kvs = FakeKvs::new(CHUNK_BYTES);
    for number in 0..N_FILES {
        kvs = kvs.file(&format!("file-{number}.rs"), &text(number));
    }
    let publication = kvs.log().publish().unwrap().unwrap();
    (kvs, publication)
}

fn persist(
    dir: &Path,
    kvs: &FakeKvs,
    publication: &Publication,
    keys: &Arc<Keys>,
    frame_bytes: usize,
) -> Arc<Index> {
    let index = Index::open(&dir.join("index"), CHUNK_BYTES, &IndexOptions::default());
    let index = Arc::new(index.unwrap());
    let store = DirStore::create(&dir.join("objects")).unwrap();
    let clock = Arc::new(VirtualClock::at(1_480_000_000));
    let options = PersistOptions { frame_bytes, ..PersistOptions::default() };
    let persister = Persister::new(
        FILESYSTEM,
        Arc::new(store),
        Arc::clone(keys),
        Arc::clone(&index),
        clock,
        options,
    );
    let changes = NetChangesOptions::new(dir);
    let changes = NetChanges::of_range(kvs.log(), publication.range, &changes).unwrap();
    let mounted = kvs.open_snapshot(publication).unwrap();
    persister
        .persist(&mut PersistRequest {
            epoch: Epoch::new(1),
            writer: WriterToken::from_bytes([1; 16]),
            snapshot: SnapshotId::new(1),
            range: publication.range,
            part: None,
            failed_before: &[],
            n_looked_at: 0,
            mounted: mounted.as_ref(),
            updates: &mut changes.map(|update| update.map_err(PortError::from)),
            segments: &mut std::iter::empty(),
            bounds: PartBounds::NONE,
            on_sealed: &|_| {},
            status: &NullSink,
            stop: &AtomicBool::new(false),
        })
        .unwrap();
    index
}

fn request(number: usize) -> RecallRequest {
    // The root has the first transaction; each file is created, and then written.
    let ino = Ino::new(2 + 2 * to_u64(number));
    let chunks = ChunkRange::new(ChunkNo::new(0), ChunkNo::new(1)).unwrap();
    RecallRequest { ino, chunks, data_xid: tier_types::Xid::new(ino.get() + 1) }
}

fn frames(criterion: &mut Criterion) {
    let (kvs, publication) = files();
    let keys = Arc::new(Keys::generate().unwrap());
    let mut group = criterion.benchmark_group("frames");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(to_u64(N_FILES * FILE_BYTES)));
    group.bench_function("build", |bencher| {
        bencher.iter_batched(
            || tempfile::tempdir().unwrap(),
            |dir| {
                persist(dir.path(), &kvs, &publication, &keys, MIB);
                dir
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();

    let mut group = criterion.benchmark_group("fetch");
    for frame_bytes in [MIB / 8, MIB / 4, MIB / 2, MIB, 2 * MIB, 4 * MIB] {
        let dir = tempfile::tempdir().unwrap();
        let index = persist(dir.path(), &kvs, &publication, &keys, frame_bytes);
        let store = DirStore::create(&dir.path().join("objects")).unwrap();
        let stores: Vec<Arc<dyn ObjectStore>> = vec![Arc::new(store)];
        let fetcher = |cache_bytes| {
            let options = FetcherOptions { cache_bytes, ..FetcherOptions::default() };
            let (index, keys) = (Arc::clone(&index), Arc::clone(&keys));
            Fetcher::new(FILESYSTEM, index, keys, stores.clone(), options)
        };
        let cold = fetcher(1);
        let mut number = 0;
        let name = format!("a file in a cold frame of {} KiB", frame_bytes >> 10);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // Never the same frame twice in a row.
                number = (number + 1237) % N_FILES;
                cold.fetch(&request(number)).unwrap()
            });
        });
        if frame_bytes != MIB {
            continue;
        }
        let warm = fetcher(64 << 20);
        (0..N_FILES).rev().for_each(|number| drop(warm.fetch(&request(number)).unwrap()));
        group.bench_function("a neighbour in a frame at hand", |bencher| {
            bencher.iter(|| {
                number = (number + 1237) % N_FILES;
                warm.fetch(&request(number)).unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, frames);
criterion_main!(benches);
