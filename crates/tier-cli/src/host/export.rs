//! From a store to the host: one thread walks, others copy files.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use kvfs::Kvfs;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};
use rustix::io::Errno;
use tier_types::{ByteRange, FileAttr, FileKind, Ino, Timestamp, to_u64, to_usize};

use super::crew::{Crew, with_crew};
use super::{COPY_BYTES, Copied, xattrs};
use crate::exit::{self, DamageFound};
use crate::walk;

/// Blocks of a sparse file that are all zeros stay holes.
const BLOCK_BYTES: usize = 4096;
/// Ranges of data that are asked for at a time.
const N_RANGES: usize = 1024;

/// Files that a thread copies together, and about their bytes at most.
const N_FILES: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;

/// Copies a tree of the store to a folder that is empty or not there yet. One thread walks and makes
/// folders, `n_threads` copy what is in them.
pub(crate) fn export(
    fs: &Kvfs,
    start: FileAttr,
    dir: &Path,
    n_threads: usize,
    progress: &(dyn Fn(&Copied) -> Result<()> + Sync),
) -> Result<Copied> {
    let is_dir = matches!(start.kind, FileKind::Directory);
    let root = rustix::process::geteuid().is_root();
    if is_dir && dir.exists() && fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()) {
        bail!("{} is not empty", dir.display());
    }
    let export = Export {
        fs,
        progress,
        root,
        copied: Mutex::default(),
        n_parts: AtomicU64::new(0),
        n_damaged: AtomicU64::new(0),
    };
    let worker = || |batch| export.copy(&batch);
    let walk = |crew: &Crew<'_, Batch>| export.walk(start.clone(), dir, crew);
    let mut tree = with_crew(n_threads, worker, walk)?;
    if tree.other_names {
        export.link(start, dir, &mut tree.first_names)?;
    }
    // What is put into a folder changes its times, and may need its permissions.
    for (path, attr) in tree.folders.iter().rev() {
        export.attributes(path, attr)?;
    }
    match export.n_damaged.into_inner() {
        0 => Ok(export.copied.into_inner()),
        n => bail!(DamageFound(format!("{n} files could not be read; all others are exported"))),
    }
}

fn place(dir: &Path, relative: &[u8]) -> PathBuf {
    match relative {
        b"" => dir.to_path_buf(),
        relative => dir.join(OsStr::from_bytes(relative)),
    }
}

fn at(path: &Path, made: Result<()>) -> Result<()> {
    made.with_context(|| format!("cannot export to {}", path.display()))
}

/// Files to copy.
type Batch = Vec<(PathBuf, FileAttr)>;

/// What is left to be done when all files are there.
#[derive(Default)]
struct Tree {
    folders: Vec<(PathBuf, FileAttr)>,
    /// Of files with several names.
    first_names: HashMap<Ino, PathBuf>,
    /// Whether there are other names.
    other_names: bool,
}

struct Export<'a> {
    fs: &'a Kvfs,
    copied: Mutex<Copied>,
    progress: &'a (dyn Fn(&Copied) -> Result<()> + Sync),
    /// Who is not root keeps what it can.
    root: bool,
    /// Files that were begun.
    n_parts: AtomicU64,
    n_damaged: AtomicU64,
}

