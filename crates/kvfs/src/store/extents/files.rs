//! Extent files: append-only files that hold the bytes of large chunks.
//!
//! A write goes to the end of the newest file once, and its row into the key-value store after it.
//! Bytes are never changed and no place is used twice, so that a row that refers to a place always
//! means the same bytes, in every KVS snapshot. Space comes back by punching holes; a file of which
//! nothing is left is removed.
//!
//! # Which writes are where
//! A place is *in flight* from the moment when it is given out until its row is committed, or it is
//! given back. Below the **floor**, the smallest place in flight or the end of the newest file if
//! there is none, everything is settled: a row refers to it, or it is free. A sync of the files
//! that begins after the floor was taken makes all rows' bytes below it durable. Opening a store
//! therefore has to look only at what lies at or behind the floor of the last sync. A place whose
//! commit failed is *abandoned*: a row may refer to it or not, which only the key-value store knows
//! when it is opened again.
//!
//! Appends start at multiples of a block, so that the block of a short last chunk can be given back
//! with it. Each process begins a file of its own: what an earlier one left behind the end of its
//! newest file is never continued.

mod failed_sync;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Advice, FallocateFlags};
use tier_types::{ErrorKind, Ino, to_u64, to_usize};

use super::content::{FileExtent, Place};
use crate::FsError;
use crate::error::Damage;

const EXTENSION: &str = "extents";
/// A file that would grow beyond this many bytes is followed by the next one.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// What filesystems give back at a time.
const BLOCK_BYTES: u64 = 4096;
/// Files that are held open beside the newest one.
const N_OPEN_MAX: usize = 64;
/// Unit of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;

/// The extent files of a store.
#[derive(Debug)]
pub(crate) struct ExtentFiles {
    directory: PathBuf,
    /// Multiples of this are where appends start.
    align_bytes: u64,
    state: Mutex<State>,
    /// Held by a sync: what one has taken over is not yet durable for the next.
    syncing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// Bytes that each file takes on the disk, as far as that is known.
    files: BTreeMap<u32, Option<u64>>,
    open: BTreeMap<u32, Arc<File>>,
    /// Where the next append goes.
    end: Place,
    in_flight: BTreeSet<Place>,
    /// Those of them whose commit failed, with their bytes.
    abandoned: BTreeMap<Place, u64>,
    /// Files with bytes that no sync covers.
    dirty: BTreeMap<u32, Arc<File>>,
    /// A file came or went since the directory was synced.
    directory_dirty: bool,
    /// A sync failed: it is not known which bytes are on the disk, and no later sync will tell.
    sync_failed: bool,
}

/// Bytes that were appended and are not settled. Dropped, they are given back.
#[derive(Debug)]
pub(crate) struct Appended {
    files: Arc<ExtentFiles>,
    place: Place,
    len: u64,
    settled: bool,
}

/// Bytes to which rows refer whose commit is under way. Dropped, they are abandoned: it is not
/// known what is in the store, and opening it again looks.
#[derive(Debug)]
pub(crate) struct Committing {
    files: Arc<ExtentFiles>,
    place: Place,
    len: u64,
    settled: bool,
}

impl ExtentFiles {
    /// Finds the files of a directory, which is made if it is not there. A file with a number above
    /// `used` is the first to be made: those up to it may be named by rows even if they are gone.
    pub(crate) fn open(directory: &Path, chunk_bytes: u64, used: u32) -> Result<Self, FsError> {
        fs::create_dir_all(directory).map_err(failed("create the directory of"))?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(failed("list"))? {
            let name = entry.map_err(failed("list"))?.file_name();
            // What is not one of ours is left alone.
            files.extend(name.to_str().and_then(parse_name).map(|number| (number, None)));
        }
        let newest = files.keys().next_back().map_or(used, |newest| used.max(*newest));
        let next = newest.checked_add(1).ok_or_else(|| out_of_numbers(newest))?;
        let state = State {
            files,
            open: BTreeMap::new(),
            end: Place { file: next, offset: 0 },
            in_flight: BTreeSet::new(),
            abandoned: BTreeMap::new(),
            dirty: BTreeMap::new(),
            directory_dirty: false,
            sync_failed: false,
        };
        // Chunks that are no multiple of a block share blocks, which cannot be given back whole.
        let align_bytes = if chunk_bytes.is_multiple_of(BLOCK_BYTES) { BLOCK_BYTES } else { 1 };
        let (directory, state) = (directory.to_path_buf(), Mutex::new(state));
        Ok(Self { directory, align_bytes, state, syncing: Mutex::new(()) })
    }

