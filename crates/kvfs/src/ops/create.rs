//! Making inodes.
//!
//! An inode's number is the transaction id that makes it (`docs/adr/0003`): never used before,
//! never used again, and known only when the mutation is committed. So the closure fills the number
//! in, and the caller does the same to its own copy of the attributes afterwards.

use std::sync::{Arc, OnceLock};

use tier_log::{NodeKind, Operation};
use tier_types::{
    ChunkNo, ChunkState, FileAttr, FileKind, FileName, Ino, Link, Timestamp, Xattr, Xid, to_u64,
};

use super::acl::{self, Acl};
use super::lifetime::OpenHandle;
use super::lookup::{count_subdirectories, is_directory};
use super::mode::{self, Inherited, Inheriting};
use super::xattr;
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::store::{ChunkBefore, DataSums, RunState};
use crate::tx::{Committed, Draft, ListKind, NewChunks};

/// Longest target of a symbolic link, as Linux has it.
const TARGET_BYTES_MAX: usize = 4095;

/// An inode to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewNode {
    /// What it is.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What the directory passes on: nothing, or, with the maker's umask, its group if it is
    /// set-group-id, and its default access control list, in place of which the umask comes if it
    /// has none.
    pub inherit: Option<u16>,
}

/// A node with all that belongs to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewFile {
    /// What it is; it inherits nothing.
    pub node: NewNode,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of data.
    pub modified: Timestamp,
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
    /// The start of its data, or all of it; nothing for what has no data.
    pub content: Vec<u8>,
}

impl Core {
    /// Makes an inode with a name.
    pub fn create_node(
        &self,
        dir: Ino,
        name: &FileName,
        node: &NewNode,
    ) -> Result<FileAttr, FsError> {
        self.create_node_then(dir, name, node, |_| {})
    }

    /// The same for the kernel, which knows it from now on.
    pub(crate) fn create_known(
        &self,
        dir: Ino,
        name: &FileName,
        node: &NewNode,
    ) -> Result<FileAttr, FsError> {
        self.create_node_then(dir, name, node, |ino| self.references.add_lookup(ino))
    }

    /// The same, and an open handle of it.
    pub(crate) fn create_open(
        self: &Arc<Self>,
        dir: Ino,
        name: &FileName,
        node: &NewNode,
    ) -> Result<(FileAttr, OpenHandle), FsError> {
        let attr = self.create_node_then(dir, name, node, |ino| {
            self.references.add_lookup(ino);
            self.references.add_handle(ino);
        })?;
        let handle = OpenHandle::of_counted(Arc::clone(self), attr.ino);
        Ok((attr, handle))
    }

    /// Makes an inode with a name, which cannot go before `refer` has counted references to it.
    fn create_node_then(
        &self,
        dir: Ino,
        name: &FileName,
        node: &NewNode,
        refer: impl FnOnce(Ino),
    ) -> Result<FileAttr, FsError> {
        check_node(node)?;
        let permit = self.admit_growth(ROWS_BYTES)?;
        // The new inode needs no lock: until the commit it has no number, and after it no change of
        // its own is under way.
        let _guard = self.locks.lock(&[dir]);
        let mut parent = self.linked_directory(dir)?;
        if self.reader().entry(dir, name)?.is_some() {
            return Err(FsError::Exists);
        }
        let link = Link { parent: dir, name: name.clone() };
        let Inherited { mode, gid, xattrs } = self.inherited(&parent, node)?;
        let template = FileAttr { mode, gid, ..new_attr(node) };
        let attr = template.clone();
        let committed = self.committer.commit(permit, 1, move |draft| {
            let attr = stamped(template, Committed { xid: draft.xid, time: draft.time });
            draft.log(create_operation(attr.ino, &attr.kind, link.clone()));
            draft.put_new_inode(&attr);
            for Xattr { name, value } in xattrs {
                draft.put_xattr(attr.ino, &name, value);
            }
            add_to_directory(draft, &attr, &link, &mut parent);
        })?;
        let attr = stamped(attr, committed);
        // Under the lock of the directory, without which the name cannot go.
        refer(attr.ino);
        Ok(attr)
    }

