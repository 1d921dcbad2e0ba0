//! The reaper changes nothing that a reader sees, goes on from wherever it was cut off, and leaves
//! nothing behind; and what an operation does itself does not grow with the file.

use std::sync::Arc;

use kvfs::{Core, Heat, Kvfs, Reaper};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};
use tempfile::TempDir;
use tier_testkit::{OneByOne, VirtualClock};
use tier_types::{
    ChunkNo, ChunkRun, FileKind, Ino, InstanceView, LogReader, LogService, MountedInstance,
    ResidentExtent, to_u64, to_usize,
};

use crate::archive::{MemoryArchive, tiered};
use crate::common::{CHUNK, create, file, name, node, open, options, reap_all};
use crate::fsck::check;
use crate::publish::copy;

/// Chunks of a file, several times as many as an operation would delete itself.
const N_CHUNKS: u64 = 300;

const BYTES: u64 = N_CHUNKS * 512;

#[derive(Clone, Debug)]
enum Op {
    /// A chunk, then one that stays what it was, and so on: many runs.
    Scatter {
        start: u64,
        n: u64,
    },
    Write {
        offset: u64,
        len: u64,
    },
    Truncate(u64),
    Punch {
        offset: u64,
        len: u64,
    },
    Evict,
    Read {
        offset: u64,
        len: u64,
    },
    /// Another file takes the name; the old one dies at once, or with its handle.
    Replace {
        is_open: bool,
    },
    Snapshot,
    Reap(usize),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..N_CHUNKS / 2, 40..120_u64).prop_map(|(start, n)| Op::Scatter { start, n }),
        3 => (0..BYTES, 1..4000_u64).prop_map(|(offset, len)| Op::Write { offset, len }),
        5 => (0..BYTES).prop_map(Op::Truncate),
        3 => (0..BYTES, 1..BYTES).prop_map(|(offset, len)| Op::Punch { offset, len }),
        2 => Just(Op::Evict),
        2 => (0..BYTES, 1..9000_u64).prop_map(|(offset, len)| Op::Read { offset, len }),
        1 => any::<bool>().prop_map(|is_open| Op::Replace { is_open }),
        2 => Just(Op::Snapshot),
        5 => (2..60_usize).prop_map(Op::Reap),
        1 => Just(Op::Reopen),
    ]
}

/// A filesystem with one file in it that counts.
struct Side {
    dir: TempDir,
    fs: Option<Arc<Kvfs>>,
    archive: Arc<MemoryArchive>,
    ino: Ino,
}

impl Side {
    fn new() -> Self {
        let (dir, fs, archive) = tiered();
        let ino = file(&fs, Ino::ROOT, "f");
        Self { dir, fs: Some(fs), archive, ino }
    }

    fn fs(&self) -> &Arc<Kvfs> {
        self.fs.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.fs().fsync().unwrap();
        self.fs = None;
        let clock = Arc::new(VirtualClock::at(1_480_000_000));
        let core = Core::open(self.dir.path(), &options(), clock).unwrap();
        self.fs = Some(Arc::new(Kvfs::new(Arc::new(core), self.archive.clone())));
    }

    fn apply(&mut self, op: &Op, byte: u8) {
        let (fs, ino) = (Arc::clone(self.fs()), self.ino);
        match *op {
            Op::Scatter { start, n } => {
                for number in 0..n {
                    let offset = (start + 2 * number) * u64::from(CHUNK);
                    fs.write(ino, offset, &vec![byte; to_usize(u64::from(CHUNK))]).unwrap();
                }
            }
            Op::Write { offset, len } => {
                fs.write(ino, offset, &vec![byte; to_usize(len)]).unwrap();
            }
            Op::Truncate(size) => fs.truncate(ino, size).unwrap(),
            Op::Punch { offset, len } => fs.punch_hole(ino, offset, len).unwrap(),
            Op::Evict => drop(self.archive.keep_and_evict(&fs, ino)),
            Op::Read { offset, len } => drop(fs.read(ino, offset, to_usize(len)).unwrap()),
            Op::Replace { is_open } => {
                let handle = is_open.then(|| fs.open_handle(ino).unwrap());
                fs.unlink(Ino::ROOT, &name("f")).unwrap();
                self.ino = file(&fs, Ino::ROOT, "f");
                drop(handle);
                assert!(fs.getattr(ino).is_err(), "nothing of it is seen");
            }
            Op::Snapshot | Op::Reap(_) => {}
            Op::Reopen => {
                drop(fs);
                self.reopen();
            }
        }
    }

