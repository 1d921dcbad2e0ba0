//! Files and directories in memory, now and as they were synced.
//!
//! A file without a name takes room as long as the kernel knows it, because it may be open. After
//! that it is kept as long as a loss of power can bring a name of it back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::time::UNIX_EPOCH;

use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags};
use tier_types::{to_u64, to_usize};

use super::blocks::BLOCK_BYTES;
use super::faults::{FailedSync, Faults};
use super::file::SyncedFile;

pub(super) const ROOT: u64 = 1;
/// What `st_blocks` counts in a block.
const STAT_BLOCKS: u64 = BLOCK_BYTES / 512;

pub(super) type Names = BTreeMap<OsString, u64>;

#[derive(Clone, Debug)]
pub(super) enum Content {
    File(SyncedFile),
    Directory {
        now: Names,
        durable: Names,
    },
    /// Sockets and the like, which need not come back.
    Other(FileType),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u16,
    /// In directories as they are now.
    pub(super) n_names: u32,
    /// How often the kernel was told of it and has not forgotten it.
    n_lookups: u64,
}

/// A name in a directory.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) directory: INodeNo,
    pub(super) name: &'a OsStr,
}

#[derive(Clone, Debug)]
pub(super) struct Nodes {
    by_number: HashMap<u64, Node>,
    next: u64,
    /// Blocks of all files that have a name or a user.
    n_used_blocks: u64,
    pub(super) faults: Faults,
}

impl Content {
    pub(super) fn directory(names: Names) -> Self {
        Self::Directory { durable: names.clone(), now: names }
    }

    fn n_blocks(&self) -> u64 {
        match self {
            Self::File(file) => file.now().n_blocks(),
            Self::Directory { .. } | Self::Other(_) => 0,
        }
    }
}

impl Node {
    pub(super) fn new(content: Content, mode: u16) -> Self {
        Self { content, mode, n_names: 1, n_lookups: 0 }
    }
}

impl Nodes {
    /// An empty disk.
    pub(super) fn new(capacity_bytes: u64) -> Self {
        let root = Node::new(Content::directory(Names::new()), 0o755);
        Self::of(HashMap::from([(ROOT, root)]), ROOT + 1, Faults::none(capacity_bytes))
    }

