//! The scan: one pass over a KVS snapshot that finds everything that contradicts itself.
//!
//! It goes through the inodes in order, and from each to its names (`names`) and its data (`data`);
//! then through all other tables for rows of inodes that do not exist (`owners`); and compares the
//! totals with what it counted on the way (`totals`). Memory does not grow with the store, but for
//! the set of directories from which the way up is known to lead to the root, and for the inodes
//! that cannot be read. What cannot be decoded, or not be read because the files of the key-value
//! store are damaged, is a finding and ends only the look at what needs it; then the totals are not
//! certain, and no repair sets them. An inode that lies where the walk could read nothing is found
//! with the other tables, each of which names it.

mod data;
mod names;
mod owners;
mod totals;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use tier_types::{FileAttr, FileKind, Ino, Persisted, Xid, with_causes};

use super::problem::{Finding, FsckReport, Problem};
use crate::FsError;
use crate::core::Core;
use crate::store::{
    Counters, Gap, InodeFound, InodeRow, KvsSnapshot, OrderedTables, StoreReader, Table,
};

/// Hears of every contradiction; what it returns ends the scan.
pub(super) type Found<'a> = &'a mut dyn FnMut(Finding) -> Result<(), FsError>;

/// Looks at one point in time, reads all that is in the store, and changes nothing.
pub(super) fn scan(
    core: &Core,
    archive: &dyn Persisted,
    found: Found<'_>,
    stop: &AtomicBool,
) -> Result<FsckReport, FsError> {
    let (snapshot, last) = core.committer.snapshot()?;
    let mut scan = Scan {
        snapshot: &snapshot,
        last,
        chunk_bytes: core.chunk_bytes,
        archive,
        found,
        stop,
        report: FsckReport::default(),
        counted: Counters::default(),
        rooted: HashSet::from([Ino::ROOT]),
        is_complete: true,
        chunks: OrderedTables::new(&snapshot),
        content: Vec::new(),
        gaps: Vec::new(),
        hidden: HashSet::new(),
        unreadable: HashSet::new(),
    };
    scan.root()?;
    scan.inodes()?;
    scan.owners()?;
    scan.totals()?;
    Ok(scan.report)
}

struct Scan<'a> {
    snapshot: &'a KvsSnapshot,
    /// The last transaction, and so no inode has a greater number.
    last: Xid,
    chunk_bytes: u32,
    archive: &'a dyn Persisted,
    found: Found<'a>,
    stop: &'a AtomicBool,
    report: FsckReport,
    counted: Counters,
    /// Directories from which the way up leads to the root.
    rooted: HashSet<Ino>,
    /// Everything could be read, and so be counted.
    is_complete: bool,
    /// Reads the content of chunks.
    chunks: OrderedTables<'a>,
    /// What was read last.
    content: Vec<u8>,
    /// Where the walk through the inodes could read nothing.
    gaps: Vec<Gap>,
    /// Inodes in the gaps that were looked at, or found to be unreadable.
    hidden: HashSet<Ino>,
    /// What was told to be unreadable: each table of an inode is told once.
    unreadable: HashSet<(&'static str, Option<Ino>)>,
}

