//! A writer on the mount: random operations on a few files, and what it was promised of them.
//!
//! A writer has a directory and a few names in it. No other writer uses them, so that what is there
//! follows from what this one did. Each operation says what it will change before it is tried, and
//! what became of it after; [`model`](super::model) says what either means for a file.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::model::{BLOCK_BYTES, FileModel, Stamp, content};

const N_NAMES: usize = 8;
const N_BLOCKS_SMALL_MAX: usize = 8;
/// A megabyte: 16 chunks.
const N_BLOCKS_LARGE_MAX: usize = 256;
/// No file grows beyond.
const N_BLOCKS_MAX: usize = 512;

/// Operations of which a failure tells.
const N_NOTES: usize = 60;

/// Numbers that look random, the same for the same seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below another one.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % u64::try_from(end).unwrap()).unwrap()
    }
}

/// How far a writer is, for the thread that waits for it.
#[derive(Default)]
pub(super) struct Progress {
    /// Writes that were acknowledged.
    pub(super) written: AtomicU64,
    /// Other operations that were.
    pub(super) others: AtomicU64,
    /// Operations that a full disk refused.
    pub(super) refused: AtomicU64,
}

impl Progress {
    pub(super) fn n_steps(&self) -> u64 {
        [&self.written, &self.others, &self.refused].map(|n| n.load(Ordering::SeqCst)).iter().sum()
    }
}

/// What writers are told.
#[derive(Default)]
pub(super) struct Signals {
    pub(super) ended: AtomicBool,
    /// The mount is killed: what is under way fails somehow.
    pub(super) killed: AtomicBool,
    /// A writer has panicked.
    pub(super) failed: AtomicBool,
}

/// Says the end when it is dropped, also by a panic.
pub(super) struct End<'a>(pub(super) &'a Signals);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        if thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

type Files = BTreeMap<String, FileModel>;

/// A writer and what is promised to it.
pub(super) struct Writer {
    directory: PathBuf,
    random: Random,
    last_stamp: Stamp,
    files: Files,
    /// The same after the operation that is under way.
    files_after: Option<Files>,
    /// What it did, for a failure to be understood.
    history: VecDeque<String>,
    progress: Arc<Progress>,
}

impl Writer {
    /// A writer in a directory of its own, which is empty.
    pub(super) fn new(number: u64, seed: u64, directory: PathBuf) -> Self {
        Self {
            directory,
            random: Random::new(seed ^ (number + 1)),
            // Stamps of two writers are never the same.
            last_stamp: (number + 1) << 48,
            files: Files::new(),
            files_after: None,
            history: VecDeque::new(),
            progress: Arc::default(),
        }
    }

    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Works until it is told to end. Any error but that of a full disk is a failure.
    pub(super) fn run(&mut self, signals: &Signals) {
        let _end = End(signals);
        while !signals.ended.load(Ordering::SeqCst) {
            let done = self.step(signals);
            let counter = match done {
                Ok(Did::Written) => &self.progress.written,
                Ok(Did::Other) => &self.progress.others,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => &self.progress.refused,
                Err(_) if signals.killed.load(Ordering::SeqCst) => return,
                Err(error) => panic!("{}: {error}", self.directory.display()),
            };
            counter.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Compares what is there with what was promised.
    pub(super) fn check(&self) {
        self.settled();
    }

    /// The same after the filesystem was opened again: what was in doubt is what is there.
    pub(super) fn check_and_settle(&mut self) {
        (self.files, self.files_after) = (self.settled(), None);
    }

    fn settled(&self) -> Files {
        let found = found(&self.directory);
        let settled = settled(&self.files, &found).or_else(|problem| {
            let after = self.files_after.as_ref().ok_or_else(|| problem.clone())?;
            settled(after, &found).map_err(|other| format!("{problem}\nand neither: {other}"))
        });
        settled.unwrap_or_else(|problem| panic!("{}: {problem}", self.directory.display()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}: {:#?}", self.directory.display(), self.history);
        }
    }
}

fn found(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap_or_else(|e| panic!("{entry:?}: {e}"));
        (entry.file_name().into_string().unwrap(), bytes)
    });
    entries.collect()
}

fn settled(files: &Files, found: &BTreeMap<String, Vec<u8>>) -> Result<Files, String> {
    if !files.keys().eq(found.keys()) {
        let (wanted, names) = (files.keys(), found.keys());
        return Err(format!("there are {names:?}, and not {wanted:?}"));
    }
    let one = |(name, file): (&String, &FileModel)| {
        let settled = file.settled(&found[name]).map_err(|problem| format!("{name}: {problem}"))?;
        Ok((name.clone(), settled))
    };
    files.iter().map(one).collect()
}

/// What a step did.
enum Did {
    Written,
    Other,
}

impl Writer {
    fn step(&mut self, signals: &Signals) -> io::Result<Did> {
        let name = format!("file-{}", self.random.below(N_NAMES));
        let is_there = self.files.contains_key(&name);
        let did = match self.random.below(16) {
            0..=4 => self.replace(&name, signals),
            5..=7 if is_there => self.write_over(&name, signals),
            8..=9 if is_there => self.append(&name, signals),
            10..=11 if is_there => self.set_len(&name),
            12 if is_there => self.rename(&name),
            13 if is_there => self.remove(&name),
            14 if is_there => self.sync(&name),
            _ => self.read(&name),
        };
        if let Err(error) = &did {
            self.note(format!("it fails: {error}"));
        }
        did
    }