    /// A disk with these nodes, whose numbers are all below `next`.
    pub(super) fn of(nodes: HashMap<u64, Node>, next: u64, faults: Faults) -> Self {
        let n_used_blocks = nodes.values().map(|node| node.content.n_blocks()).sum();
        Self { by_number: nodes, next, n_used_blocks, faults }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn get(&self, number: u64) -> Option<&Node> {
        self.by_number.get(&number)
    }

    pub(super) fn node(&mut self, number: INodeNo) -> Result<&mut Node, Errno> {
        self.by_number.get_mut(&number.0).ok_or(Errno::ENOENT)
    }

    pub(super) fn n_used_blocks(&self) -> u64 {
        self.n_used_blocks
    }

    pub(super) fn n_free_blocks(&self) -> u64 {
        self.faults.n_free_blocks(self.n_used_blocks)
    }

    pub(super) fn names(&mut self, number: INodeNo) -> Result<&mut Names, Errno> {
        match self.node(number)? {
            Node { content: Content::Directory { now, .. }, .. } => Ok(now),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn number(&mut self, entry: Entry<'_>) -> Result<u64, Errno> {
        self.names(entry.directory)?.get(entry.name).copied().ok_or(Errno::ENOENT)
    }

    /// Tells the kernel of a node, which counts.
    pub(super) fn find(&mut self, entry: Entry<'_>) -> Result<FileAttr, Errno> {
        let number = INodeNo(self.number(entry)?);
        self.node(number)?.n_lookups += 1;
        self.attr(number)
    }

    pub(super) fn forget(&mut self, number: INodeNo, n_lookups: u64) {
        if let Ok(node) = self.node(number) {
            node.n_lookups = node.n_lookups.saturating_sub(n_lookups);
            self.let_go_if_unused(number.0);
        }
    }

    pub(super) fn attr(&mut self, number: INodeNo) -> Result<FileAttr, Errno> {
        let node = self.node(number)?;
        let (kind, size) = match &node.content {
            Content::File(file) => (FileType::RegularFile, file.now().len()),
            Content::Directory { .. } => (FileType::Directory, 0),
            Content::Other(kind) => (*kind, 0),
        };
        Ok(FileAttr {
            ino: number,
            size,
            blocks: node.content.n_blocks() * STAT_BLOCKS,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: node.mode,
            nlink: node.n_names,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: u32::try_from(BLOCK_BYTES).unwrap(),
        })
    }

    pub(super) fn make(
        &mut self,
        entry: Entry<'_>,
        content: Content,
        mode: u32,
    ) -> Result<FileAttr, Errno> {
        let number = self.next;
        let names = self.names(entry.directory)?;
        if names.contains_key(entry.name) {
            return Err(Errno::EEXIST);
        }
        names.insert(entry.name.to_owned(), number);
        self.next += 1;
        let mode = u16::try_from(mode & 0o7777).map_err(|_| Errno::EINVAL)?;
        self.by_number.insert(number, Node::new(content, mode));
        self.find(entry)
    }

    /// Gives a file one more name.
    pub(super) fn link(&mut self, number: INodeNo, entry: Entry<'_>) -> Result<FileAttr, Errno> {
        self.file(number)?;
        let names = self.names(entry.directory)?;
        if names.contains_key(entry.name) {
            return Err(Errno::EEXIST);
        }
        names.insert(entry.name.to_owned(), number.0);
        self.node(number)?.n_names += 1;
        self.find(entry)
    }

    pub(super) fn remove(&mut self, entry: Entry<'_>) -> Result<(), Errno> {
        let number = self.number(entry)?;
        if let Content::Directory { now, .. } = &self.node(INodeNo(number))?.content
            && !now.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.names(entry.directory)?.remove(entry.name);
        self.lose_name(number)
    }

    pub(super) fn rename(
        &mut self,
        from: Entry<'_>,
        to: Entry<'_>,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let number = self.number(from)?;
        let taken = self.names(to.directory)?.contains_key(to.name);
        match flags {
            flags if flags.is_empty() => {}
            RenameFlags::RENAME_NOREPLACE if !taken => {}
            RenameFlags::RENAME_NOREPLACE => return Err(Errno::EEXIST),
            _ => return Err(Errno::EINVAL),
        }
        self.names(from.directory)?.remove(from.name);
        match self.names(to.directory)?.insert(to.name.to_owned(), number) {
            Some(replaced) if replaced != number => self.lose_name(replaced),
            _ => Ok(()),
        }
    }

    fn lose_name(&mut self, number: u64) -> Result<(), Errno> {
        self.node(INodeNo(number))?.n_names -= 1;
        self.let_go_if_unused(number);
        Ok(())
    }

    fn let_go_if_unused(&mut self, number: u64) {
        let Some(node) = self.by_number.get_mut(&number) else { return };
        if node.n_names > 0 || node.n_lookups > 0 {
            return;
        }
        self.n_used_blocks -= node.content.n_blocks();
        if let Content::File(file) = &mut node.content {
            file.let_go();
        }
    }

    /// Changes a file; what it takes on the disk changes with it.
    fn change<T>(
        &mut self,
        number: INodeNo,
        change: impl FnOnce(&mut SyncedFile) -> T,
    ) -> Result<T, Errno> {
        let Content::File(file) = &mut self.node(number)?.content else {
            return Err(Errno::EINVAL);
        };
        let n_before = file.now().n_blocks();
        let changed = change(file);
        let n_after = file.now().n_blocks();
        self.n_used_blocks = self.n_used_blocks + n_after - n_before;
        Ok(changed)
    }

    pub(super) fn file(&mut self, number: INodeNo) -> Result<&SyncedFile, Errno> {
        match &self.node(number)?.content {
            Content::File(file) => Ok(file),
            Content::Directory { .. } | Content::Other(_) => Err(Errno::EINVAL),
        }
    }

    pub(super) fn resize(&mut self, number: INodeNo, len: u64) -> Result<(), Errno> {
        self.change(number, |file| file.resize(len))
    }

    /// Writes as many bytes as there is room for.
    pub(super) fn write(
        &mut self,
        number: INodeNo,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u32, Errno> {
        let n_free_blocks = self.n_free_blocks();
        let range = offset..offset + to_u64(bytes.len());
        let n_bytes = self.file(number)?.now().fitting(range, n_free_blocks);
        if n_bytes == 0 && !bytes.is_empty() {
            return Err(Errno::ENOSPC);
        }
        let n_bytes = u32::try_from(n_bytes).map_err(|_| Errno::EINVAL)?;
        let fitting = &bytes[..to_usize(n_bytes.into())];
        self.change(number, |file| file.write(offset, fitting))?;
        Ok(n_bytes)
    }

    pub(super) fn punch(&mut self, number: INodeNo, bytes: Range<u64>) -> Result<(), Errno> {
        self.change(number, |file| file.punch(bytes))
    }

    pub(super) fn allocate(
        &mut self,
        number: INodeNo,
        bytes: Range<u64>,
        grows: bool,
    ) -> Result<(), Errno> {
        let n_free_blocks = self.n_free_blocks();
        let n_bytes = bytes.end - bytes.start;
        if self.file(number)?.now().fitting(bytes.clone(), n_free_blocks) < n_bytes {
            return Err(Errno::ENOSPC);
        }
        self.change(number, |file| file.allocate(bytes, grows))
    }

    pub(super) fn sync(&mut self, number: INodeNo) -> Result<(), Errno> {
        let failed = self.faults.sync();
        if failed == Some(FailedSync::Forgets)
            && let Content::File(file) = &mut self.node(number)?.content
        {
            file.forget_dirty();
        }
        if failed.is_some() {
            return Err(Faults::sync_error());
        }
        match &mut self.node(number)?.content {
            Content::File(file) => file.sync(),
            Content::Directory { now, durable } => {
                durable.clone_from(now);
                self.collect();
            }
            Content::Other(_) => {}
        }
        Ok(())
    }

    /// Drops the nodes that neither the kernel knows nor a loss of power can bring back.
    fn collect(&mut self) {
        let mut reachable = HashSet::from([ROOT]);
        let mut pending = vec![ROOT];
        while let Some(number) = pending.pop() {
            if let Some(Node { content: Content::Directory { now, durable }, .. }) =
                self.by_number.get(&number)
            {
                let names = now.values().chain(durable.values());
                pending.extend(names.copied().filter(|number| reachable.insert(*number)));
            }
        }
        self.by_number.retain(|number, node| node.n_lookups > 0 || reachable.contains(number));
    }
}