impl Export<'_> {
    /// Makes the folders and hands out what is in them.
    fn walk(&self, start: FileAttr, dir: &Path, crew: &Crew<'_, Batch>) -> Result<Tree> {
        let mut tree = Tree::default();
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        walk::tree(self.fs, start, |relative, attr| {
            crew.check()?;
            let path = place(dir, relative);
            if matches!(attr.kind, FileKind::Directory) {
                at(&path, self.folder(&path))?;
                tree.folders.push((path, attr.clone()));
                return Ok(());
            }
            if attr.nlink > 1 {
                if tree.first_names.contains_key(&attr.ino) {
                    tree.other_names = true;
                    return Ok(());
                }
                tree.first_names.insert(attr.ino, path.clone());
            }
            batch_bytes += attr.size_bytes;
            batch.push((path, attr.clone()));
            if batch.len() >= N_FILES || batch_bytes >= BATCH_BYTES {
                batch_bytes = 0;
                crew.hand_on(std::mem::take(&mut batch))?;
            }
            Ok(())
        })?;
        crew.hand_on(batch)?;
        Ok(tree)
    }

    /// Makes the other names of files whose first ones are there, in a walk of its own: there may be
    /// more of them than fit into memory.
    fn link(
        &self,
        start: FileAttr,
        dir: &Path,
        first_names: &mut HashMap<Ino, PathBuf>,
    ) -> Result<()> {
        walk::tree(self.fs, start, |relative, attr| {
            // It may have to be stopped.
            self.count(0, 0)?;
            let path = place(dir, relative);
            // A folder that is not there was made meanwhile, with what is in it.
            let is_there = path.parent().is_some_and(Path::is_dir);
            let Some(first) = first_names.get(&attr.ino) else { return Ok(()) };
            if !is_there || fs::symlink_metadata(&path).is_ok() {
                return Ok(());
            }
            if fs::symlink_metadata(first).is_ok() {
                at(&path, fs::hard_link(first, &path).map_err(Into::into))?;
            } else {
                // The first one could not be made: this one says again why, or is the first.
                let made = walk::gone_is_fine(at(&path, self.node(&path, attr)));
                self.go_on_if_damaged(made)?;
                first_names.insert(attr.ino, path);
            }
            self.count(1, 0)
        })
    }

    fn copy(&self, batch: &Batch) -> Result<()> {
        for (path, attr) in batch {
            let made = walk::gone_is_fine(at(path, self.node(path, attr)));
            self.go_on_if_damaged(made)?;
            self.count(1, 0)?;
        }
        Ok(())
    }

    fn count(&self, n_inodes: u64, bytes: u64) -> Result<()> {
        let copied = {
            let mut copied = self.copied.lock();
            copied.n_inodes += n_inodes;
            copied.bytes += bytes;
            *copied
        };
        (self.progress)(&copied)
    }

    /// One file that cannot be read does not keep the others from coming out.
    fn go_on_if_damaged(&self, made: Result<()>) -> Result<()> {
        match made {
            Err(error) if exit::code(&error) == exit::DAMAGED => {
                tracing::error!("{}", exit::message(&error));
                self.n_damaged.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    }

    /// What only root may do is left undone by others, and said.
    fn tolerate(&self, done: Result<()>) -> Result<()> {
        let denied = |error: &anyhow::Error| {
            let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
            let errno = error.chain().find_map(|cause| cause.downcast_ref::<Errno>().copied());
            io.is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied)
                || matches!(errno, Some(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP))
        };
        match done {
            Err(error) if !self.root && denied(&error) => {
                tracing::warn!("{}", exit::message(&error));
                Ok(())
            }
            other => other,
        }
    }

    fn folder(&self, path: &Path) -> Result<()> {
        self.count(1, 0)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn node(&self, path: &Path, attr: &FileAttr) -> Result<()> {
        self.tolerate(self.make(path, attr))?;
        if fs::symlink_metadata(path).is_ok() { self.attributes(path, attr) } else { Ok(()) }
    }

    fn make(&self, path: &Path, attr: &FileAttr) -> Result<()> {
        let special = |kind, device| -> Result<()> {
            let c_path = CString::new(path.as_os_str().as_bytes())?;
            Ok(mknodat(CWD, &c_path, kind, Mode::from_raw_mode(0o600), device)?)
        };
        match &attr.kind {
            FileKind::Regular => self.content(path, attr),
            FileKind::Directory => Ok(()),
            FileKind::Symlink(target) => Ok(symlink(OsStr::from_bytes(target), path)?),
            FileKind::Fifo => special(FileType::Fifo, 0),
            FileKind::Socket => special(FileType::Socket, 0),
            FileKind::CharDevice(d) => {
                special(FileType::CharacterDevice, rustix::fs::makedev(d.major, d.minor))
            }
            FileKind::BlockDevice(d) => {
                special(FileType::BlockDevice, rustix::fs::makedev(d.major, d.minor))
            }
        }
    }

    /// The file gets its name when all of it is there: nobody takes a part of it for the whole.
    fn content(&self, path: &Path, attr: &FileAttr) -> Result<()> {
        let number = self.n_parts.fetch_add(1, Ordering::Relaxed);
        let part = format!(".tier-export-{}-{number}", std::process::id());
        let part = path.with_file_name(part);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&part)?;
        let copied = self.copy_all(&file, attr);
        let named = copied.and_then(|()| Ok(fs::hard_link(&part, path)?));
        fs::remove_file(&part)?;
        named
    }

    fn copy_all(&self, file: &File, attr: &FileAttr) -> Result<()> {
        file.set_len(attr.size_bytes)?;
        let mut ranges = self.fs.data_ranges(attr.ino, 0, N_RANGES)?;
        let sparse = ranges != [ByteRange { offset: 0, len: attr.size_bytes }];
        while let Some(last) = ranges.last() {
            let last_end = last.offset + last.len;
            for range in &ranges {
                let (start, end) = (range.offset, range.offset + range.len);
                self.copy_range(file, attr.ino, (start, end), sparse)?;
            }
            ranges = match ranges.len() < N_RANGES {
                true => Vec::new(),
                false => self.fs.data_ranges(attr.ino, last_end, N_RANGES)?,
            };
        }
        Ok(())
    }

    fn copy_range(
        &self,
        file: &File,
        ino: Ino,
        (mut at, end): (u64, u64),
        sparse: bool,
    ) -> Result<()> {
        while at < end {
            let n = to_usize((end - at).min(to_u64(COPY_BYTES)));
            let data = self.fs.read(ino, at, n)?;
            if data.is_empty() {
                bail!("it became shorter while it was read");
            }
            if sparse {
                write_blocks(file, &data, at)?;
            } else {
                file.write_all_at(&data, at)?;
            }
            at += to_u64(data.len());
            self.count(0, to_u64(data.len()))?;
        }
        Ok(())
    }

    fn attributes(&self, path: &Path, attr: &FileAttr) -> Result<()> {
        let owned = lchown(path, Some(attr.uid), Some(attr.gid))
            .with_context(|| format!("cannot set the owner of {}", path.display()));
        self.tolerate(owned)?;
        for name in self.fs.listxattr(attr.ino)? {
            self.tolerate(xattrs::write(path, &name, &self.fs.getxattr(attr.ino, &name)?))?;
        }
        if !matches!(attr.kind, FileKind::Symlink(_)) {
            let mode = Permissions::from_mode(u32::from(attr.mode));
            fs::set_permissions(path, mode)
                .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        }
        let time = |time: Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
        let times =
            Timestamps { last_access: time(attr.accessed), last_modification: time(attr.modified) };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("cannot set the times of {}", path.display()))
    }
}

/// Writes runs of blocks that are not all zeros.
fn write_blocks(file: &File, data: &[u8], offset: u64) -> Result<()> {
    let mut at = offset;
    let is_zero = |block: &[u8]| block.iter().all(|&byte| byte == 0);
    for run in
        data.chunks(BLOCK_BYTES).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b))
    {
        let len: usize = run.iter().map(|block| block.len()).sum();
        if run.first().is_some_and(|block| !is_zero(block)) {
            file.write_all_at(&run.concat(), at)?;
        }
        at += to_u64(len);
    }
    Ok(())
}