    fn note(&mut self, what: String) {
        self.history.push_back(what);
        if self.history.len() > N_NOTES {
            self.history.pop_front();
        }
    }

    /// An operation that is done as a whole, or fails and has changed nothing.
    fn whole<T>(
        &mut self,
        change: impl FnOnce(&mut Files),
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut after = self.files.clone();
        change(&mut after);
        self.files_after = Some(after);
        let done = operation();
        match &done {
            Ok(_) => self.files = self.files_after.take().expect("it was set just now"),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => self.files_after = None,
            // The process was killed: either.
            Err(_) => {}
        }
        done
    }

    fn replace(&mut self, name: &str, signals: &Signals) -> io::Result<Did> {
        self.note(format!("replace {name}"));
        let path = self.directory.join(name);
        let empty = |files: &mut Files| drop(files.insert(name.to_string(), FileModel::empty()));
        let file = self.whole(empty, || File::create(path))?;
        let n_blocks = self.some_blocks();
        self.write(name, file, 0..n_blocks, signals)
    }

    fn write_over(&mut self, name: &str, signals: &Signals) -> io::Result<Did> {
        self.note(format!("write over {name}"));
        let end = self.files[name].end();
        let first = self.random.below(end + 1);
        let n_blocks = self.some_blocks().min((end - first).max(1));
        let file = self.open(name)?;
        self.write(name, file, first..first + n_blocks, signals)
    }

    fn append(&mut self, name: &str, signals: &Signals) -> io::Result<Did> {
        self.note(format!("append to {name}"));
        let end = self.files[name].end();
        let n_blocks = self.some_blocks();
        if end + n_blocks > N_BLOCKS_MAX {
            return self.remove(name);
        }
        let file = self.open(name)?;
        self.write(name, file, end..end + n_blocks, signals)
    }

    fn set_len(&mut self, name: &str) -> io::Result<Did> {
        let n_blocks = self.random.below(self.files[name].end() + N_BLOCKS_SMALL_MAX);
        self.note(format!("set the length of {name} to {n_blocks}"));
        let file = self.open(name)?;
        let cut = |files: &mut Files| files.get_mut(name).unwrap().set_len(n_blocks);
        let bytes = u64::try_from(n_blocks * BLOCK_BYTES).unwrap();
        self.whole(cut, || file.set_len(bytes))?;
        nix::unistd::close(file)?;
        Ok(Did::Other)
    }

    fn rename(&mut self, name: &str) -> io::Result<Did> {
        let to = format!("file-{}", self.random.below(N_NAMES));
        self.note(format!("rename {name} to {to}"));
        let (old, new) = (self.directory.join(name), self.directory.join(&to));
        let change = |files: &mut Files| {
            let file = files.remove(name).unwrap();
            files.insert(to, file);
        };
        self.whole(change, || fs::rename(old, new))?;
        Ok(Did::Other)
    }

    fn remove(&mut self, name: &str) -> io::Result<Did> {
        self.note(format!("remove {name}"));
        let path = self.directory.join(name);
        self.whole(|files| drop(files.remove(name)), || fs::remove_file(path))?;
        Ok(Did::Other)
    }

    fn sync(&mut self, name: &str) -> io::Result<Did> {
        self.note(format!("sync {name}"));
        let file = self.open(name)?;
        file.sync_all()?;
        nix::unistd::close(file)?;
        Ok(Did::Other)
    }

    fn read(&mut self, name: &str) -> io::Result<Did> {
        self.note(format!("read {name}"));
        let read = fs::read(self.directory.join(name));
        match (self.files.get(name), read) {
            (Some(file), Ok(bytes)) => match file.settled(&bytes) {
                Ok(_) => Ok(Did::Other),
                Err(problem) => panic!("{name} is read as {problem}"),
            },
            (None, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(Did::Other),
            (None, Ok(_)) => panic!("{name} is there"),
            // A full disk is no reason either.
            (_, Err(error)) => Err(io::Error::other(error)),
        }
    }

    fn model(&mut self, name: &str) -> &mut FileModel {
        self.files.get_mut(name).expect("a file that is there")
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.directory.join(name))
    }

    fn some_blocks(&mut self) -> usize {
        let is_small = self.random.below(3) > 0;
        1 + self.random.below(if is_small { N_BLOCKS_SMALL_MAX } else { N_BLOCKS_LARGE_MAX })
    }

    /// Writes blocks, syncs them every other time, and closes the file: the kernel keeps what is
    /// written and says at the latest then whether it was taken.
    fn write(
        &mut self,
        name: &str,
        file: File,
        range: Range<usize>,
        signals: &Signals,
    ) -> io::Result<Did> {
        self.last_stamp += 1;
        let stamp = self.last_stamp;
        self.note(format!("write {range:?} of {name} as {stamp:x}"));
        self.model(name).may_become(range.clone(), stamp);
        let offset = u64::try_from(range.start * BLOCK_BYTES).unwrap();
        let mut written = file.write_all_at(&content(stamp, range.clone()), offset);
        if self.random.below(2) == 0 {
            self.note("and sync it".to_string());
            written = written.and_then(|()| file.sync_all());
        }
        let closed = nix::unistd::close(file);
        written?;
        closed?;
        // The kernel drops what it has not written when the connection ends, and says nothing at
        // the close of a file: only before the kill is an answer a promise.
        if !signals.killed.load(Ordering::SeqCst) {
            self.model(name).became(range, stamp);
        }
        Ok(Did::Written)
    }
}
