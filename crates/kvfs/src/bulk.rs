//! Whole files in one step, for those who bring many.

use tier_log::Operation;
use tier_types::{
    ChunkNo, ChunkRange, ChunkState, FileAttr, FileKind, FileName, Ino, Link, Timestamp, Xattr,
    Xid, to_u64, to_usize,
};

use crate::commit::Draft;
use crate::fs::Kvfs;
use crate::inode::{check_node, create_operation, new_attr, put_link, touch_directory};
use crate::schema::{self, Table};
use crate::xattr::check_all;
use crate::{FsError, NewNode, value};

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

impl Kvfs {
    /// Makes an inode with a name, its attributes and data, in one step: it is there as a whole or
    /// not at all.
    pub fn create_file(
        &self,
        dir: Ino,
        name: &FileName,
        file: NewFile,
    ) -> Result<FileAttr, FsError> {
        let NewFile { node, accessed, modified, xattrs, content } = file;
        check_node(&node)?;
        check_all(&xattrs)?;
        self.check_room()?;
        if !content.is_empty() && !matches!(node.kind, FileKind::Regular) {
            return Err(FsError::Invalid("only a regular file has data"));
        }
        let _guard = self.locks.lock(&[dir]);
        let mut parent = self.linked_directory(dir)?;
        if self.live().entry(dir, name)?.is_some() {
            return Err(FsError::Exists);
        }
        let mut attr = FileAttr { accessed, modified, ..new_attr(&node) };
        if matches!(node.kind, FileKind::Regular) {
            attr.size_bytes = to_u64(content.len());
        }
        let link = Link { parent: dir, name: name.clone() };
        let chunk_bytes = self.chunk_bytes;
        let writes = u64::from(!content.is_empty());
        let n_operations = 1 + writes + to_u64(xattrs.len());
        let mut made = attr.clone();
        let committed = self.committer.commit(n_operations, move |draft| {
            attr.ino = Ino::new(draft.xid.get());
            (attr.changed, attr.created) = (draft.time, draft.time);
            draft.operations.push(create_operation(attr.ino, &node.kind, link.clone()));
            draft.counters.n_inodes += 1;
            put_content(draft, attr.ino, chunk_bytes, &content);
            for Xattr { name, value } in xattrs {
                draft.changes.put(Table::Xattrs, &schema::named(attr.ino, &name), value);
                draft.operations.push(Operation::SetXattr { ino: attr.ino, name });
            }
            put_link(draft, attr.ino, &link);
            if matches!(node.kind, FileKind::Directory) {
                parent.nlink += 1;
            }
            touch_directory(draft, &mut parent);
            attr.xid = Xid::new(draft.xid.get() + n_operations - 1);
            draft.changes.put(Table::Inodes, &schema::ino(attr.ino), value::attr_to_bytes(&attr));
        })?;
        (made.changed, made.created) = (committed.time, committed.time);
        made.ino = Ino::new(committed.xid.get());
        made.xid = Xid::new(committed.xid.get() + n_operations - 1);
        Ok(made)
    }
}

/// Writes the chunks of a new file, and its map: data, and behind it what was never written.
fn put_content(draft: &mut Draft, ino: Ino, chunk_bytes: u32, content: &[u8]) {
    let len = to_u64(content.len());
    let Some(chunks) = ChunkRange::touching(0, len, chunk_bytes) else { return };
    let data_xid = draft.xid.next();
    draft.operations.push(Operation::Write { ino, offset: 0, len });
    let pieces = content.chunks(to_usize(u64::from(chunk_bytes)));
    for (number, piece) in (0..).zip(pieces) {
        let key = schema::chunk(ino, ChunkNo::new(number));
        draft.changes.put(Table::Chunks, &key, piece.to_vec());
    }
    for (start, state, xid) in [
        (ChunkNo::new(0), ChunkState::Hot, data_xid),
        (chunks.end(), ChunkState::Hole, Xid::new(0)),
    ] {
        draft.changes.put(Table::Map, &schema::chunk(ino, start), value::run_to_bytes(state, xid));
    }
    draft.counters.count(ChunkState::Hot, len, 1);
    draft.changes.put(Table::Resident, &schema::ino(ino), len.to_le_bytes().to_vec());
}
