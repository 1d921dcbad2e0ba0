//! File data against an oracle: vectors of bytes, through evictions, recalls and restarts.

use std::sync::Arc;

use kvfs::ops::{Blocking, FilePosition};
use kvfs::{Core, FsError, Kvfs};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;
use tier_testkit::VirtualClock;
use tier_types::{ByteRange, Ino, to_u64, to_usize};

use crate::archive::{MemoryArchive, tiered};
use crate::common::{CHUNK, file, options};

const N_FILES: usize = 2;
const BYTES_MAX: u64 = 5000;

#[derive(Clone, Debug)]
enum Op {
    Write { file: usize, range: ByteRange, byte: u8 },
    Truncate { file: usize, size: u64 },
    Punch { file: usize, range: ByteRange },
    Zero { file: usize, range: ByteRange, keep_size: bool },
    Allocate { file: usize, range: ByteRange },
    Copy { from: (usize, u64), to: (usize, u64), len: u64 },
    Evict(usize),
    Recall(usize),
    Reopen,
}

fn range() -> impl Strategy<Value = ByteRange> {
    let aligned = (0..8_u64, 0..4_u64)
        .prop_map(|(start, len)| (start * u64::from(CHUNK), len * u64::from(CHUNK)));
    prop_oneof![(0..BYTES_MAX, 0..2000_u64), aligned]
        .prop_map(|(offset, len)| ByteRange { offset, len })
}

fn op() -> impl Strategy<Value = Op> {
    let file = 0..N_FILES;
    let place = (0..N_FILES, 0..BYTES_MAX);
    prop_oneof![
        4 => (file.clone(), range(), 1_u8..)
            .prop_map(|(file, range, byte)| Op::Write { file, range, byte }),
        2 => (file.clone(), 0..BYTES_MAX).prop_map(|(file, size)| Op::Truncate { file, size }),
        2 => (file.clone(), range()).prop_map(|(file, range)| Op::Punch { file, range }),
        1 => (file.clone(), range(), any::<bool>())
            .prop_map(|(file, range, keep_size)| Op::Zero { file, range, keep_size }),
        1 => (file.clone(), range()).prop_map(|(file, range)| Op::Allocate { file, range }),
        1 => (place.clone(), place, 0..2000_u64)
            .prop_map(|(from, to, len)| Op::Copy { from, to, len }),
        3 => file.clone().prop_map(Op::Evict),
        1 => file.prop_map(Op::Recall),
        1 => Just(Op::Reopen),
    ]
}

/// Files of the filesystem and what they should hold.
struct Pair {
    dir: TempDir,
    fs: Option<Arc<Kvfs>>,
    archive: Arc<MemoryArchive>,
    n_cases: u32,
}

impl Pair {
    fn fs(&self) -> &Kvfs {
        self.fs.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.fs().fsync().unwrap();
        self.fs = None;
        let clock = Arc::new(VirtualClock::at(1_480_000_000));
        let core = Core::open(self.dir.path(), &options(), clock).unwrap();
        self.fs = Some(Arc::new(Kvfs::new(Arc::new(core), self.archive.clone())));
    }

    fn files(&mut self) -> [Ino; N_FILES] {
        self.n_cases += 1;
        let case = self.n_cases;
        std::array::from_fn(|number| file(self.fs(), Ino::ROOT, &format!("{case}-{number}")))
    }

    /// Does an operation to both.
    fn apply(&mut self, op: &Op, files: &[Ino; N_FILES], model: &mut [Vec<u8>; N_FILES]) {
        let fs = self.fs();
        match op {
            Op::Write { file, range, byte } => {
                let data = vec![*byte; to_usize(range.len)];
                fs.write(files[*file], range.offset, &data).unwrap();
                write(&mut model[*file], range.offset, &data);
            }
            Op::Truncate { file, size } => {
                fs.truncate(files[*file], *size).unwrap();
                model[*file].resize(to_usize(*size), 0);
            }
            Op::Punch { file, range } => {
                fs.punch_hole(files[*file], range.offset, range.len).unwrap();
                zero(&mut model[*file], *range);
            }
            Op::Zero { file, range, keep_size } => {
                fs.zero_range(Blocking::Blocking, files[*file], *range, *keep_size).unwrap();
                zero(&mut model[*file], *range);
                if !keep_size {
                    grow(&mut model[*file], range.end().unwrap());
                }
            }
            Op::Allocate { file, range } => {
                fs.allocate(files[*file], range.offset, range.len).unwrap();
                grow(&mut model[*file], range.end().unwrap());
            }
            Op::Copy { from, to, len } => copy(fs, files, model, *from, *to, *len),
            Op::Evict(file) => drop(self.archive.keep_and_evict(fs, files[*file])),
            Op::Recall(file) => drop(fs.recall_file(files[*file], &false.into()).unwrap()),
            Op::Reopen => self.reopen(),
        }
    }
}

