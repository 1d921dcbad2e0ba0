//! Drafts: what one mutation writes, with all writers of rows.
//!
//! The closure of a mutation is given the draft when its transaction id and its time are settled,
//! and fills it: the operations to be logged, the rows, and the change of the totals. Nothing here
//! touches the store. Which rows belong together is stated once, in these methods: a name is an
//! entry, a place in a listing and a link; a new inode is a row and one more in the count.

#[cfg(test)]
mod tests;

use tier_log::{LogRecord, Operation};
use tier_types::{ChunkNo, ChunkRange, FileAttr, Ino, Link, Timestamp, Xid, to_u64, to_usize};

use crate::store::extents::{
    Appended, CHUNK_BYTES_MAX, ChunkExtent, FileExtent, Place, extent_to_bytes, inline_to_bytes,
};
use crate::store::keys::{self, META_COUNTERS, META_EXTENTS_FLOOR, META_LAST_XID};
use crate::store::patch as patches;
use crate::store::rows;
use crate::store::{
    Batch, COOKIE_PARENT, ChunkBefore, Counters, CutMarks, DataSums, Dying, Entry, Leftovers,
    RunState, Table, Unsynced,
};

/// What a mutation's closure is told and fills in.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The transaction id of its first operation; the next ones follow.
    pub(crate) xid: Xid,
    /// Time of the commit.
    pub(crate) time: Timestamp,
    /// The change of the totals.
    pub(crate) counters: Counters,
    /// The generation of what is freed in it.
    pub(super) generation: u64,
    operations: Vec<Operation>,
    batch: Batch,
    appended: Vec<Appended>,
    freed_bytes: u64,
}

/// What becomes of a draft when it is put into a batch.
pub(super) struct Drafted {
    /// The transaction id after its last.
    pub(super) next_xid: Xid,
    /// Extents that rows of the batch refer to.
    pub(super) appended: Vec<Appended>,
    /// Bytes of extents that no row refers to from then on.
    pub(super) freed_bytes: u64,
}

/// A list of inodes, in which each is or is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ListKind {
    /// Inodes without a name, which are deleted when the last handle is closed.
    Orphans,
    /// Inodes with recalled data.
    Warm,
}

