//! Files and directories in memory, now and as they were synced.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::time::UNIX_EPOCH;

use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags};

pub(super) const BLOCK_BYTES: u32 = 4096;
pub(super) const ROOT: u64 = 1;

/// Something now, and as it was when it was last synced.
#[derive(Clone, Debug, Default)]
pub(super) struct Synced<T> {
    pub(super) now: T,
    pub(super) durable: T,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    File(Synced<Vec<u8>>),
    Directory(Synced<BTreeMap<OsString, u64>>),
    /// Sockets and the like, which need not come back.
    Other(FileType),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u16,
    /// What of a file was written since it was synced.
    dirty: Range<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Nodes {
    pub(super) nodes: HashMap<u64, Node>,
    next: u64,
}

impl Nodes {
    pub(super) fn new() -> Self {
        let root =
            Node { content: Content::Directory(Synced::default()), mode: 0o755, dirty: 0..0 };
        Self { nodes: HashMap::from([(ROOT, root)]), next: ROOT + 1 }
    }

    pub(super) fn node(&mut self, number: INodeNo) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&number.0).ok_or(Errno::ENOENT)
    }

    pub(super) fn data(
        &mut self,
        number: INodeNo,
    ) -> Result<(&mut Synced<Vec<u8>>, &mut Range<usize>), Errno> {
        match self.node(number)? {
            Node { content: Content::File(data), dirty, .. } => Ok((data, dirty)),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn names(&mut self, number: INodeNo) -> Result<&mut BTreeMap<OsString, u64>, Errno> {
        match self.node(number)? {
            Node { content: Content::Directory(names), .. } => Ok(&mut names.now),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn find(&mut self, directory: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let number = *self.names(directory)?.get(name).ok_or(Errno::ENOENT)?;
        self.attr(INodeNo(number))
    }

    pub(super) fn attr(&mut self, number: INodeNo) -> Result<FileAttr, Errno> {
        let node = self.node(number)?;
        let (kind, size) = match &node.content {
            Content::File(data) => (FileType::RegularFile, data.now.len()),
            Content::Directory(_) => (FileType::Directory, 0),
            Content::Other(kind) => (*kind, 0),
        };
        let size = u64::try_from(size).map_err(|_| Errno::EFBIG)?;
        Ok(FileAttr {
            ino: number,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: node.mode,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: BLOCK_BYTES,
        })
    }

    pub(super) fn make(
        &mut self,
        directory: INodeNo,
        name: &OsStr,
        content: Content,
        mode: u32,
    ) -> Result<FileAttr, Errno> {
        let number = self.next;
        let names = self.names(directory)?;
        if names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        names.insert(name.to_owned(), number);
        self.next += 1;
        let mode = u16::try_from(mode & 0o7777).map_err(|_| Errno::EINVAL)?;
        self.nodes.insert(number, Node { content, mode, dirty: 0..0 });
        self.attr(INodeNo(number))
    }

    /// What has no name any more is kept: it may be open, or it may survive.
    pub(super) fn remove(&mut self, directory: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let number = *self.names(directory)?.get(name).ok_or(Errno::ENOENT)?;
        if let Node { content: Content::Directory(names), .. } = self.node(INodeNo(number))?
            && !names.now.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.names(directory)?.remove(name);
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let number = *self.names(from.0)?.get(from.1).ok_or(Errno::ENOENT)?;
        let taken = self.names(to.0)?.contains_key(to.1);
        match flags {
            flags if flags.is_empty() => {}
            RenameFlags::RENAME_NOREPLACE if !taken => {}
            RenameFlags::RENAME_NOREPLACE => return Err(Errno::EEXIST),
            _ => return Err(Errno::EINVAL),
        }
        self.names(from.0)?.remove(from.1);
        self.names(to.0)?.insert(to.1.to_owned(), number);
        Ok(())
    }

    pub(super) fn resize(&mut self, number: INodeNo, size: u64) -> Result<(), Errno> {
        let size = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        let (data, dirty) = self.data(number)?;
        mark(dirty, data.now.len().min(size)..size);
        data.now.resize(size, 0);
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        number: INodeNo,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u32, Errno> {
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let end = start + bytes.len();
        let (data, dirty) = self.data(number)?;
        let old_len = data.now.len();
        data.now.resize(old_len.max(end), 0);
        data.now[start..end].copy_from_slice(bytes);
        mark(dirty, start.min(old_len)..end);
        u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)
    }

    /// Zeros a range, as far as the file reaches.
    pub(super) fn punch(&mut self, number: INodeNo, offset: u64, len: u64) -> Result<(), Errno> {
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let len = usize::try_from(len).map_err(|_| Errno::EFBIG)?;
        let (data, dirty) = self.data(number)?;
        let end = start.saturating_add(len).min(data.now.len());
        if start < end {
            data.now[start..end].fill(0);
            mark(dirty, start..end);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, number: INodeNo) -> Result<(), Errno> {
        let Node { content, dirty, .. } = self.node(number)?;
        match content {
            Content::File(data) => {
                data.durable.resize(data.now.len(), 0);
                let changed = dirty.start.min(data.now.len())..dirty.end.min(data.now.len());
                data.durable[changed.clone()].copy_from_slice(&data.now[changed]);
                *dirty = 0..0;
            }
            Content::Directory(names) => names.durable.clone_from(&names.now),
            Content::Other(_) => {}
        }
        Ok(())
    }
}

fn mark(dirty: &mut Range<usize>, more: Range<usize>) {
    let nothing = dirty.start == dirty.end;
    *dirty = match nothing {
        true => more,
        false => dirty.start.min(more.start)..dirty.end.max(more.end),
    };
}