    /// Appends bytes: one extent, or several that follow each other.
    pub(crate) fn append(self: &Arc<Self>, bytes: &[u8]) -> Result<Appended, FsError> {
        let len = to_u64(bytes.len());
        let (file, place) = self.reserve(len)?;
        let appended = Appended { files: Arc::clone(self), place, len, settled: false };
        file.write_all_at(bytes, place.offset).map_err(failed("write to"))?;
        let mut state = self.state.lock();
        // Only now: a sync that comes before the bytes does not cover them.
        state.dirty.insert(place.file, file);
        state.files.insert(place.file, None);
        drop(state);
        Ok(appended)
    }

    fn reserve(&self, len: u64) -> Result<(Arc<File>, Place), FsError> {
        let mut state = self.state.lock();
        if state.end.offset > 0 && state.end.offset.saturating_add(len) > FILE_BYTES_MAX {
            let newest = state.end.file;
            let file = newest.checked_add(1).ok_or_else(|| out_of_numbers(newest))?;
            state.end = Place { file, offset: 0 };
        }
        let place = state.end;
        let is_new = state.files.insert(place.file, None).is_none();
        let file = if is_new {
            self.create(&mut state, place.file)?
        } else {
            self.file(&mut state, place.file)?
        };
        state.end.offset = self.aligned(place.offset + len);
        assert!(state.in_flight.insert(place), "no place is given out twice");
        Ok((file, place))
    }

    fn create(&self, state: &mut State, number: u32) -> Result<Arc<File>, FsError> {
        let path = self.path(number);
        let created = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = Arc::new(created.map_err(failed("create a file of")).inspect_err(|_| {
            state.files.remove(&number);
        })?);
        state.open.insert(number, Arc::clone(&file));
        state.directory_dirty = true;
        Ok(file)
    }

    /// The error of a chunk whose bytes are not those that were written, which is logged with the
    /// place of the damage.
    pub(in crate::store) fn damaged(&self, ino: Ino, extent: FileExtent) -> FsError {
        let (path, offset) = (self.path(extent.place.file), extent.place.offset);
        tracing::error!(%ino, path = %path.display(), offset, "chunk data is damaged");
        FsError::damaged(ino, Damage::ChunkData)
    }

    /// Fills `out`, which is as long as the extent, and says whether the bytes are those that were
    /// written.
    pub(crate) fn read(&self, extent: FileExtent, out: &mut [u8]) -> Result<bool, FsError> {
        Ok(self.read_at(extent.place, out)? && crc32c::crc32c(out) == extent.checksum)
    }

