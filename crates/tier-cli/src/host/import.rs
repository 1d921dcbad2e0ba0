//! From the host into a store: one thread walks, others copy files.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use kvfs::{EntryRef, FsError, Kvfs, NewFile, NewNode, RenameMode, SetAttr, XattrMode};
use parking_lot::Mutex;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use tier_types::{
    DeviceNumber, FileAttr, FileKind, FileName, Ino, Timestamp, Xattr, to_u64, to_usize,
};

use super::crew::{Crew, with_crew};
use super::{COPY_BYTES, Copied, xattrs};

/// Files of one folder that a thread copies together: threads that make names in one folder wait for
/// each other.
const N_FILES: usize = 256;

/// What an import is given besides the trees.
pub(crate) struct Importing<'a> {
    /// Threads that copy files; with one, two imports of one tree are the same.
    pub(crate) n_threads: usize,
    /// Told how far it has got; its error ends the import.
    pub(crate) progress: &'a (dyn Fn(&Copied) -> Result<()> + Sync),
    /// Told of each name that was made or whose file was changed.
    pub(crate) touched: &'a (dyn Fn(Ino, &FileName) + Sync),
    /// Told of each folder whose attributes were set.
    pub(crate) changed: &'a (dyn Fn(Ino) + Sync),
}

/// Copies what is in `dir` into a directory of the store. What an earlier import brought, by size
/// and time of change, is not copied again.
pub(crate) fn import(
    fs: &Kvfs,
    dir: &Path,
    into: Ino,
    importing: &Importing<'_>,
) -> Result<Copied> {
    let metadata = fs::metadata(dir);
    let metadata = metadata.with_context(|| format!("cannot look at {}", dir.display()))?;
    if !metadata.is_dir() {
        bail!("{} is not a folder", dir.display());
    }
    let import = Import { fs, importing, links: Mutex::default(), copied: Mutex::default() };
    // The start may be a symbolic link to a folder.
    let dir = dir.canonicalize().with_context(|| format!("cannot look at {}", dir.display()))?;
    let start = Folder { path: dir, ino: into, above: None };
    let worker = || {
        let mut buffer = vec![0; COPY_BYTES];
        let import = &import;
        move |job| import.copy(job, &mut buffer)
    };
    if importing.n_threads > 1 {
        let walk = |crew: &Crew<'_, Job>| import.walk(start, &mut |job| crew.hand_on(job));
        with_crew(importing.n_threads, worker, walk)?;
    } else {
        import.walk(start, &mut worker())?;
    }
    Ok(*import.copied.lock())
}

struct Import<'a> {
    fs: &'a Kvfs,
    importing: &'a Importing<'a>,
    /// Files with several names, by device and inode of the host.
    links: Mutex<HashMap<(u64, u64), Ino>>,
    copied: Mutex<Copied>,
}

/// A folder that is being copied. Its times and mode come last, when nobody holds it any more: what
/// is put into it changes them.
struct Folder {
    path: PathBuf,
    ino: Ino,
    above: Option<Arc<Folder>>,
}

/// Names in a folder that are not of folders.
struct Job {
    folder: Arc<Folder>,
    names: Vec<FileName>,
}

impl Folder {
    fn path(&self, name: &FileName) -> PathBuf {
        self.path.join(OsStr::from_bytes(name.as_bytes()))
    }
}

