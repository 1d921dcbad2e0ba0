//! Drafts: what one mutation writes, with all writers of rows.
//!
//! The closure of a mutation is given the draft when its transaction id and its time are settled,
//! and fills it: the operations to be logged, the rows, and the change of the totals. Nothing here
//! touches the store. Which rows belong together is stated once, in these methods: a name is an
//! entry, a place in a listing and a link; a new inode is a row and one more in the count.

use tier_log::{LogRecord, Operation};
use tier_types::{ChunkNo, ChunkRange, FileAttr, Ino, Link, Timestamp, Xid, to_u64};

use crate::store::keys::{self, META_COUNTERS};
use crate::store::patch as patches;
use crate::store::rows;
use crate::store::{Batch, COOKIE_PARENT, Counters, Entry, RunState, Table};

/// More chunks than this are deleted as a range.
const N_CHUNK_DELETES_MAX: u64 = 4;

/// What a mutation's closure is told and fills in.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The transaction id of its first operation; the next ones follow.
    pub(crate) xid: Xid,
    /// Time of the commit.
    pub(crate) time: Timestamp,
    /// The change of the totals.
    pub(crate) counters: Counters,
    operations: Vec<Operation>,
    batch: Batch,
}

/// A list of inodes, in which each is or is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ListKind {
    /// Inodes without a name, which are deleted when the last handle is closed.
    Orphans,
    /// Inodes with recalled data.
    Warm,
}

impl ListKind {
    fn table(self) -> Table {
        match self {
            Self::Orphans => Table::Orphans,
            Self::Warm => Table::Warm,
        }
    }
}

impl Draft {
    pub(super) fn new(xid: Xid, time: Timestamp) -> Self {
        Self {
            xid,
            time,
            counters: Counters::default(),
            operations: Vec::new(),
            batch: Batch::default(),
        }
    }

    pub(super) fn n_operations(&self) -> u64 {
        to_u64(self.operations.len())
    }

    /// Bytes of the rows that it writes.
    pub(super) fn bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Adds the log records and the rows to a batch, and says which transaction id is next.
    pub(super) fn append_to(self, batch: &mut Batch) -> Xid {
        let mut xid = self.xid;
        for operation in self.operations {
            let record = LogRecord { xid, time: self.time, operation };
            batch.put(Table::Log, &keys::xid(xid), record.to_bytes());
            xid = xid.next();
        }
        batch.append(self.batch);
        xid
    }

