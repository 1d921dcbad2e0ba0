//! From the host into a store.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kvfs::{FsError, Kvfs, NewNode, SetAttr, XattrMode};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use tier_types::{DeviceNumber, FileAttr, FileKind, FileName, Ino, Timestamp, to_u64, to_usize};

use super::{COPY_BYTES, Copied, xattrs};

/// Copies what is in `dir` into a directory of the store.
pub(crate) fn import(
    fs: &Kvfs,
    dir: &Path,
    into: Ino,
    progress: &dyn Fn(&Copied) -> Result<()>,
) -> Result<Copied> {
    let metadata = fs::metadata(dir);
    let metadata = metadata.with_context(|| format!("cannot look at {}", dir.display()))?;
    if !metadata.is_dir() {
        bail!("{} is not a folder", dir.display());
    }
    let mut import = Import {
        fs,
        links: HashMap::new(),
        copied: Copied::default(),
        progress,
        buffer: vec![0; COPY_BYTES],
    };
    import.tree(dir, into)?;
    Ok(import.copied)
}

struct Import<'a> {
    fs: &'a Kvfs,
    /// Files with several names, by device and inode of the host.
    links: HashMap<(u64, u64), Ino>,
    copied: Copied,
    progress: &'a dyn Fn(&Copied) -> Result<()>,
    buffer: Vec<u8>,
}

/// Work on a stack, so that a deep tree needs no deep recursion.
enum Todo {
    Enter(PathBuf, Ino),
    /// Times and mode of a folder come last: what is put into it changes them.
    Leave(PathBuf, Ino),
}

impl Import<'_> {
    fn tree(&mut self, dir: &Path, into: Ino) -> Result<()> {
        let mut todo = vec![Todo::Enter(dir.to_path_buf(), into)];
        while let Some(next) = todo.pop() {
            match next {
                Todo::Enter(path, ino) => {
                    todo.push(Todo::Leave(path.clone(), ino));
                    for name in names(&path)? {
                        let child = path.join(&name);
                        if let Some(below) = self.entry(&child, &name, ino)? {
                            todo.push(Todo::Enter(child, below));
                        }
                    }
                }
                Todo::Leave(path, ino) => {
                    // The start may be a symbolic link to a folder.
                    let path = path.canonicalize().with_context(|| path.display().to_string())?;
                    self.attributes(&path, ino, &look_at(&path)?)?;
                }
            }
        }
        Ok(())
    }

    /// Copies one entry; a directory's number is returned, so that what is in it follows.
    fn entry(&mut self, path: &Path, name: &OsString, dir: Ino) -> Result<Option<Ino>> {
        let failed = || format!("cannot import {}", path.display());
        let metadata = look_at(path)?;
        let name = FileName::new(name.as_bytes())
            .ok_or_else(|| anyhow!("{} has a name that cannot be", path.display()))?;
        if metadata.is_dir() {
            let attr = self.directory(dir, &name, &metadata).with_context(failed)?;
            return Ok(Some(attr.ino));
        }
        let key = (metadata.dev(), metadata.ino());
        if let Some(&ino) = self.links.get(&key) {
            self.fs.link(ino, dir, &name).with_context(failed)?;
            return Ok(None);
        }
        let node = node(path, &metadata)?;
        let attr = self.fs.create_node(dir, &name, &node).with_context(failed)?;
        if metadata.nlink() > 1 {
            self.links.insert(key, attr.ino);
        }
        if metadata.is_file() {
            self.content(path, attr.ino, metadata.len()).with_context(failed)?;
        }
        self.attributes(path, attr.ino, &metadata).with_context(failed)?;
        self.copied.n_inodes += 1;
        (self.progress)(&self.copied)?;
        Ok(None)
    }

    /// A directory may be there already.
    fn directory(&mut self, dir: Ino, name: &FileName, metadata: &Metadata) -> Result<FileAttr> {
        let node = NewNode { kind: FileKind::Directory, ..owned(metadata) };
        self.copied.n_inodes += 1;
        match self.fs.create_node(dir, name, &node) {
            Err(FsError::Exists) => {
                let attr = self.fs.lookup(dir, name)?;
                if !matches!(attr.kind, FileKind::Directory) {
                    return Err(FsError::Exists.into());
                }
                Ok(attr)
            }
            other => Ok(other?),
        }
    }

    /// Copies data, and leaves out what is a hole.
    fn content(&mut self, path: &Path, ino: Ino, len: u64) -> Result<()> {
        let file = File::open(path)?;
        let mut at = 0;
        while let Some((start, end)) = data_range(&file, at, len)? {
            let mut offset = start;
            while offset < end {
                let n = to_usize((end - offset).min(to_u64(COPY_BYTES)));
                let piece = self.buffer.get_mut(..n).unwrap_or_default();
                let n = file.read_at(piece, offset)?;
                if n == 0 {
                    bail!("it became shorter while it was read");
                }
                self.fs.write(ino, offset, piece.get(..n).unwrap_or_default())?;
                offset += to_u64(n);
                self.copied.bytes += to_u64(n);
                (self.progress)(&self.copied)?;
            }
            at = end;
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
        let time =
            |seconds, nanos: i64| Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0) };
        let set = SetAttr {
            mode: Some(mode(metadata)),
            uid: Some(metadata.uid()),
            gid: Some(metadata.gid()),
            accessed: Some(time(metadata.atime(), metadata.atime_nsec())),
            modified: Some(time(metadata.mtime(), metadata.mtime_nsec())),
            ..SetAttr::default()
        };
        self.fs.setattr(ino, &set)?;
        Ok(())
    }
}

fn look_at(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))
}

/// The names in a folder, sorted, so that two imports of one tree are the same.
fn names(dir: &Path) -> Result<Vec<OsString>> {
    let failed = || format!("cannot list {}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(failed)? {
        names.push(entry.with_context(failed)?.file_name());
    }
    names.sort();
    Ok(names)
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