    /// Makes a regular file without a name, which lives as long as its handle unless it is linked.
    pub fn create_unnamed(
        self: &Arc<Self>,
        node: &NewNode,
    ) -> Result<(FileAttr, OpenHandle), FsError> {
        if !matches!(node.kind, FileKind::Regular) {
            return Err(FsError::Invalid("only a regular file can be without a name"));
        }
        // No lock: no directory changes, and until the commit the inode has no number by which
        // another thread could reach it.
        let permit = self.admit_growth(ROWS_BYTES)?;
        let attr = FileAttr { nlink: 0, ..new_attr(node) };
        let (template, core) = (attr.clone(), Arc::clone(self));
        let counted = Arc::new(OnceLock::new());
        let told = Arc::clone(&counted);
        let committed = self.committer.commit(permit, 1, move |draft| {
            let attr = stamped(template, Committed { xid: draft.xid, time: draft.time });
            draft.log(Operation::Create { ino: attr.ino, link: None });
            draft.put_new_inode(&attr);
            draft.list(ListKind::Orphans, attr.ino);
            // Counted before the inode can be seen: from the commit on, the orphans are open to
            // the reaper.
            core.references.add_handle(attr.ino);
            core.references.is_orphaned(attr.ino);
            let _ = told.set(attr.ino);
        });
        let committed = committed.inspect_err(|_| {
            // The number may be that of another inode next.
            if let Some(ino) = counted.get() {
                self.references.remove_handle(*ino);
            }
        })?;
        let attr = stamped(attr, committed);
        let handle = OpenHandle::of_counted(Arc::clone(self), attr.ino);
        Ok((attr, handle))
    }

    /// Makes an inode with a name, its attributes and data, in one step: it is there as a whole or
    /// not at all.
    pub fn create_file(
        &self,
        dir: Ino,
        name: &FileName,
        file: &NewFile,
    ) -> Result<FileAttr, FsError> {
        let NewFile { node, xattrs, content, .. } = file;
        check_node(node)?;
        xattr::check_all(xattrs)?;
        let xattrs_bytes: usize = xattrs.iter().map(|it| it.name.len() + it.value.len()).sum();
        let bytes = ROWS_BYTES + to_u64(content.len() + xattrs_bytes);
        let permit = self.admit_growth(bytes)?;
        let is_regular = matches!(node.kind, FileKind::Regular);
        if !content.is_empty() && !is_regular {
            return Err(FsError::Invalid("only a regular file has data"));
        }
        let _guard = self.locks.lock(&[dir]);
        let mut parent = self.linked_directory(dir)?;
        if self.reader().entry(dir, name)?.is_some() {
            return Err(FsError::Exists);
        }
        let (accessed, modified) = (file.accessed, file.modified);
        let mut template = FileAttr { accessed, modified, ..new_attr(node) };
        if is_regular {
            template.size_bytes = to_u64(content.len());
        }
        let link = Link { parent: dir, name: name.clone() };
        let writes = u64::from(!content.is_empty());
        // The file is made, written, and given its attributes: the log tells it as if it had been
        // done step by step.
        let n_operations = 1 + writes + to_u64(xattrs.len());
        let finish = move |template: FileAttr, committed: Committed| FileAttr {
            ino: Ino::new(committed.xid.get()),
            changed: committed.time,
            created: committed.time,
            xid: Xid::new(committed.xid.get() + n_operations - 1),
            ..template
        };
        let new = self.chunk_writer.write(ChunkNo::new(0), content)?;
        let len = to_u64(content.len());
        let xattrs = xattrs.clone();
        let attr = template.clone();
        let committed = self.committer.commit(permit, n_operations, move |draft| {
            let attr = finish(template, Committed { xid: draft.xid, time: draft.time });
            draft.log(create_operation(attr.ino, &attr.kind, link.clone()));
            put_content(draft, attr.ino, len, new);
            for Xattr { name, value } in xattrs {
                draft.put_xattr(attr.ino, &name, value);
                draft.log(Operation::SetXattr { ino: attr.ino, name });
            }
            draft.put_new_inode(&attr);
            add_to_directory(draft, &attr, &link, &mut parent);
        })?;
        Ok(finish(attr, committed))
    }

    /// What becomes of a new node in this directory.
    fn inherited(&self, parent: &FileAttr, node: &NewNode) -> Result<Inherited, FsError> {
        let Some(umask) = node.inherit else {
            return Ok(Inherited { mode: node.mode & 0o7777, gid: node.gid, xattrs: Vec::new() });
        };
        let default = self.acl(parent.ino, acl::DEFAULT)?;
        let new = Inheriting { kind: &node.kind, mode: node.mode, gid: node.gid, umask };
        Ok(mode::inherit(parent, new, default.as_ref()))
    }