fn copy(
    fs: &Kvfs,
    files: &[Ino; N_FILES],
    model: &mut [Vec<u8>; N_FILES],
    from: (usize, u64),
    to: (usize, u64),
    len: u64,
) {
    let position = |place: (usize, u64)| FilePosition { ino: files[place.0], offset: place.1 };
    let copied = fs.copy_range(Blocking::Blocking, position(from), position(to), len);
    let (a, b) = (ByteRange { offset: from.1, len }, ByteRange { offset: to.1, len });
    if from.0 == to.0 && a.overlaps(b) {
        assert!(matches!(copied, Err(FsError::Invalid(_))));
        return;
    }
    let source = &model[from.0];
    let end = to_usize(from.1 + len).min(source.len());
    let data = source.get(to_usize(from.1)..end).unwrap_or_default().to_vec();
    assert_eq!(copied.unwrap(), to_u64(data.len()));
    write(&mut model[to.0], to.1, &data);
}

fn write(file: &mut Vec<u8>, offset: u64, data: &[u8]) {
    if !data.is_empty() {
        let (start, end) = (to_usize(offset), to_usize(offset) + data.len());
        grow(file, to_u64(end));
        file[start..end].copy_from_slice(data);
    }
}

fn zero(file: &mut [u8], range: ByteRange) {
    let end = to_usize(range.offset + range.len).min(file.len());
    if let Some(bytes) = file.get_mut(to_usize(range.offset)..end) {
        bytes.fill(0);
    }
}

fn grow(file: &mut Vec<u8>, end: u64) {
    file.resize(file.len().max(to_usize(end)), 0);
}

/// A file has the bytes of its model, and holes only where these are zeros.
fn compare(fs: &Kvfs, ino: Ino, model: &[u8]) -> Result<(), TestCaseError> {
    let size = fs.getattr(ino).unwrap().size_bytes;
    prop_assert_eq!(size, to_u64(model.len()));
    let ranges = fs.data_ranges(ino, 0, usize::MAX).unwrap();
    let mut at = 0;
    for range in &ranges {
        prop_assert!(range.len > 0 && range.offset >= at, "{:?}", ranges);
        prop_assert!(at == 0 || range.offset > at, "no two are adjacent: {:?}", ranges);
        prop_assert!(model[to_usize(at)..to_usize(range.offset)].iter().all(|&byte| byte == 0));
        prop_assert_eq!(fs.next_data(ino, at).unwrap(), Some(range.offset));
        at = range.end().unwrap();
        prop_assert_eq!(fs.next_hole(ino, range.offset).unwrap(), Some(at));
    }
    prop_assert!(model[to_usize(at)..].iter().all(|&byte| byte == 0));
    prop_assert_eq!(fs.next_hole(ino, size).unwrap(), None);
    prop_assert_eq!(&fs.read(ino, 0, model.len() + 1).unwrap(), model);
    let (start, end) = (model.len() / 3, model.len() / 2);
    prop_assert_eq!(fs.read(ino, to_u64(start), end - start).unwrap(), &model[start..end]);
    Ok(())
}

#[test]
fn files_are_what_vectors_of_bytes_are() {
    let (dir, fs, archive) = tiered();
    let pair = std::cell::RefCell::new(Pair { dir, fs: Some(fs), archive, n_cases: 0 });
    let mut runner = TestRunner::new(Config { cases: 60, ..Config::default() });
    runner
        .run(&prop::collection::vec(op(), 1..25), |ops| {
            let mut pair = pair.borrow_mut();
            let files = pair.files();
            let mut model: [Vec<u8>; N_FILES] = Default::default();
            for op in &ops {
                pair.apply(op, &files, &mut model);
                // Reading would bring back what the next operation should find evicted.
                for (ino, model) in files.iter().zip(&model) {
                    let size = pair.fs().getattr(*ino).unwrap().size_bytes;
                    prop_assert_eq!(size, to_u64(model.len()));
                }
            }
            let mut problems = Vec::new();
            let archive = Arc::clone(&pair.archive);
            let mut found = |finding| problems.push(finding);
            pair.fs().fsck(archive.as_ref(), &mut found, &false.into()).unwrap();
            prop_assert!(problems.is_empty(), "{:?}", problems);
            for (ino, model) in files.iter().zip(&model) {
                compare(pair.fs(), *ino, model)?;
            }
            Ok(())
        })
        .unwrap();
}
