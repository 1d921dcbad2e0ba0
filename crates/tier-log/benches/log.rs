//! Records in and out, and what a range of them comes to.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tier_log::{LogRecord, NetChanges, NetChangesOptions, Operation};
use tier_testkit::FakeLog;
use tier_types::{FileName, Ino, Link, LogReader, LogService, Xid};

const N_FILES: u64 = 100_000;

/// What an import of small files logs.
fn import(log: &FakeLog) {
    for number in 0..N_FILES {
        let ino = Ino::new(log.last_xid().get() + 1);
        let name = FileName::new(format!("file-{number:06}.txt").as_bytes()).unwrap();
        let link = Link { parent: Ino::ROOT, name };
        log.append(Operation::Create { ino, link: Some(link) });
        log.append(Operation::Write { ino, offset: 0, len: 3000 });
        log.append(Operation::SetAttr { ino });
    }
}

fn records(criterion: &mut Criterion) {
    let name = FileName::new(b"a-name-of-some-length.txt").unwrap();
    let link = Link { parent: Ino::new(77), name };
    let operation = Operation::Create { ino: Ino::new(1_234_567), link: Some(link) };
    let time = tier_types::Timestamp { seconds: 1_480_000_000, nanos: 123_456_789 };
    let record = LogRecord { xid: Xid::new(1_234_567), time, operation };
    let bytes = record.to_bytes();
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode", |bencher| bencher.iter(|| record.to_bytes()));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| LogRecord::from_bytes(record.xid, &bytes).unwrap());
    });
    group.finish();
}

fn net_changes(criterion: &mut Criterion) {
    let log = FakeLog::new(65536);
    import(&log);
    let range = log.publish().unwrap().unwrap().range;
    let directory = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("net changes");
    group.throughput(Throughput::Elements(range.len()));
    group.sample_size(20);
    for (name, n_in_memory_max) in [("in memory", usize::MAX), ("spilled", 20_000)] {
        let base = NetChangesOptions::new(directory.path());
        let options = NetChangesOptions { n_in_memory_max, ..base };
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (),
                |()| {
                    NetChanges::of_range(&log, range, &options).unwrap().map(Result::unwrap).count()
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, records, net_changes);
criterion_main!(benches);
