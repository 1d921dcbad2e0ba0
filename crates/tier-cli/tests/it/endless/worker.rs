//! A worker: writes, overwrites, deletes and reads files below a directory of its own, and knows
//! what each must hold.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use super::content::Version;
use crate::random::Random;

/// Bytes that are written and compared at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// Files in a directory.
const N_FILES: u64 = 200;
const HOT_BYTES: u64 = 4 << 20;

/// What all threads know.
#[derive(Default)]
pub(super) struct Shared {
    /// Bytes that are left to be written.
    pub(super) left: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) file_bytes_max: u64,
    pub(super) is_away: AtomicBool,
    pub(super) n_hot_reads: AtomicU64,
    pub(super) has_ended: AtomicBool,
    pub(super) failed: AtomicBool,
}

impl Shared {
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    pub(super) fn is_over(&self) -> bool {
        self.has_failed() || self.left.load(Ordering::SeqCst) == 0
    }

    fn note_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::SeqCst);
        let taken = |left: u64| Some(left.saturating_sub(bytes));
        let _ = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken);
    }
}

/// Says that a thread failed, also if it panicked, so that no other waits for it.
struct Failing<'a>(&'a AtomicBool);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// A range of a file that was written last by one version.
#[derive(Clone, Copy, Debug)]
struct Written {
    version: Version,
    start: u64,
    end: u64,
}

pub(super) struct Worker {
    directory: PathBuf,
    random: Random,
    number: u64,
    n_files: u64,
    /// What each file was written by, in order.
    files: BTreeMap<PathBuf, Vec<Written>>,
}

impl Worker {
    pub(super) fn new(on: &Path, number: u64, seed: u64) -> Self {
        let directory = on.join(format!("worker-{number}"));
        let random = Random::new(seed.wrapping_add(number));
        Self { directory, random, number, n_files: 0, files: BTreeMap::new() }
    }

    /// Works until enough is written.
    pub(super) fn run(mut self, shared: &Shared) -> Self {
        let _failing = Failing(&shared.failed);
        while !shared.is_over() {
            self.make_file(shared);
            if self.random.one_of(6) {
                self.overwrite(shared);
            }
            if self.random.one_of(6) {
                self.remove();
            }
            if self.random.one_of(2) {
                self.compare_one(shared);
            }
        }
        self
    }

    fn make_file(&mut self, shared: &Shared) {
        self.n_files += 1;
        let directory = self.directory.join(format!("{}", self.n_files / N_FILES));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("file-{}", self.n_files));
        let end = match self.random.below(10) {
            0..5 => 1024 + self.random.below(15 << 10),
            5..9 => (16 << 10) + self.random.below(4 << 20),
            _ => (4 << 20) + self.random.below(shared.file_bytes_max - (4 << 20)),
        };
        let version = self.next_version();
        let file = File::create(&path).unwrap();
        let written = Written { version, start: 0, end };
        write(file, written, shared);
        self.files.insert(path, vec![written]);
    }

    fn overwrite(&mut self, shared: &Shared) {
        let Some(path) = self.any() else { return };
        let version = self.next_version();
        let written = self.files.get_mut(&path).unwrap();
        let size = written[0].end;
        let start = self.random.below(size) / 8 * 8;
        let end = size.min(start + 1 + self.random.below(PIECE_BYTES));
        let piece = Written { version, start, end };
        // Part of it may be evicted, and comes back before it is overwritten.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        write(file, piece, shared);
        written.push(piece);
    }

    fn remove(&mut self) {
        if self.files.len() > 20
            && let Some(path) = self.any()
        {
            fs::remove_file(&path).unwrap();
            self.files.remove(&path);
        }
    }

    fn compare_one(&mut self, shared: &Shared) {
        let Some(path) = self.any() else { return };
        match compare(&path, &self.files[&path]) {
            Ok(()) => {}
            // A cold read says so while the cloud is away, and a moment later.
            Err(error) if shared.is_away.load(Ordering::SeqCst) => {
                println!("{}: {error}, while the cloud is away", path.display());
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    pub(super) fn compare_all(&self) {
        for (path, written) in &self.files {
            compare(path, written).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    fn any(&mut self) -> Option<PathBuf> {
        let n_files = u64::try_from(self.files.len()).unwrap();
        if n_files == 0 {
            return None;
        }
        let chosen = usize::try_from(self.random.below(n_files)).unwrap();
        self.files.keys().nth(chosen).cloned()
    }

    fn next_version(&mut self) -> Version {
        Version((self.random.next() << 8) | self.number)
    }
}

/// Writes and closes: that is where the kernel tells what became of the pages that it kept back.
fn write(file: File, written: Written, shared: &Shared) {
    let Written { version, start, end } = written;
    let mut buffer = vec![0; usize::try_from(PIECE_BYTES).unwrap()];
    let mut at = start;
    while at < end {
        let n = usize::try_from(PIECE_BYTES.min(end - at)).unwrap();
        version.fill(at, &mut buffer[..n]);
        file.write_all_at(&buffer[..n], at).unwrap();
        at += u64::try_from(n).unwrap();
        shared.note_written(u64::try_from(n).unwrap());
    }
    nix::unistd::close(file).unwrap();
}

/// Compares a file with what wrote it. An error is of reading it.
fn compare(path: &Path, written: &[Written]) -> io::Result<()> {
    let file = File::open(path)?;
    let size = written[0].end;
    assert_eq!(file.metadata()?.len(), size, "{}", path.display());
    let (mut buffer, mut expected) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < size {
        let n = usize::try_from(PIECE_BYTES.min(size - at)).unwrap();
        buffer.resize(n, 0);
        expected.resize(n, 0);
        file.read_exact_at(&mut buffer, at)?;
        let piece_end = at + u64::try_from(n).unwrap();
        for Written { version, start, end } in written {
            let (from, to) = ((*start).max(at), (*end).min(piece_end));
            if from < to {
                let inside = |place: u64| usize::try_from(place - at).unwrap();
                version.fill(from, &mut expected[inside(from)..inside(to)]);
            }
        }
        assert!(buffer == expected, "{} differs from {at} on", path.display());
        at = piece_end;
    }
    Ok(())
}

/// Reads a file again and again that is always hot, because it is written to again and again.
pub(super) fn read_hot(path: &Path, shared: &Shared) {
    let _failing = Failing(&shared.failed);
    let (_never, timer) = mpsc::channel::<()>();
    let version = Version(1);
    let written = Written { version, start: 0, end: HOT_BYTES };
    write(File::create(path).unwrap(), written, &Shared::default());
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    while !shared.has_ended.load(Ordering::SeqCst) && !shared.has_failed() {
        // From the filesystem and not from the kernel's pages.
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        match compare(path, &[written]) {
            Ok(()) => drop(shared.n_hot_reads.fetch_add(1, Ordering::SeqCst)),
            Err(error) if shared.is_away.load(Ordering::SeqCst) => {
                println!("{}: {error}", path.display());
            }
            Err(error) => panic!("{}: {error}", path.display()),
        }
        let _ = timer.recv_timeout(Duration::from_millis(20));
    }
}