    /// Logs an operation; the first one has the draft's transaction id, the next ones follow.
    pub(crate) fn log(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// Writes an inode that was not there before. Its times and its transaction are set.
    pub(crate) fn put_new_inode(&mut self, attr: &FileAttr) {
        self.counters.n_inodes += 1;
        self.put_inode(attr);
    }

    /// Writes an inode that the first operation changed.
    pub(crate) fn put_changed(&mut self, attr: &mut FileAttr) {
        attr.changed = self.time;
        self.put_attr(attr);
    }

    /// Writes an inode whose times are already right.
    pub(crate) fn put_attr(&mut self, attr: &mut FileAttr) {
        attr.xid = self.xid;
        self.put_inode(attr);
    }

    /// Writes a directory whose entries changed.
    pub(crate) fn touch_directory(&mut self, attr: &mut FileAttr) {
        attr.modified = self.time;
        self.put_changed(attr);
    }

    fn put_inode(&mut self, attr: &FileAttr) {
        self.batch.put(Table::Inodes, &keys::ino(attr.ino), rows::attr_to_bytes(attr));
    }

    /// Deletes what an inode has but names, extended attributes and data, and its pin if it has one.
    pub(crate) fn delete_inode(&mut self, ino: Ino, is_pinned: bool) {
        self.counters.n_inodes -= 1;
        for table in [Table::Inodes, Table::Resident, Table::Orphans, Table::Warm] {
            self.batch.delete(table, &keys::ino(ino));
        }
        if is_pinned {
            self.set_pin(ino, false);
        }
    }

    /// Adds a name: the entry gets a cookie that no other entry of the directory has had.
    pub(crate) fn add_name(&mut self, ino: Ino, link: &Link) {
        self.add_name_at(ino, link, self.new_cookie());
    }

    /// Adds a name at a place in the directory's listing that is free.
    pub(crate) fn add_name_at(&mut self, ino: Ino, link: &Link, cookie: u64) {
        let Link { parent, name } = link;
        let entry = rows::entry_to_bytes(Entry { ino, cookie });
        self.batch.put(Table::Entries, &keys::named(*parent, name.as_bytes()), entry);
        self.list_name(*parent, name.as_bytes(), cookie);
        self.put_link(ino, link);
    }

    /// Takes a name away.
    pub(crate) fn remove_name(&mut self, ino: Ino, link: &Link, cookie: u64) {
        self.delete_entry(link.parent, link.name.as_bytes(), Some(cookie));
        self.delete_link(ino, link);
    }

    /// A cookie that no entry of any directory has had.
    pub(crate) fn new_cookie(&self) -> u64 {
        self.xid.get() + COOKIE_PARENT
    }

    /// The inode's side of a name.
    pub(crate) fn put_link(&mut self, ino: Ino, link: &Link) {
        self.batch.put(Table::Links, &keys::link(ino, link.parent, &link.name), Vec::new());
    }

    /// The inode's side of a name.
    pub(crate) fn delete_link(&mut self, ino: Ino, link: &Link) {
        self.batch.delete(Table::Links, &keys::link(ino, link.parent, &link.name));
    }

    /// The directory's side of a name; without a cookie, its place in the listing stays.
    pub(crate) fn delete_entry(&mut self, dir: Ino, name: &[u8], cookie: Option<u64>) {
        self.batch.delete(Table::Entries, &keys::named(dir, name));
        if let Some(cookie) = cookie {
            self.batch.delete(Table::Cookies, &keys::pair(dir.get(), cookie));
        }
    }

    /// Puts a name at a place in a directory's listing.
    pub(crate) fn list_name(&mut self, dir: Ino, name: &[u8], cookie: u64) {
        self.batch.put(Table::Cookies, &keys::pair(dir.get(), cookie), name.to_vec());
    }

    /// Deletes a row of a directory's listing, readable or not.
    pub(crate) fn delete_cookie_row(&mut self, key: &[u8]) {
        self.batch.delete(Table::Cookies, key);
    }

    pub(crate) fn put_xattr(&mut self, ino: Ino, name: &[u8], value: Vec<u8>) {
        self.batch.put(Table::Xattrs, &keys::named(ino, name), value);
    }

    pub(crate) fn delete_xattr(&mut self, ino: Ino, name: &[u8]) {
        self.batch.delete(Table::Xattrs, &keys::named(ino, name));
    }

    /// Writes the start of a run of a chunk map.
    pub(crate) fn put_run(&mut self, ino: Ino, start: ChunkNo, run: RunState) {
        self.batch.put(Table::Map, &keys::chunk(ino, start), rows::run_to_bytes(run));
    }

    /// Deletes the start of a run.
    pub(crate) fn delete_run(&mut self, ino: Ino, start: ChunkNo) {
        self.batch.delete(Table::Map, &keys::chunk(ino, start));
    }

    /// Deletes all starts of runs in a range.
    pub(crate) fn delete_runs(&mut self, ino: Ino, range: ChunkRange) {
        let (from, until) = (keys::chunk(ino, range.start()), keys::chunk(ino, range.end()));
        self.batch.delete_range(Table::Map, &from, &until);
    }

    /// Writes all of a chunk's content.
    pub(crate) fn put_chunk(&mut self, ino: Ino, chunk: ChunkNo, content: Vec<u8>) {
        self.batch.put(Table::Chunks, &keys::chunk(ino, chunk), content);
    }

    /// Changes a part of a chunk that is in the store.
    pub(crate) fn patch_chunk(&mut self, ino: Ino, chunk: ChunkNo, patch: Vec<u8>) {
        self.batch.merge(Table::Chunks, &keys::chunk(ino, chunk), patch);
    }

    pub(crate) fn delete_chunks(&mut self, ino: Ino, chunks: ChunkRange) {
        if chunks.len() <= N_CHUNK_DELETES_MAX {
            for number in chunks.start().get()..chunks.end().get() {
                self.batch.delete(Table::Chunks, &keys::pair(ino.get(), number));
            }
        } else {
            let (from, until) = (keys::chunk(ino, chunks.start()), keys::chunk(ino, chunks.end()));
            self.batch.delete_range(Table::Chunks, &from, &until);
        }
    }

    /// Writes how many bytes of an inode's data are in the store.
    pub(crate) fn put_resident(&mut self, ino: Ino, bytes: u64) {
        self.batch.put(Table::Resident, &keys::ino(ino), rows::number_to_bytes(bytes));
    }

    /// The same for none: an inode without data has no such row.
    pub(crate) fn delete_resident(&mut self, ino: Ino) {
        self.batch.delete(Table::Resident, &keys::ino(ino));
    }

    /// Puts an inode on a list.
    pub(crate) fn list(&mut self, list: ListKind, ino: Ino) {
        self.batch.put(list.table(), &keys::ino(ino), Vec::new());
    }

    /// Takes an inode off a list; it need not be on it.
    pub(crate) fn unlist(&mut self, list: ListKind, ino: Ino) {
        self.batch.delete(list.table(), &keys::ino(ino));
    }

    /// Pins an inode that is not, or unpins one that is.
    pub(crate) fn set_pin(&mut self, ino: Ino, is_pinned: bool) {
        if is_pinned {
            self.counters.n_pins += 1;
            self.batch.put(Table::Pins, &keys::ino(ino), Vec::new());
        } else {
            self.counters.n_pins -= 1;
            self.batch.delete(Table::Pins, &keys::ino(ino));
        }
    }

    /// Deletes all rows of an inode in a table whose keys start with it.
    pub(crate) fn delete_rows_of(&mut self, table: Table, ino: Ino) {
        let (from, until) = keys::rows_of(ino);
        self.batch.delete_range(table, &from, &until);
    }
}

/// Writes the totals as they are after a batch.
pub(super) fn put_counters(batch: &mut Batch, counters: &Counters) {
    batch.put(Table::Meta, META_COUNTERS, rows::counters_to_bytes(counters));
}

/// A patch of a chunk that writes `data` at `within` bytes from its start.
#[expect(clippy::expect_used, reason = "a chunk has at most 1 MiB")]
pub(crate) fn patch(within: u64, data: &[u8]) -> Vec<u8> {
    let within = u32::try_from(within).expect("a place within a chunk");
    patches::to_bytes(within, data)
}