    /// The map in a new snapshot, read in pages. What is data in it holds the bytes of the model.
    fn snapshot(&self, model: &[u8]) -> Vec<ChunkRun> {
        let Some(publication) = self.fs().publish().unwrap() else { return Vec::new() };
        let snapshot = self.fs().open_snapshot(&publication).unwrap();
        let mut reader = snapshot.reader();
        let state = reader.inode(self.ino).unwrap().unwrap();
        assert_eq!(state.attr, self.fs().getattr(self.ino).unwrap());
        let mut runs: Vec<ChunkRun> = Vec::new();
        let mut at = ChunkNo::new(0);
        while at < ChunkNo::END {
            let page = reader.chunk_runs(self.ino, at, 7).unwrap();
            at = page.last().unwrap().chunks.end();
            runs.extend(page);
        }
        for run in runs.iter().filter(|run| run.state.is_resident()) {
            let mut bytes = Vec::new();
            reader.read_chunks(self.ino, run.chunks, &mut bytes).unwrap();
            let from = to_usize(run.chunks.offset_bytes(CHUNK));
            let stored = model.iter().skip(from).take(bytes.len()).copied();
            // The last chunk is filled up with zeros.
            let expected = stored.chain(std::iter::repeat(0)).take(bytes.len());
            assert!(bytes.iter().copied().eq(expected), "the content of {run:?} differs");
        }
        drop(reader);
        self.fs().release(&publication).unwrap();
        runs
    }

    fn extents(&self) -> Vec<ResidentExtent> {
        self.fs().resident_of(self.ino, ChunkNo::new(0), usize::MAX).unwrap()
    }
}

/// What the file should hold.
fn apply_to_model(model: &mut Vec<u8>, op: &Op, byte: u8) {
    let mut write = |offset: u64, len: u64| {
        let (start, end) = (to_usize(offset), to_usize(offset + len));
        model.resize(model.len().max(end), 0);
        model[start..end].fill(byte);
    };
    match *op {
        Op::Scatter { start, n } => {
            let chunk = u64::from(CHUNK);
            (0..n).for_each(|number| write((start + 2 * number) * chunk, chunk));
        }
        Op::Write { offset, len } => write(offset, len),
        Op::Truncate(size) => model.resize(to_usize(size), 0),
        Op::Punch { offset, len } => {
            let end = to_usize(offset + len).min(model.len());
            if let Some(hole) = model.get_mut(to_usize(offset)..end) {
                hole.fill(0);
            }
        }
        Op::Replace { .. } => model.clear(),
        Op::Evict | Op::Read { .. } | Op::Snapshot | Op::Reap(_) | Op::Reopen => {}
    }
}

/// Two filesystems to which the same happens, but that one of them is never reaped.
fn compare(reaped: &Side, kept: &Side) -> Result<(), TestCaseError> {
    let (a, b, ino) = (reaped.fs(), kept.fs(), reaped.ino);
    prop_assert_eq!(ino, kept.ino);
    prop_assert_eq!(a.last_xid(), b.last_xid());
    // But for the times: each commit of the reaper is a tick of its clock.
    let state = |fs: &Kvfs| {
        let attr = fs.getattr(ino).unwrap();
        (attr.size_bytes, attr.nlink, attr.xid)
    };
    prop_assert_eq!(state(a), state(b));
    let ranges = |fs: &Kvfs| fs.data_ranges(ino, 0, usize::MAX).unwrap();
    prop_assert_eq!(ranges(a), ranges(b));
    prop_assert_eq!(reaped.extents(), kept.extents());
    Ok(())
}

