//! Lookups, batches and dumps of an index with a million extents.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tier_index::{Contents, Entry, Index, IndexOptions, TarballId};
use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, SnapshotId, Xid};

const CHUNK_BYTES: u32 = 65536;
const N_FILES: u64 = 500_000;
const N_BATCH: u64 = 8192;

fn tarball() -> TarballId {
    TarballId { epoch: Epoch::new(1), snapshot: SnapshotId::new(1), part: 0 }
}

/// Two entries for each of these small files.
fn contents(inos: std::ops::Range<u64>) -> Contents {
    let entries = inos.flat_map(|number| {
        let ino = Ino::new(number * 3 + 1);
        let frame = u32::try_from(number / 250).unwrap();
        let offset = u32::try_from(number % 250 * 4096).unwrap();
        let data_xid = Xid::new(ino.get() + 1);
        let chunks = ChunkRange::new(ChunkNo::new(0), ChunkNo::new(1)).unwrap();
        let inode = Entry::Inode { ino, xid: Xid::new(ino.get() + 2), frame, offset };
        let short_bytes = 62_000;
        let data = Entry::Data { ino, chunks, data_xid, frame, offset: offset + 1536, short_bytes };
        [inode, data]
    });
    Contents { tarball: tarball(), chunk_bytes: CHUNK_BYTES, entries: entries.collect() }
}

fn empty(directory: &std::path::Path) -> Index {
    let index = Index::open(directory, CHUNK_BYTES, &IndexOptions::default()).unwrap();
    index.writer().add_tarball(tarball(), b"row").unwrap();
    index
}

fn index(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let index = empty(directory.path());
    for start in (0..N_FILES).step_by(8192) {
        index.writer().apply(&contents(start..(start + N_BATCH).min(N_FILES))).unwrap();
    }
    let mut group = criterion.benchmark_group("index");
    let mut number = 0;
    group.bench_function("lookup", |bencher| {
        bencher.iter(|| {
            number = (number + 314_159) % N_FILES;
            index.find(Ino::new(number * 3 + 1), ChunkNo::new(0)).unwrap().unwrap()
        });
    });
    group.sample_size(20);
    group.throughput(Throughput::Elements(N_BATCH));
    group.bench_function("batch of new files", |bencher| {
        let mut start = N_FILES;
        let next = || {
            start += N_BATCH;
            contents(start..start + N_BATCH)
        };
        bencher.iter_batched(
            next,
            |batch| index.writer().apply(&batch).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    let mut group = criterion.benchmark_group("index dump");
    let directory = tempfile::tempdir().unwrap();
    let small = empty(directory.path());
    small.writer().apply(&contents(0..50_000)).unwrap();
    group.throughput(Throughput::Elements(100_000));
    group.sample_size(10);
    group.bench_function("100,000 lines", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::new();
            small.dump(&mut out).unwrap();
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, index);
criterion_main!(benches);