impl<'a> Scan<'a> {
    fn reader(&self) -> StoreReader<'a> {
        self.snapshot.reader()
    }

    fn find(&mut self, ino: Ino, problem: Problem) -> Result<(), FsError> {
        self.find_any(Some(ino), problem)
    }

    fn find_any(&mut self, ino: Option<Ino>, problem: Problem) -> Result<(), FsError> {
        self.report.n_findings += 1;
        (self.found)(Finding { ino, problem, repaired: false })
    }

    fn check_stop(&self) -> Result<(), FsError> {
        if self.stop.load(Ordering::Relaxed) { Err(FsError::Interrupted) } else { Ok(()) }
    }

    /// What was looked at; `None` if damage was met, which is a finding and not the end.
    fn tolerate<T>(&mut self, looked: Result<T, FsError>) -> Result<Option<T>, FsError> {
        match looked {
            Err(FsError::Damaged { ino, damage }) => {
                self.is_complete = false;
                self.find_any(ino, Problem::Damaged(damage))?;
                Ok(None)
            }
            Err(FsError::Unreadable { rows, source }) => {
                self.is_complete = false;
                if self.unreadable.insert((rows.table, rows.ino)) {
                    self.report.n_unreadable += 1;
                    let reason = with_causes(&FsError::Unreadable { rows, source });
                    let problem = Problem::RowsUnreadable { table: rows.table, reason };
                    self.find_any(rows.ino, problem)?;
                }
                Ok(None)
            }
            looked => looked.map(Some),
        }
    }

    fn inodes(&mut self) -> Result<(), FsError> {
        for found in self.snapshot.inode_rows() {
            self.check_stop()?;
            match found? {
                InodeFound::Row(InodeRow { attr: Some(attr), .. }) => self.inode(&attr)?,
                InodeFound::Row(InodeRow { ino: Some(ino), attr: None }) => {
                    self.unreadable_inode(ino)?;
                }
                InodeFound::Row(InodeRow { ino: None, attr: None }) => {
                    self.is_complete = false;
                    let can_be_recreated = false;
                    self.find_any(None, Problem::AttributesUnreadable { can_be_recreated })?;
                }
                InodeFound::Gap(gap) => {
                    self.gap(Table::Inodes, &gap)?;
                    self.gaps.push(gap);
                }
            }
        }
        Ok(())
    }

    fn inode(&mut self, attr: &FileAttr) -> Result<(), FsError> {
        self.report.n_inodes += 1;
        self.counted.n_inodes += 1;
        // What else is wrong with its names, or its data, is not seen; the others are.
        let names = self.names(attr);
        self.tolerate(names)?;
        let data = self.data(attr);
        self.tolerate(data)?;
        Ok(())
    }

    /// An inode whose attributes cannot be read.
    fn unreadable_inode(&mut self, ino: Ino) -> Result<(), FsError> {
        self.is_complete = false;
        let is_empty = self.reader().is_empty_dir(ino);
        let is_dir = ino == Ino::ROOT || self.tolerate(is_empty)? == Some(false);
        let can_be_recreated = is_dir && self.can_be_recreated(ino)?;
        self.find(ino, Problem::AttributesUnreadable { can_be_recreated })
    }

    /// A part of a table that could not be read in order.
    fn gap(&mut self, table: Table, gap: &Gap) -> Result<(), FsError> {
        self.is_complete = false;
        self.report.n_unreadable += 1;
        let Gap { from, until, reason } = gap.clone();
        self.find_any(None, Problem::TableUnreadable { table, from, until, reason })
    }

    /// An inode that another table names, if the walk through the inodes could not read it.
    fn hidden_inode(&mut self, ino: Ino) -> Result<(), FsError> {
        let is_hidden = self.gaps.iter().any(|gap| gap.contains(ino));
        if !is_hidden || !self.hidden.insert(ino) {
            return Ok(());
        }
        match self.reader().find_attr(ino) {
            Ok(Some(attr)) => self.inode(&attr),
            Ok(None) => Ok(()),
            Err(error) if error.is_damage() => self.unreadable_inode(ino),
            Err(error) => Err(error),
        }
    }

    /// Whether what is known to be a directory can have new attributes: nothing else is known of
    /// its number.
    fn can_be_recreated(&mut self, dir: Ino) -> Result<bool, FsError> {
        let is_known = dir == Ino::ROOT || dir.get() <= self.last.get();
        let has_data = self.reader().has_data(dir);
        // What cannot be read may be data.
        Ok(self.tolerate(has_data)? == Some(false) && is_known)
    }
}

fn is_directory(attr: &FileAttr) -> bool {
    matches!(attr.kind, FileKind::Directory)
}