#[test]
fn a_reaper_changes_nothing_that_a_reader_sees() {
    let mut runner = TestRunner::new(Config { cases: 16, ..Config::default() });
    runner
        .run(&prop::collection::vec(op(), 5..30), |ops| {
            let (mut reaped, mut kept) = (Side::new(), Side::new());
            let mut model = Vec::new();
            for (byte, op) in (1..).zip(&ops) {
                reaped.apply(op, byte);
                kept.apply(op, byte);
                apply_to_model(&mut model, op, byte);
                if let Op::Reap(n_rows) = op {
                    reaped.fs().reap(*n_rows).unwrap();
                }
                if matches!(op, Op::Snapshot) {
                    prop_assert_eq!(reaped.snapshot(&model), kept.snapshot(&model));
                }
                compare(&reaped, &kept)?;
            }
            for side in [&reaped, &kept] {
                prop_assert_eq!(check_archived(side), Vec::<String>::new());
            }
            reap_all(reaped.fs());
            compare(&reaped, &kept)?;
            prop_assert_eq!(check_archived(&reaped), Vec::<String>::new());
            // What is left is what would be there if the sums had been made at once.
            reap_all(kept.fs());
            let sums = |side: &Side| {
                let fs = side.fs();
                let usage = fs.usage().unwrap();
                let heat = fs.heat(side.ino).unwrap();
                (usage.resident_bytes, usage.cold_bytes, fs.dying_bytes(), heat)
            };
            prop_assert_eq!(sums(&reaped), sums(&kept));
            prop_assert_eq!(reaped.fs().dying_bytes(), 0);
            let resident: u64 = reaped
                .extents()
                .iter()
                .map(|extent| extent.chunks.len_bytes(CHUNK, to_u64(model.len())))
                .sum();
            prop_assert_eq!(reaped.fs().resident_bytes(reaped.ino).unwrap(), resident);
            for side in [&reaped, &kept] {
                let read = side.fs().read(side.ino, 0, model.len() + 1).unwrap();
                prop_assert!(read == model, "the content differs");
            }
            Ok(())
        })
        .unwrap();
}

fn check_archived(side: &Side) -> Vec<String> {
    let mut problems = Vec::new();
    let mut found = |finding: kvfs::check::Finding| {
        problems.push(format!("{:?}: {}", finding.ino, finding.problem));
    };
    side.fs().fsck(side.archive.as_ref(), &mut found, &false.into()).unwrap();
    problems
}

/// A file of many runs: every second chunk is data, each of a transaction of its own.
fn scattered(fs: &Kvfs, text: &str, n_runs: u64) -> Ino {
    let ino = file(fs, Ino::ROOT, text);
    for number in 0..n_runs {
        fs.write(ino, 2 * number * u64::from(CHUNK), &[7; 512]).unwrap();
    }
    ino
}

#[test]
fn a_crash_between_two_steps_leaves_what_the_next_opening_ends() {
    let (dir, fs) = create();
    let kept = file(&fs, Ino::ROOT, "kept");
    fs.write(kept, 0, &[5; 3000]).unwrap();
    scattered(&fs, "gone", 150);
    let cut = scattered(&fs, "cut", 150);
    fs.unlink(Ino::ROOT, &name("gone")).unwrap();
    assert_eq!(fs.dying_bytes(), 150 * u64::from(CHUNK));
    fs.truncate(cut, 700).unwrap();
    fs.truncate(cut, 100_000).unwrap();
    fs.write(cut, 50_000, b"new").unwrap();
    let mut model = vec![0; 100_000];
    model[..512].fill(7);
    model[50_000..50_003].copy_from_slice(b"new");
    let mut n_steps = 0;
    loop {
        fs.fsync().unwrap();
        let crashed_dir = copy(&dir);
        let crashed = open(&crashed_dir);
        assert_eq!(check(&crashed).1, Vec::<String>::new(), "after {n_steps} steps");
        assert!(crashed.read(cut, 0, 100_000).unwrap() == model);
        reap_all(&crashed);
        assert_eq!(crashed.dying_bytes(), 0);
        let (report, problems) = check(&crashed);
        // The chunks of the one file, two of the other, and nothing else.
        assert_eq!((report.n_chunks, problems), (6 + 2, vec![]));
        assert!(crashed.read(cut, 0, 100_000).unwrap() == model);
        assert_eq!(crashed.read(kept, 0, 3000).unwrap(), [5; 3000]);
        if !fs.reap(60).unwrap() {
            break;
        }
        n_steps += 1;
    }
    assert!(n_steps > 8, "many steps: {n_steps}");
}

#[test]
fn what_was_open_at_a_crash_is_deleted_in_steps() {
    let (dir, fs) = create();
    for number in 0..3 {
        let text = format!("f{number}");
        let ino = scattered(&fs, &text, 100);
        // The handles are never closed.
        std::mem::forget(fs.open_handle(ino).unwrap());
        fs.unlink(Ino::ROOT, &name(&text)).unwrap();
    }
    fs.fsync().unwrap();
    let crashed_dir = copy(&dir);
    let crashed = open(&crashed_dir);
    assert_eq!(check(&crashed).0.n_inodes, 4, "opening deletes none of them");
    reap_all(&crashed);
    let (report, problems) = check(&crashed);
    assert_eq!((report.n_inodes, report.n_chunks, problems), (1, 0, vec![]));
    // One that is held is no such orphan.
    let fs = Arc::clone(&crashed);
    let (attr, handle) = fs.create_unnamed(&node(FileKind::Regular)).unwrap();
    reap_all(&fs);
    assert!(fs.getattr(attr.ino).is_ok());
    drop(handle);
    assert!(fs.getattr(attr.ino).is_err());
}