    /// Fills `out` from a place on. `false` if there is no such file, or it ends before.
    pub(super) fn read_at(&self, place: Place, out: &mut [u8]) -> Result<bool, FsError> {
        let opened = self.file(&mut self.state.lock(), place.file);
        let read = match opened {
            Ok(file) => file.read_exact_at(out, place.offset).map_err(failed("read")),
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => Ok(true),
            Err(FsError::Extents { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The next place at which an append may start.
    pub(crate) fn aligned(&self, offset: u64) -> u64 {
        offset.next_multiple_of(self.align_bytes)
    }

    /// Everything before this place is settled.
    pub(crate) fn floor(&self) -> Place {
        let state = self.state.lock();
        state.in_flight.first().copied().unwrap_or(state.end)
    }

    /// Makes all bytes of rows that are committed by now durable.
    pub(crate) fn sync(&self) -> Result<(), FsError> {
        let _syncing = self.syncing.lock();
        let (dirty, directory_dirty) = {
            let mut state = self.state.lock();
            let directory_dirty = std::mem::take(&mut state.directory_dirty);
            (std::mem::take(&mut state.dirty), directory_dirty)
        };
        self.check()?;
        let sync_directory = || File::open(&self.directory)?.sync_all();
        let files = dirty.values().try_for_each(|file| file.sync_data());
        let synced = files.and_then(|()| if directory_dirty { sync_directory() } else { Ok(()) });
        synced.map_err(|source| {
            self.state.lock().sync_failed = true;
            // Of whatever kind: it is no operation that could be tried again.
            FsError::Extents { operation: "sync", source }
        })
    }

    /// Places of which it is not known whether rows refer to them, with their bytes.
    pub(crate) fn abandoned(&self) -> Vec<(Place, u64)> {
        self.state.lock().abandoned.iter().map(|(place, len)| (*place, *len)).collect()
    }

    /// Now it is known.
    pub(crate) fn resolve(&self, place: Place, is_referred: bool) -> Result<(), FsError> {
        let Some(len) = self.state.lock().abandoned.get(&place).copied() else { return Ok(()) };
        if !is_referred {
            self.punch(place, len)?;
        }
        self.state.lock().abandoned.remove(&place);
        self.settle(place);
        Ok(())
    }

    /// Makes what an earlier process wrote durable, in the files from `first` on, and has the
    /// system forget what it holds of them in memory: what is read from then on is what the disk
    /// has.
    pub(crate) fn sync_earlier(&self, first: u32) -> Result<(), FsError> {
        let numbers: Vec<_> = self.state.lock().files.range(first..).map(|(n, _)| *n).collect();
        for number in numbers {
            let file = self.file(&mut self.state.lock(), number)?;
            file.sync_data().map_err(failed("sync"))?;
            let forgotten = rustix::fs::fadvise(&*file, 0, None, Advice::DontNeed);
            forgotten.map_err(|errno| failed("read")(errno.into()))?;
        }
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("sync the directory of"))
    }

    /// Gives space back. No row refers to it, neither now nor in a KVS snapshot, and a sync has
    /// made that durable.
    pub(crate) fn punch(&self, place: Place, len: u64) -> Result<(), FsError> {
        let mut state = self.state.lock();
        if !state.files.contains_key(&place.file) {
            // It was given back before, and a crash came before that was written down.
            return Ok(());
        }
        let file = self.file(&mut state, place.file)?;
        state.files.insert(place.file, None);
        drop(state);
        // The rest of the last block belongs to nothing else.
        let len = self.aligned(len);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = rustix::fs::fallocate(&*file, flags, place.offset, len);
        punched.map_err(|errno| failed("give space back in")(errno.into()))
    }

    /// Removes the files of which nothing is left, but for the newest: its number must not come
    /// again.
    pub(crate) fn remove_empty(&self) -> Result<(), FsError> {
        let mut state = self.state.lock();
        let newest = state.files.keys().next_back().copied();
        let known = state.files.iter().filter(|(_, bytes)| bytes.is_none_or(|n| n == 0));
        let changed: Vec<_> = known.map(|(n, _)| *n).filter(|n| Some(*n) != newest).collect();
        for number in changed {
            // Measured anew, and with the lock held: nothing is appended meanwhile.
            let is_in_flight = state.in_flight.iter().any(|place| place.file == number);
            let file = self.file(&mut state, number)?;
            let metadata = file.metadata().map_err(failed("measure"))?;
            if !is_in_flight && metadata.blocks() == 0 {
                fs::remove_file(self.path(number)).map_err(failed("remove a file of"))?;
                state.files.remove(&number);
                state.open.remove(&number);
                state.dirty.remove(&number);
                state.directory_dirty = true;
            }
        }
        Ok(())
    }

    /// Bytes that all files take on the disk.
    pub(crate) fn physical_bytes(&self) -> Result<u64, FsError> {
        let numbers: Vec<_> = self.state.lock().files.keys().copied().collect();
        numbers.into_iter().try_fold(0, |sum, number| Ok(sum + self.file_bytes(number)?))
    }

    /// Bytes that a file takes on the disk. Asked of the system only after a change.
    fn file_bytes(&self, number: u32) -> Result<u64, FsError> {
        let mut state = self.state.lock();
        match state.files.get(&number) {
            None => return Ok(0),
            Some(Some(bytes)) => return Ok(*bytes),
            Some(None) => {}
        }
        let metadata = self.file(&mut state, number)?.metadata().map_err(failed("measure"))?;
        let bytes = metadata.blocks() * STAT_BLOCK_BYTES;
        // The newest one changes all the time, and not only here: blocks are given out late.
        if number != state.end.file {
            state.files.insert(number, Some(bytes));
        }
        Ok(bytes)
    }

    /// The files from `first` on, with the length of each.
    pub(crate) fn lengths_from(&self, first: u32) -> Result<Vec<(u32, u64)>, FsError> {
        let mut state = self.state.lock();
        let numbers: Vec<_> = state.files.range(first..).map(|(number, _)| *number).collect();
        let mut lengths = Vec::new();
        for number in numbers {
            let metadata = self.file(&mut state, number)?.metadata().map_err(failed("measure"))?;
            lengths.push((number, metadata.len()));
        }
        Ok(lengths)
    }

    fn file(&self, state: &mut State, number: u32) -> Result<Arc<File>, FsError> {
        if let Some(file) = state.open.get(&number) {
            return Ok(Arc::clone(file));
        }
        if state.open.len() >= N_OPEN_MAX {
            // Any but the newest, which is written to.
            let newest = state.end.file;
            let closes = state.open.keys().copied().find(|number| *number != newest);
            closes.and_then(|number| state.open.remove(&number));
        }
        let opened = OpenOptions::new().read(true).write(true).open(self.path(number));
        let file = Arc::new(opened.map_err(failed("open a file of"))?);
        state.open.insert(number, Arc::clone(&file));
        Ok(file)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number:010}.{EXTENSION}"))
    }

    fn settle(&self, place: Place) {
        let was_in_flight = self.state.lock().in_flight.remove(&place);
        assert!(was_in_flight, "a place is settled once");
    }
}

impl Appended {
    /// The extents of its chunks, each of `chunk_bytes` but the last, which ends where the bytes
    /// do.
    #[expect(clippy::expect_used, reason = "a chunk has at most 1 MiB")]
    pub(crate) fn extents(&self, bytes: &[u8], chunk_bytes: u32) -> Vec<FileExtent> {
        assert_eq!(to_u64(bytes.len()), self.len, "the bytes that were appended");
        let Place { file, offset } = self.place;
        let chunk_bytes = u64::from(chunk_bytes);
        let chunks = (0..).zip(bytes.chunks(to_usize(chunk_bytes)));
        let extents = chunks.map(|(number, chunk): (u64, _)| FileExtent {
            place: Place { file, offset: offset + number * chunk_bytes },
            len: u32::try_from(chunk.len()).expect("a chunk of at most 1 MiB"),
            checksum: crc32c::crc32c(chunk),
        });
        extents.collect()
    }

    /// From now on rows may refer to them.
    pub(crate) fn into_committing(mut self) -> Committing {
        self.settled = true;
        let files = Arc::clone(&self.files);
        Committing { files, place: self.place, len: self.len, settled: false }
    }
}

impl Committing {
    /// Rows do refer to them. Returns where the bytes end.
    pub(crate) fn commit(mut self) -> Place {
        self.settled = true;
        self.files.settle(self.place);
        Place { offset: self.place.offset + self.len, ..self.place }
    }

    /// No row refers to them, and none will: they are given back.
    pub(crate) fn give_back(mut self) {
        self.settled = true;
        let files = Arc::clone(&self.files);
        drop(Appended { files, place: self.place, len: self.len, settled: false });
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.len
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        if !self.settled {
            self.files.state.lock().abandoned.insert(self.place, self.len);
        }
    }
}

impl Drop for Appended {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if let Err(error) = self.files.punch(self.place, self.len) {
            // It stays in flight, and is given back when the store is opened again.
            tracing::debug!(place = ?self.place, %error, "cannot give back what was not committed");
            return;
        }
        self.files.settle(self.place);
    }
}

fn parse_name(name: &str) -> Option<u32> {
    name.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok()
}

fn out_of_numbers(newest: u32) -> FsError {
    let source = io::Error::other(format!("file {newest} has the last possible number"));
    FsError::Extents { operation: "add a file to", source }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> FsError {
    move |source| {
        if ErrorKind::of_io(&source) == ErrorKind::NoSpace {
            FsError::NoSpace("the disk of the store is full")
        } else {
            FsError::Extents { operation, source }
        }
    }
}
