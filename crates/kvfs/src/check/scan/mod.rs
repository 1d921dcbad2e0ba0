//! The scan: one pass over a KVS snapshot that finds everything that contradicts itself.
//!
//! It goes through the inodes in order, and from each to its names (`names`) and its data (`data`);
//! then through all other tables for rows of inodes that do not exist (`owners`); and compares the
//! totals with what it counted on the way (`totals`). Memory does not grow with the store, but for
//! the set of directories from which the way up is known to lead to the root. What cannot be
//! decoded is a finding and ends only the look at its inode; then the totals are not certain, and
//! no repair sets them.

mod data;
mod names;
mod owners;
mod totals;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use tier_types::{FileAttr, FileKind, Ino, Persisted, Xid};

use super::problem::{Finding, FsckReport, Problem};
use crate::FsError;
use crate::core::Core;
use crate::store::{Counters, KvsSnapshot, StoreReader};

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

    fn inodes(&mut self) -> Result<(), FsError> {
        for row in self.snapshot.inode_rows() {
            self.check_stop()?;
            let row = row?;
            match (row.ino, row.attr) {
                (_, Some(attr)) => match self.inode(&attr) {
                    // What else is wrong with this one is not seen; the others are.
                    Err(FsError::Damaged { ino, damage }) => {
                        self.is_complete = false;
                        self.find_any(ino, Problem::Damaged(damage))?;
                    }
                    checked => checked?,
                },
                (Some(ino), None) => {
                    self.is_complete = false;
                    let is_dir = ino == Ino::ROOT || !self.reader().is_empty_dir(ino)?;
                    let can_be_recreated = is_dir && self.can_be_recreated(ino)?;
                    self.find(ino, Problem::AttributesUnreadable { can_be_recreated })?;
                }
                (None, None) => {
                    self.is_complete = false;
                    let can_be_recreated = false;
                    self.find_any(None, Problem::AttributesUnreadable { can_be_recreated })?;
                }
            }
        }
        Ok(())
    }

    fn inode(&mut self, attr: &FileAttr) -> Result<(), FsError> {
        self.report.n_inodes += 1;
        self.counted.n_inodes += 1;
        self.names(attr)?;
        self.data(attr)
    }

    /// Whether what is known to be a directory can have new attributes: nothing else is known of
    /// its number.
    fn can_be_recreated(&self, dir: Ino) -> Result<bool, FsError> {
        let is_known = dir == Ino::ROOT || dir.get() <= self.last.get();
        Ok(is_known && !self.reader().has_data(dir)?)
    }
}

fn is_directory(attr: &FileAttr) -> bool {
    matches!(attr.kind, FileKind::Directory)
}