/// What an inode has that is deleted, in the tables that have one row of it at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InodeRows {
    pub(crate) sums: DataSums,
    pub(crate) is_pinned: bool,
    pub(crate) is_cut: bool,
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
            generation: 0,
            operations: Vec::new(),
            batch: Batch::default(),
            appended: Vec::new(),
            freed_bytes: 0,
        }
    }

    /// Has `fill` write what concerns one file: it finds no counts but those that it makes, which
    /// are added to the others.
    pub(crate) fn of_one_file(&mut self, fill: impl FnOnce(&mut Self)) {
        let others = std::mem::take(&mut self.counters);
        fill(self);
        self.counters.add(&others);
    }

    /// Operations that were logged so far.
    pub(crate) fn n_operations(&self) -> u64 {
        to_u64(self.operations.len())
    }

    /// Bytes of the rows that it writes.
    pub(super) fn bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Adds the log records and the rows to a batch.
    pub(super) fn append_to(self, batch: &mut Batch) -> Drafted {
        let mut xid = self.xid;
        for operation in self.operations {
            let record = LogRecord { xid, time: self.time, operation };
            batch.put(Table::Log, &keys::xid(xid), record.to_bytes());
            xid = xid.next();
        }
        batch.append(self.batch);
        Drafted { next_xid: xid, appended: self.appended, freed_bytes: self.freed_bytes }
    }

    /// Logs an operation; the first one has the draft's transaction id, the next ones follow.
    pub(crate) fn log(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// Writes an inode that was not there before. Its times and its transaction are set.
    pub(crate) fn put_new_inode(&mut self, attr: &FileAttr) {
        assert_ne!(attr.ino, Ino::new(0), "no inode has the number 0");
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

    /// Writes an inode by what is no change of it, and is not archived for its own sake.
    pub(crate) fn put_unchanged(&mut self, attr: &FileAttr) {
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

    /// Deletes what an inode has but names, extended attributes and data. Its data counts no more.
    pub(crate) fn delete_inode(&mut self, ino: Ino, rows: InodeRows) {
        let InodeRows { sums, is_pinned, is_cut } = rows;
        self.counters.n_inodes -= 1;
        self.counters.lose_all(sums);
        // Most inodes have no row in the last two: a deletion of nothing is cheaper than a look.
        for table in [Table::Inodes, Table::Resident, Table::Orphans, Table::Warm] {
            self.batch.delete(table, &keys::ino(ino));
        }
        if is_cut {
            self.put_cuts(ino, &CutMarks::default());
        }
        if is_pinned {
            self.set_pin(ino, false);
        }
    }

    /// Leaves what is left of a deleted inode to the reaper.
    pub(crate) fn put_dying(&mut self, ino: Ino, dying: Dying) {
        self.batch.put(Table::Dying, &keys::ino(ino), rows::dying_to_bytes(dying));
    }

    /// Nothing is left of a dying inode.
    pub(crate) fn delete_dying(&mut self, ino: Ino) {
        self.batch.delete(Table::Dying, &keys::ino(ino));
    }

    /// Deletes rows that are left of a deleted inode.
    pub(crate) fn delete_leftovers(&mut self, ino: Ino, left: &Leftovers) {
        self.free(&left.extents);
        for chunk in &left.chunks {
            self.delete_chunk(ino, *chunk);
        }
        for key in &left.runs {
            self.batch.delete(Table::Map, key);
        }
        // After the deletions: the rest of a run may start where the run does.
        if let Some(rest) = left.rest {
            self.put_run(ino, rest.start, rest.state);
        }
        for name in &left.xattrs {
            self.delete_xattr(ino, name);
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
        Self::cookie_of(self.xid)
    }

    /// The cookie of entries that a transaction makes.
    pub(crate) fn cookie_of(xid: Xid) -> u64 {
        xid.get() + COOKIE_PARENT
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
        assert!(start < ChunkNo::END, "no run starts at the end of all chunks");
        self.batch.put(Table::Map, &keys::chunk(ino, start), rows::run_to_bytes(run));
    }

    /// Deletes the start of a run.
    pub(crate) fn delete_run(&mut self, ino: Ino, start: ChunkNo) {
        self.batch.delete(Table::Map, &keys::chunk(ino, start));
    }

    /// Writes all of a chunk's content into its row.
    pub(crate) fn put_chunk(&mut self, ino: Ino, chunk: ChunkNo, content: &[u8]) {
        self.batch.put(Table::Chunks, &keys::chunk(ino, chunk), inline_to_bytes(content));
    }

    /// Makes a chunk's row refer to an extent, which must be [held](Self::hold).
    pub(crate) fn put_extent(
        &mut self,
        ino: Ino,
        chunk: ChunkNo,
        extent: FileExtent,
        before: ChunkBefore,
    ) {
        // In one batch with the row that refers to the extent: if a loss of power keeps the row and
        // takes the bytes, an opening learns from this which chunk it is and what that was before.
        let unsynced = rows::unsynced_to_bytes(&Unsynced { ino, chunk, len: extent.len, before });
        self.batch.put(Table::Unsynced, &keys::place(extent.place), unsynced);
        self.batch.put(Table::Chunks, &keys::chunk(ino, chunk), extent_to_bytes(extent));
    }

    /// Takes over what was appended for its rows: given back if the draft comes to nothing.
    pub(crate) fn hold(&mut self, appended: Appended) {
        self.appended.push(appended);
    }

    /// Notes extents to which no row refers any more.
    pub(crate) fn free(&mut self, extents: &[ChunkExtent]) {
        for ChunkExtent { ino, chunk, extent } in extents {
            // The row of the chunk goes now, its space waits for the generation: a KVS snapshot, or
            // the state that a loss of power brings back, may still refer to it.
            let key = keys::freed(self.generation, extent.place);
            self.batch.put(Table::Freed, &key, rows::freed_to_bytes(*ino, *chunk, extent.len));
            self.freed_bytes += u64::from(extent.len);
        }
    }

    /// Gives a chunk the row back that it had before.
    pub(crate) fn put_row_back(&mut self, ino: Ino, chunk: ChunkNo, row: &[u8]) {
        self.batch.put(Table::Chunks, &keys::chunk(ino, chunk), row.to_vec());
    }

    /// Changes a part of a chunk that is in the store.
    pub(crate) fn patch_chunk(&mut self, ino: Ino, chunk: ChunkNo, patch: Vec<u8>) {
        self.batch.merge(Table::Chunks, &keys::chunk(ino, chunk), patch);
    }

    /// Deletes a chunk's row. Every one goes through here, by its own key: the deletion of a range
    /// would be looked at by every later reader of the table.
    fn delete_chunk(&mut self, ino: Ino, chunk: ChunkNo) {
        self.batch.delete(Table::Chunks, &keys::chunk(ino, chunk));
    }

    /// Deletes chunk rows, as many as one batch should have, with the extents that they refer to.
    pub(crate) fn delete_chunks(&mut self, ino: Ino, chunks: ChunkRange, extents: &[ChunkExtent]) {
        self.free(extents);
        for number in chunks.start().get()..chunks.end().get() {
            self.delete_chunk(ino, ChunkNo::new(number));
        }
    }

    /// Writes where the bytes of an inode's data are; an inode without data has no such row.
    pub(crate) fn put_sums(&mut self, ino: Ino, sums: DataSums) {
        let key = keys::ino(ino);
        if sums == DataSums::default() {
            self.batch.delete(Table::Resident, &key);
        } else {
            self.batch.put(Table::Resident, &key, rows::sums_to_bytes(sums));
        }
    }

    /// Writes the cut marks of an inode; one without any has no such row.
    pub(crate) fn put_cuts(&mut self, ino: Ino, cuts: &CutMarks) {
        let key = keys::ino(ino);
        if cuts.is_empty() {
            self.batch.delete(Table::Cuts, &key);
        } else {
            self.batch.put(Table::Cuts, &key, rows::cuts_to_bytes(cuts));
        }
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

    /// Deletes rows of an inode that does not exist.
    pub(crate) fn delete_unowned(&mut self, table: Table, rows: &[Vec<u8>]) {
        for key in rows {
            self.batch.delete(table, key);
        }
    }
}

/// Writes what every batch says of the filesystem as a whole: the totals after it, and the last
/// transaction id, so that a store that lost batches knows it.
pub(super) fn put_totals(batch: &mut Batch, counters: &Counters, last: Xid) {
    batch.put(Table::Meta, META_COUNTERS, rows::counters_to_bytes(counters));
    batch.put(Table::Meta, META_LAST_XID, rows::number_to_bytes(last.get()));
}

/// Notes that everything before a place is durable or free.
pub(super) fn put_extents_floor(batch: &mut Batch, floor: Place) {
    let start = keys::place(Place { file: 0, offset: 0 });
    batch.delete_range(Table::Unsynced, &start, &keys::place(floor));
    batch.put(Table::Meta, META_EXTENTS_FLOOR, rows::place_to_bytes(floor));
}

/// A patch of a chunk that writes `data` at `within` bytes from its start.
#[expect(clippy::expect_used, reason = "a chunk has at most 1 MiB")]
pub(crate) fn patch(within: u64, data: &[u8]) -> Vec<u8> {
    let within = u32::try_from(within).expect("a place within a chunk");
    assert!(to_usize(u64::from(within)) + data.len() <= CHUNK_BYTES_MAX, "it ends in the chunk");
    patches::to_bytes(within, data)
}