#[test]
fn the_thread_does_it_and_ends() {
    let (_dir, fs) = create();
    let (told, heard) = std::sync::mpsc::channel();
    fs.on_residency_change(Box::new(move |ino| {
        let _ = told.send(ino);
    }));
    let reaper = Reaper::start(fs.core()).unwrap();
    let ino = scattered(&fs, "f", 200);
    fs.truncate(ino, 0).unwrap();
    assert_eq!(fs.resident_bytes(ino).unwrap(), 0, "whatever is still stored");
    assert_eq!(fs.heat(ino).unwrap(), Heat::Hot);
    assert_eq!(heard.recv().unwrap(), ino, "it was settled");
    drop(reaper);
    // Another one goes on where the first was stopped.
    let reaper = Reaper::start(fs.core()).unwrap();
    let other = scattered(&fs, "g", 200);
    fs.truncate(other, 0).unwrap();
    while heard.recv().unwrap() != other {}
    drop(reaper);
    reap_all(&fs);
    assert_eq!(check(&fs).0.n_chunks, 0);
}

/// Holes that are apart leave a mark each, of which there are only so many: then the operation does
/// the work of some itself.
#[test]
fn marks_are_bounded() {
    let (_dir, fs) = create();
    let ino = scattered(&fs, "f", 3000);
    let hole = 70 * u64::from(CHUNK);
    for number in 0..40 {
        fs.punch_hole(ino, 2 * number * hole, 2 * hole - 2 * u64::from(CHUNK)).unwrap();
    }
    assert_eq!(check(&fs).1, Vec::<String>::new());
    let ranges = fs.data_ranges(ino, 0, usize::MAX).unwrap();
    reap_all(&fs);
    assert_eq!(fs.data_ranges(ino, 0, usize::MAX).unwrap(), ranges);
    assert_eq!(check(&fs).1, Vec::<String>::new());
    let bytes: u64 = ranges.iter().map(|range| range.len).sum();
    assert_eq!(fs.resident_bytes(ino).unwrap(), bytes);
}

/// How many rows and deleted rows the store went over, to evict every run of a file that was
/// recalled in pieces.
fn rows_read_to_evict(n_runs: u64) -> u64 {
    let (_dir, fs, archive) = tiered();
    let ino = file(&fs, Ino::ROOT, "f");
    fs.write(ino, 0, &vec![1; to_usize(2 * n_runs * u64::from(CHUNK))]).unwrap();
    archive.keep_and_evict(&fs, ino);
    for number in 0..n_runs {
        fs.read(ino, 2 * number * u64::from(CHUNK), 1).unwrap();
    }
    let extents = fs.resident_of(ino, ChunkNo::new(0), usize::MAX).unwrap();
    assert_eq!(to_u64(extents.len()), n_runs);
    set_perf_stats(PerfStatsLevel::EnableCount);
    let mut perf = PerfContext::default();
    perf.reset();
    for extent in &extents {
        fs.evict_extent(extent).unwrap();
    }
    let metrics = [
        PerfMetric::InternalKeySkippedCount,
        PerfMetric::InternalDeleteSkippedCount,
        PerfMetric::NextOnMemtableCount,
        PerfMetric::PrevOnMemtableCount,
    ];
    let n_rows = metrics.into_iter().map(|metric| perf.metric(metric)).sum();
    set_perf_stats(PerfStatsLevel::Disable);
    assert_eq!(fs.heat(ino).unwrap(), Heat::Cold);
    assert_eq!(fs.warm_inodes(Ino::new(0), 9).unwrap(), []);
    assert_eq!(check(&fs).1, Vec::<String>::new());
    n_rows
}

#[test]
fn evicting_recalled_runs_reads_rows_in_proportion_to_them() {
    let (few, many) = (rows_read_to_evict(300), rows_read_to_evict(2400));
    assert!(few > 0, "they are counted");
    assert!(many < 10 * few, "eight times the runs read {many} rows, not {few}");
}