impl Import<'_> {
    /// Makes folders, and hands on what is in them.
    fn walk(&self, start: Folder, hand_on: &mut dyn FnMut(Job) -> Result<()>) -> Result<()> {
        let mut todo = vec![Arc::new(start)];
        while let Some(folder) = todo.pop() {
            let mut below = Vec::new();
            let mut job = Job { folder: Arc::clone(&folder), names: Vec::new() };
            for (name, is_folder) in entries(&folder.path)? {
                if is_folder {
                    below.push(Arc::new(self.folder(&folder, &name)?));
                } else {
                    job.names.push(name);
                }
                if job.names.len() >= N_FILES {
                    let folder = Arc::clone(&folder);
                    hand_on(std::mem::replace(&mut job, Job { folder, names: Vec::new() }))?;
                }
            }
            hand_on(job)?;
            todo.extend(below.into_iter().rev());
            self.leave(folder)?;
        }
        Ok(())
    }

    fn copy(&self, job: Job, buffer: &mut [u8]) -> Result<()> {
        let Job { folder, names } = job;
        for name in &names {
            let path = folder.path(name);
            let copied = self.node(folder.ino, (&path, name), buffer);
            copied.with_context(|| format!("cannot import {}", path.display()))?;
        }
        self.leave(folder)
    }

    /// Lets go of a folder; whoever does so last finishes it, and those above that he was the last
    /// to hold.
    fn leave(&self, folder: Arc<Folder>) -> Result<()> {
        let mut leaving = Some(folder);
        while let Some(folder) = leaving.take().and_then(Arc::into_inner) {
            let Folder { path, ino, above } = folder;
            let finished =
                look_at(&path).and_then(|metadata| self.attributes(&path, ino, &metadata));
            finished.with_context(|| format!("cannot import {}", path.display()))?;
            (self.importing.changed)(ino);
            leaving = above;
        }
        Ok(())
    }

    /// A directory may be there already.
    fn folder(&self, above: &Arc<Folder>, name: &FileName) -> Result<Folder> {
        let path = above.path(name);
        let failed = || format!("cannot import {}", path.display());
        let node = NewNode { kind: FileKind::Directory, ..owned(&look_at(&path)?) };
        let attr = match self.fs.create_node(above.ino, name, &node) {
            Err(FsError::Exists) => self.fs.lookup(above.ino, name),
            made => made,
        };
        let attr = attr.with_context(failed)?;
        if !matches!(attr.kind, FileKind::Directory) {
            return Err(FsError::Exists).with_context(failed);
        }
        self.done(above.ino, name, 0)?;
        Ok(Folder { path, ino: attr.ino, above: Some(Arc::clone(above)) })
    }

    /// Anything but a directory.
    fn node(&self, dir: Ino, (path, name): (&Path, &FileName), buffer: &mut [u8]) -> Result<()> {
        let metadata = &look_at(path)?;
        let key = (metadata.dev(), metadata.ino());
        let before = match self.fs.lookup(dir, name) {
            Err(FsError::NotFound) => None,
            found => Some(found?),
        };
        // Whoever meets a file of several names first makes it; the others wait for its number.
        let mut links = (metadata.nlink() > 1).then(|| self.links.lock());
        let first = links.as_ref().and_then(|links| links.get(&key).copied());
        let node = node(path, metadata)?;
        let there = match (&before, first) {
            (Some(before), Some(first)) => before.ino == first,
            (Some(before), None) => is_same(before, &node, metadata),
            (None, _) => false,
        };
        if there {
            if let (Some(before), Some(links)) = (before, &mut links) {
                links.insert(key, before.ino);
            }
            return self.done(dir, name, 0);
        }
        let place = Place::new(self.fs, dir, name, before)?;
        if let Some(first) = first {
            self.fs.link(first, dir, &place.name)?;
            place.take()?;
            return self.done(dir, name, 0);
        }
        let file = metadata.is_file().then(|| File::open(path)).transpose()?;
        let content = file.as_ref().map_or(Ok(Vec::new()), |file| start(file, metadata, buffer))?;
        let (at, len) = (to_u64(content.len()), file.as_ref().map_or(0, |_| metadata.len()));
        let (accessed, modified) = times(metadata);
        let xattr = |(name, value)| Xattr { name, value };
        let xattrs = xattrs::read(path)?.into_iter().map(xattr).collect();
        let new = NewFile { node, accessed, modified, xattrs, content };
        let ino = self.fs.create_file(dir, &place.name, new)?.ino;
        if let Some(links) = &mut links {
            links.insert(key, ino);
        }
        drop(links);
        if let Some(file) = file.filter(|_| at < len) {
            self.rest(&file, ino, (at, len), buffer)?;
            self.attributes(path, ino, metadata)?;
        }
        place.take()?;
        self.done(dir, name, len)
    }

    /// Copies data from an offset on, and leaves out what is a hole.
    fn rest(
        &self,
        file: &File,
        ino: Ino,
        (mut at, len): (u64, u64),
        buffer: &mut [u8],
    ) -> Result<()> {
        while let Some((start, end)) = data_range(file, at, len)? {
            let mut offset = start;
            while offset < end {
                let n = to_usize((end - offset).min(to_u64(buffer.len())));
                let piece = buffer.get_mut(..n).unwrap_or_default();
                let n = file.read_at(piece, offset)?;
                if n == 0 {
                    bail!("it became shorter while it was read");
                }
                self.fs.write(ino, offset, piece.get(..n).unwrap_or_default())?;
                offset += to_u64(n);
                (self.importing.progress)(&self.copied.lock())?;
            }
            at = end;
        }
        if file.metadata()?.len() < len {
            bail!("it became shorter while it was read");
        }
        if at < len {
            self.fs.truncate(ino, len)?;
        }
        Ok(())
    }

    fn attributes(&self, path: &Path, ino: Ino, metadata: &Metadata) -> Result<()> {
        for (name, value) in xattrs::read(path)? {
            self.fs.setxattr(ino, &name, &value, XattrMode::Set)?;
        }
        let (accessed, modified) = times(metadata);
        let set = SetAttr {
            mode: Some(mode(metadata)),
            uid: Some(metadata.uid()),
            gid: Some(metadata.gid()),
            accessed: Some(accessed),
            modified: Some(modified),
            ..SetAttr::default()
        };
        self.fs.setattr(ino, &set)?;
        Ok(())
    }

    fn done(&self, dir: Ino, name: &FileName, bytes: u64) -> Result<()> {
        (self.importing.touched)(dir, name);
        let mut copied = self.copied.lock();
        copied.n_inodes += 1;
        copied.bytes += bytes;
        (self.importing.progress)(&copied)
    }
}

