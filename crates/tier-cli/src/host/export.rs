//! From a store to the host.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kvfs::Kvfs;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};
use rustix::io::Errno;
use tier_types::{FileAttr, FileKind, Ino, Timestamp, to_u64, to_usize};

use super::{COPY_BYTES, Copied, xattrs};
use crate::exit::{self, DamageFound};
use crate::walk;

/// Blocks of a sparse file that are all zeros stay holes.
const BLOCK_BYTES: usize = 4096;
/// Ranges of data that are asked for at a time.
const N_RANGES: usize = 1024;

/// Copies a tree of the store to a folder that is empty or not there yet.
pub(crate) fn export(
    fs: &Kvfs,
    start: FileAttr,
    dir: &Path,
    progress: &dyn Fn(&Copied) -> Result<()>,
) -> Result<Copied> {
    let is_dir = matches!(start.kind, FileKind::Directory);
    let root = rustix::process::geteuid().is_root();
    if is_dir && dir.exists() && fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some()) {
        bail!("{} is not empty", dir.display());
    }
    let copied = Copied::default();
    let mut export = Export { fs, links: HashMap::new(), copied, progress, root, n_damaged: 0 };
    let mut dirs: Vec<(PathBuf, FileAttr)> = Vec::new();
    walk::tree(fs, start, |relative, attr| {
        let path = match relative {
            b"" => dir.to_path_buf(),
            relative => dir.join(OsStr::from_bytes(relative)),
        };
        let made = export.node(&path, attr);
        let made = made.with_context(|| format!("cannot export to {}", path.display()));
        export.go_on_if_damaged(made)?;
        if matches!(attr.kind, FileKind::Directory) {
            dirs.push((path, attr.clone()));
        }
        Ok(())
    })?;
    // What is put into a folder changes its times, and may need its permissions.
    for (path, attr) in dirs.iter().rev() {
        export.attributes(path, attr)?;
    }
    match export.n_damaged {
        0 => Ok(export.copied),
        n => bail!(DamageFound(format!("{n} files could not be read; all others are exported"))),
    }
}

struct Export<'a> {
    fs: &'a Kvfs,
    links: HashMap<Ino, PathBuf>,
    copied: Copied,
    progress: &'a dyn Fn(&Copied) -> Result<()>,
    /// Who is not root keeps what it can.
    root: bool,
    n_damaged: u64,
}

impl Export<'_> {
    /// One file that cannot be read does not keep the others from coming out.
    fn go_on_if_damaged(&mut self, made: Result<()>) -> Result<()> {
        match made {
            Err(error) if exit::code(&error) == exit::DAMAGED => {
                tracing::error!("{}", exit::message(&error));
                self.n_damaged += 1;
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

    fn node(&mut self, path: &Path, attr: &FileAttr) -> Result<()> {
        self.copied.n_inodes += 1;
        if let FileKind::Directory = attr.kind {
            return match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
                _ => Ok(()),
            };
        }
        if let Some(first) = self.links.get(&attr.ino) {
            return Ok(fs::hard_link(first, path)?);
        }
        let made = self.make(path, attr);
        self.tolerate(made)?;
        if fs::symlink_metadata(path).is_ok() {
            self.attributes(path, attr)?;
            if attr.nlink > 1 {
                self.links.insert(attr.ino, path.to_path_buf());
            }
        }
        (self.progress)(&self.copied)?;
        Ok(())
    }

    fn make(&mut self, path: &Path, attr: &FileAttr) -> Result<()> {
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
    fn content(&mut self, path: &Path, attr: &FileAttr) -> Result<()> {
        let part = path.with_file_name(format!(".tier-export-{}", std::process::id()));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&part)?;
        let copied = self.copy_all(&file, attr);
        let named = copied.and_then(|()| Ok(fs::hard_link(&part, path)?));
        fs::remove_file(&part)?;
        named
    }

    fn copy_all(&mut self, file: &File, attr: &FileAttr) -> Result<()> {
        file.set_len(attr.size_bytes)?;
        let mut ranges = self.fs.data_ranges(attr.ino, 0, N_RANGES)?;
        let sparse = ranges != [(0, attr.size_bytes)];
        while let Some(&(_, last_end)) = ranges.last() {
            for &(start, end) in &ranges {
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
        &mut self,
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
            self.copied.bytes += to_u64(data.len());
            (self.progress)(&self.copied)?;
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