    /// An access control list of an inode; `None` if it has none that can be read.
    pub(super) fn acl(&self, ino: Ino, name: &[u8]) -> Result<Option<Acl>, FsError> {
        let bytes = self.reader().xattr(ino, name)?;
        Ok(bytes.and_then(|bytes| Acl::from_bytes(&bytes)))
    }
}

fn add_to_directory(draft: &mut Draft, attr: &FileAttr, link: &Link, parent: &mut FileAttr) {
    draft.add_name(attr.ino, link);
    if is_directory(attr) {
        count_subdirectories(parent, 1);
    }
    draft.touch_directory(parent);
}

/// Writes the chunks of a new file, and its map: data, and behind it what was never written.
fn put_content(draft: &mut Draft, ino: Ino, len: u64, content: NewChunks) {
    let end = ChunkNo::new(content.len());
    if len == 0 {
        return;
    }
    assert_eq!(draft.n_operations(), 1, "the write is the second operation of the inode");
    let data_xid = draft.xid.next();
    draft.log(Operation::Write { ino, offset: 0, len });
    content.put(ino, |_| ChunkBefore::Away(RunState::NEVER_WRITTEN), draft);
    draft.put_run(ino, ChunkNo::new(0), RunState { state: ChunkState::Hot, data_xid });
    // A run reaches to the next one, so that the data must be told where it ends.
    draft.put_run(ino, end, RunState::NEVER_WRITTEN);
    draft.counters.gain(ChunkState::Hot, len);
    draft.put_sums(ino, DataSums::default().changed_by(&draft.counters));
}

fn check_node(node: &NewNode) -> Result<(), FsError> {
    match &node.kind {
        FileKind::Symlink(target) if target.len() > TARGET_BYTES_MAX => {
            Err(FsError::TooLong("the target of a symbolic link"))
        }
        FileKind::Symlink(target) if target.is_empty() || target.contains(&0) => {
            Err(FsError::Invalid("the target of a symbolic link"))
        }
        FileKind::Symlink(_)
        | FileKind::Regular
        | FileKind::Directory
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice(_)
        | FileKind::BlockDevice(_) => Ok(()),
    }
}

/// A new inode's attributes as far as they are known before its commit.
pub(crate) fn new_attr(node: &NewNode) -> FileAttr {
    let size_bytes = match &node.kind {
        FileKind::Symlink(target) => to_u64(target.len()),
        FileKind::Regular
        | FileKind::Directory
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice(_)
        | FileKind::BlockDevice(_) => 0,
    };
    let unknown = Timestamp::default();
    FileAttr {
        ino: Ino::new(0),
        kind: node.kind.clone(),
        mode: node.mode & 0o7777,
        uid: node.uid,
        gid: node.gid,
        nlink: if matches!(node.kind, FileKind::Directory) { 2 } else { 1 },
        size_bytes,
        accessed: unknown,
        modified: unknown,
        changed: unknown,
        created: unknown,
        xid: Xid::new(0),
    }
}

/// A new inode's attributes at its commit.
pub(super) fn stamped(template: FileAttr, committed: Committed) -> FileAttr {
    let Committed { xid, time } = committed;
    FileAttr {
        ino: Ino::new(xid.get()),
        accessed: time,
        modified: time,
        changed: time,
        created: time,
        xid,
        ..template
    }
}

fn create_operation(ino: Ino, kind: &FileKind, link: Link) -> Operation {
    let mknod = |link, kind| Operation::Mknod { ino, link, kind };
    match kind {
        FileKind::Regular => Operation::Create { ino, link: Some(link) },
        FileKind::Directory => Operation::Mkdir { ino, link: Some(link) },
        FileKind::Symlink(_) => Operation::Symlink { ino, link },
        FileKind::Fifo => mknod(link, NodeKind::Fifo),
        FileKind::Socket => mknod(link, NodeKind::Socket),
        FileKind::CharDevice(_) => mknod(link, NodeKind::CharDevice),
        FileKind::BlockDevice(_) => mknod(link, NodeKind::BlockDevice),
    }
}