/// Whether an earlier import brought this, as far as size and time of change tell.
fn is_same(before: &FileAttr, node: &NewNode, metadata: &Metadata) -> bool {
    let (_, modified) = times(metadata);
    let same_size = before.size_bytes == metadata.len() || !metadata.is_file();
    before.kind == node.kind && same_size && before.modified == modified
}

/// Where a file is made: under its name; or, if another one has that, under a temporary one until it
/// is complete. Whoever has the old one open keeps it, and other names of it stay what they are.
struct Place<'a> {
    fs: &'a Kvfs,
    dir: Ino,
    name: FileName,
    /// The name that it gets in the end.
    wanted: Option<&'a FileName>,
}

impl<'a> Place<'a> {
    fn new(
        fs: &'a Kvfs,
        dir: Ino,
        name: &'a FileName,
        before: Option<FileAttr>,
    ) -> Result<Self, FsError> {
        let Some(before) = before else {
            return Ok(Self { fs, dir, name: name.clone(), wanted: None });
        };
        if matches!(before.kind, FileKind::Directory) {
            return Err(FsError::IsDirectory);
        }
        let temporary = FileName::new(format!(".tier-import-{}", before.ino).as_bytes());
        let temporary = temporary.ok_or(FsError::Invalid("a temporary name"))?;
        match fs.unlink(dir, &temporary) {
            // What an import left that was killed.
            Ok(()) | Err(FsError::NotFound) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { fs, dir, name: temporary, wanted: Some(name) })
    }

    /// Gives the file its name.
    fn take(mut self) -> Result<(), FsError> {
        let Some(wanted) = self.wanted.take() else { return Ok(()) };
        let (from, to) = (EntryRef::new(self.dir, &self.name), EntryRef::new(self.dir, wanted));
        let renamed = self.fs.rename(from, to, RenameMode::Replace);
        self.wanted = renamed.is_err().then_some(wanted);
        renamed
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.wanted.is_some() {
            // It was not completed; if it stays all the same, the next import removes it.
            let _ = self.fs.unlink(self.dir, &self.name);
        }
    }
}

/// The data at the start of a file, as far as it fits; a file with holes may have none there.
fn start(file: &File, metadata: &Metadata, buffer: &mut [u8]) -> Result<Vec<u8>> {
    let Some((0, end)) = data_range(file, 0, metadata.len())? else { return Ok(Vec::new()) };
    let n = to_usize(end.min(to_u64(buffer.len())));
    let piece = buffer.get_mut(..n).unwrap_or_default();
    let n = file.read_at(piece, 0)?;
    Ok(piece.get(..n).unwrap_or_default().to_vec())
}

fn times(metadata: &Metadata) -> (Timestamp, Timestamp) {
    let time =
        |seconds, nanos: i64| Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0) };
    (time(metadata.atime(), metadata.atime_nsec()), time(metadata.mtime(), metadata.mtime_nsec()))
}

fn look_at(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))
}

/// The names in a folder, sorted, and which are of folders.
fn entries(dir: &Path) -> Result<Vec<(FileName, bool)>> {
    let failed = || format!("cannot list {}", dir.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let name = FileName::new(entry.file_name().as_bytes())
            .ok_or_else(|| anyhow!("{} has a name that cannot be", entry.path().display()))?;
        entries.push((name, entry.file_type().with_context(failed)?.is_dir()));
    }
    entries.sort();
    Ok(entries)
}

fn mode(metadata: &Metadata) -> u16 {
    u16::try_from(metadata.mode() & 0o7777).unwrap_or(0)
}

fn owned(metadata: &Metadata) -> NewNode {
    NewNode {
        kind: FileKind::Regular,
        mode: mode(metadata),
        uid: metadata.uid(),
        gid: metadata.gid(),
        inherit: None,
    }
}
fn node(path: &Path, metadata: &Metadata) -> Result<NewNode> {
    let kind = metadata.file_type();
    let device = || DeviceNumber {
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
    };
    let kind = if kind.is_file() {
        FileKind::Regular
    } else if kind.is_symlink() {
        let target = fs::read_link(path);
        let target = target.with_context(|| format!("cannot read {}", path.display()))?;
        FileKind::Symlink(target.into_os_string().into_vec())
    } else if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else if kind.is_char_device() {
        FileKind::CharDevice(device())
    } else if kind.is_block_device() {
        FileKind::BlockDevice(device())
    } else {
        bail!("{} is of a kind that is not known", path.display());
    };
    Ok(NewNode { kind, ..owned(metadata) })
}

/// The next range of a file that is not a hole.
fn data_range(file: &File, from: u64, len: u64) -> Result<Option<(u64, u64)>> {
    if from >= len {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A filesystem that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((from, len))),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(len);
    Ok((start < end).then_some((start, end)))
}
