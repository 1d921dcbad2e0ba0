//! The store against itself, and against the archive.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, ChunkState, FileAttr, FileKind, FileName, Ino, Link, Persisted,
    Xid, to_u64,
};

use crate::counters::Counters;
use crate::db::SnapshotView;
use crate::fs::Kvfs;
use crate::repair::Repair;
use crate::schema::{self, META_COUNTERS, Table};
use crate::view::View;
use crate::{FsError, patch, value};

/// A contradiction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The inode that it concerns; zero for the whole.
    pub ino: Ino,
    /// What is wrong, or was.
    pub problem: String,
    /// Whether it was put right.
    pub repaired: bool,
}

/// What was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FsckReport {
    /// Inodes.
    pub n_inodes: u64,
    /// Names.
    pub n_entries: u64,
    /// Chunks in the store.
    pub n_chunks: u64,
    /// Evicted runs that the archive was asked for.
    pub n_cold_runs: u64,
    /// Contradictions that are there.
    pub n_findings: u64,
    /// Contradictions that were put right.
    pub n_repaired: u64,
}

/// Tables whose keys begin with the number of an inode that must exist.
const OF_INODES: [Table; 10] = [
    Table::Entries,
    Table::Cookies,
    Table::Links,
    Table::Xattrs,
    Table::Map,
    Table::Chunks,
    Table::Resident,
    Table::Orphans,
    Table::Warm,
    Table::Pins,
];

impl Kvfs {
    /// Checks that every entry has its inode and every inode its names, that link counts are right,
    /// that chunk maps and chunks agree, that the archive has what was evicted, and that the totals
    /// are the sums. It looks at one point in time, reads all that is in the store, and changes
    /// nothing. It ends with [`FsError::Interrupted`] when `stop` becomes true.
    pub fn fsck(
        &self,
        archive: &dyn Persisted,
        found: &mut dyn FnMut(Finding),
        stop: &AtomicBool,
    ) -> Result<FsckReport, FsError> {
        let mut tell = |finding: Finding, _| {
            found(finding);
            Ok(())
        };
        self.check(archive, &mut tell, stop)
    }

    /// The same; with each contradiction comes what would put it right, if anything would.
    pub(crate) fn check(
        &self,
        archive: &dyn Persisted,
        found: Found<'_>,
        stop: &AtomicBool,
    ) -> Result<FsckReport, FsError> {
        let (snapshot, last) = self.committer.snapshot();
        let mut check = Check {
            view: View(&snapshot),
            last,
            chunk_bytes: self.chunk_bytes,
            archive,
            found,
            stop,
            report: FsckReport::default(),
            counted: Counters::default(),
            rooted: HashSet::from([Ino::ROOT]),
            complete: true,
        };
        check.root()?;
        check.inodes(&snapshot)?;
        check.owners(&snapshot)?;
        check.totals()?;
        Ok(check.report)
    }
}

/// Hears of every contradiction.
pub(crate) type Found<'a> = &'a mut dyn FnMut(Finding, Option<Repair>) -> Result<(), FsError>;

struct Check<'a> {
    view: View<'a>,
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
    complete: bool,
}

impl Check<'_> {
    fn find(
        &mut self,
        ino: Ino,
        problem: impl Into<String>,
        repair: impl Into<Option<Repair>>,
    ) -> Result<(), FsError> {
        self.report.n_findings += 1;
        (self.found)(Finding { ino, problem: problem.into(), repaired: false }, repair.into())
    }

    fn check_stop(&self) -> Result<(), FsError> {
        if self.stop.load(Ordering::Relaxed) { Err(FsError::Interrupted) } else { Ok(()) }
    }

    fn root(&mut self) -> Result<(), FsError> {
        if self.view.0.get(Table::Inodes, &schema::ino(Ino::ROOT))?.is_none() {
            let repair = self.lost_directory(Ino::ROOT)?;
            self.find(Ino::ROOT, "the root does not exist", repair)?;
        }
        for link in self.view.links(Ino::ROOT)? {
            self.find(Ino::ROOT, "the root has a name", Repair::RootName { link })?;
        }
        Ok(())
    }

    /// What is known to be a directory can have new attributes, if nothing else is known of it.
    fn lost_directory(&self, ino: Ino) -> Result<Option<Repair>, FsError> {
        let fits = ino == Ino::ROOT || ino.get() <= self.last.get();
        Ok((fits && !self.has_data(ino)?).then_some(Repair::Directory { ino }))
    }

    fn has_data(&self, ino: Ino) -> Result<bool, FsError> {
        let (from, until) = (schema::ino(ino), schema::ino(ino.next()));
        for table in [Table::Map, Table::Chunks] {
            if self.view.0.scan(table, &from, &until)?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn inodes(&mut self, snapshot: &SnapshotView) -> Result<(), FsError> {
        let mut cursor = snapshot.cursor(Table::Inodes)?;
        let mut at = cursor.at_or_after(&schema::ino(Ino::new(0)))?;
        while let Some((key, bytes)) = at {
            self.check_stop()?;
            let number = schema::take_number(key).map_or(0, |(number, _)| number);
            let ino = Ino::new(number);
            match value::attr_from_bytes(ino, bytes) {
                Some(attr) => match self.inode(&attr) {
                    // What else is wrong with this one is not seen; the others are.
                    Err(FsError::Damaged { ino, problem }) => {
                        self.complete = false;
                        self.find(ino, problem, None)?;
                    }
                    checked => checked?,
                },
                None => {
                    self.complete = false;
                    let is_dir = ino == Ino::ROOT || !self.view.is_empty_dir(ino)?;
                    let repair = if is_dir { self.lost_directory(ino)? } else { None };
                    self.find(ino, "its attributes cannot be read", repair)?;
                }
            }
            at = cursor.next()?;
        }
        Ok(())
    }

    fn inode(&mut self, attr: &FileAttr) -> Result<(), FsError> {
        self.report.n_inodes += 1;
        self.counted.n_inodes += 1;
        let ino = attr.ino;
        let n_links = self.links(ino)?;
        let directory = matches!(attr.kind, FileKind::Directory);
        let (n_dirs, all) = if directory { self.entries(ino)? } else { (0, true) };
        let expected = if directory { 2 + n_dirs } else { n_links };
        let listed = self.view.0.get(Table::Orphans, &schema::ino(ino))?.is_some();
        let named = n_links > 0 || ino == Ino::ROOT;
        // What is counted as having a name has lost it.
        let orphan = listed && attr.nlink == 0;
        if named && listed {
            let problem = "it has a name and is listed as having none";
            self.find(ino, problem, Repair::NoOrphan { ino })?;
        }
        if !named && !orphan {
            self.find(ino, "it has no name", Repair::Home { ino })?;
        }
        if directory && n_links > 1 {
            self.find(ino, "a directory has several names", None)?;
        }
        if directory && named && !self.reaches_root(ino)? {
            let problem = "the way up from it does not lead to the root";
            self.find(ino, problem, Repair::Home { ino })?;
        }
        let expected = if directory && !named { 0 } else { expected };
        if u64::from(attr.nlink) != expected {
            let problem = format!("its link count is {}, not {expected}", attr.nlink);
            let repair = Repair::LinkCount { ino, n_links: expected };
            // What has no name and should have one must not end for the want of it.
            self.find(ino, problem, (all && (named || orphan)).then_some(repair))?;
        }
        self.map(attr)
    }

    /// The number of names; each must be in its directory.
    fn links(&mut self, ino: Ino) -> Result<u64, FsError> {
        let links = self.view.links(ino)?;
        let n_links = to_u64(links.len());
        // The root has none: that is found by itself.
        for link in links.into_iter().filter(|_| ino != Ino::ROOT) {
            let entry = match self.view.entry(link.parent, &link.name) {
                // It is found with its directory, too.
                Err(FsError::Damaged { .. }) => None,
                entry => entry?,
            };
            if entry.map(|(of, _)| of) != Some(ino) {
                if !matches!(self.view.find_attr(link.parent), Ok(Some(_))) {
                    let repair = self.lost_directory(link.parent)?;
                    self.find(ino, format!("its directory {} is lost", link.parent), repair)?;
                }
                let problem =
                    format!("directory {} does not know it as {}", link.parent, link.name);
                self.find(ino, problem, Repair::MissingEntry { ino, link })?;
            }
        }
        Ok(n_links)
    }

    /// The number of directories in a directory, whose entries are checked, and whether all of
    /// them could be read.
    fn entries(&mut self, dir: Ino) -> Result<(u64, bool), FsError> {
        let (from, until) = (schema::ino(dir), schema::ino(dir.next()));
        let (mut n_entries, mut n_cookies, mut n_dirs, mut all) = (0_u64, 0_u64, 0, true);
        for pair in self.view.0.scan(Table::Entries, &from, &until)? {
            let (key, bytes) = pair?;
            n_entries += 1;
            let name = FileName::new(key.get(8..).unwrap_or_default());
            let (Some(name), Some((ino, cookie))) = (name, value::entry_from_bytes(&bytes)) else {
                let name = key.get(8..).unwrap_or_default().to_vec();
                self.find(dir, "an entry cannot be read", Repair::DropEntry { dir, name })?;
                continue;
            };
            let known = self.view.0.get(Table::Links, &schema::link(ino, dir, &name))?.is_some();
            match self.view.find_attr(ino) {
                // It is found by itself.
                Err(FsError::Damaged { .. }) => all = false,
                Err(error) => return Err(error),
                Ok(None) => {
                    let problem = format!("its entry {name} is of inode {ino}, which is gone");
                    let repair = Repair::DropEntry { dir, name: name.as_bytes().to_vec() };
                    // Its attributes may be all that is lost of it.
                    let is_dead = !known && !self.has_data(ino)?;
                    self.find(dir, problem, is_dead.then_some(repair))?;
                }
                Ok(Some(attr)) => n_dirs += u64::from(matches!(attr.kind, FileKind::Directory)),
            }
            if !known {
                let problem = format!("it does not know its name {name} in directory {dir}");
                let link = Link { parent: dir, name: name.clone() };
                self.find(ino, problem, Repair::MissingLink { ino, link })?;
            }
            let listed = self.view.0.get(Table::Cookies, &schema::pair(dir.get(), cookie))?;
            if listed.as_deref() != Some(name.as_bytes()) {
                let problem = format!("its entry {name} is not listed at its place");
                self.find(dir, problem, Repair::Relist { dir, name })?;
            }
        }
        for pair in self.view.0.scan(Table::Cookies, &from, &until)? {
            pair?;
            n_cookies += 1;
        }
        if n_cookies != n_entries {
            let problem = format!("it lists {n_cookies} names and has {n_entries}");
            self.find(dir, problem, Repair::SweepCookies { dir })?;
        }
        self.report.n_entries += n_entries;
        Ok((n_dirs, all))
    }

    fn reaches_root(&mut self, dir: Ino) -> Result<bool, FsError> {
        let mut way = Vec::new();
        let mut seen = HashSet::new();
        let mut at = dir;
        while !self.rooted.contains(&at) {
            if !seen.insert(at) {
                return Ok(false);
            }
            way.push(at);
            let Some(link) = self.view.first_link(at)? else { return Ok(false) };
            at = link.parent;
        }
        self.rooted.extend(way);
        Ok(true)
    }

    fn map(&mut self, attr: &FileAttr) -> Result<(), FsError> {
        let ino = attr.ino;
        let mut before = self.counted;
        let mut warm = false;
        for run in self.view.all_runs(ino, ChunkNo::new(0)) {
            let run = run?;
            let bytes = run.chunks.len_bytes(self.chunk_bytes, attr.size_bytes);
            self.counted.count(run.state, bytes, 1);
            warm |= run.state == ChunkState::Warm;
            if run.state != ChunkState::Hole && !matches!(attr.kind, FileKind::Regular) {
                self.find(ino, "it has data and is no regular file", None)?;
            }
            self.run(attr, &run)?;
        }
        before.resident_bytes = self.counted.resident_bytes - before.resident_bytes;
        let problem = match self.view.resident_bytes(ino) {
            Err(FsError::Damaged { problem, .. }) => Some(problem.to_string()),
            Err(error) => return Err(error),
            Ok(kept) if i64::try_from(kept) == Ok(before.resident_bytes) => None,
            Ok(kept) => {
                let sum = before.resident_bytes;
                Some(format!("{kept} bytes of it are said to be local, and {sum} are"))
            }
        };
        if let Some(problem) = problem {
            self.find(ino, problem, Repair::Resident { ino })?;
        }
        if warm && self.view.0.get(Table::Warm, &schema::ino(ino))?.is_none() {
            let problem = "it has recalled data and is not listed as having some";
            self.find(ino, problem, Repair::Warm { ino })?;
        }
        Ok(())
    }

    fn run(&mut self, attr: &FileAttr, run: &ChunkRun) -> Result<(), FsError> {
        self.check_stop()?;
        let (ino, ChunkRun { chunks, state, data_xid }) = (attr.ino, *run);
        let archived = state != ChunkState::Cold || self.is_archived(ino, chunks, data_xid)?;
        let (from, until) = (schema::chunk(ino, chunks.start()), schema::chunk(ino, chunks.end()));
        let mut expected = chunks.start();
        let resident = matches!(state, ChunkState::Hot | ChunkState::Warm);
        for pair in self.view.0.scan(Table::Chunks, &from, &until)? {
            let (key, content) = pair?;
            let chunk = schema::parse_pair(&key).map_or(ChunkNo::END, |(_, n)| ChunkNo::new(n));
            self.report.n_chunks += 1;
            if !resident {
                let problem =
                    format!("chunk {chunk} is in the store, and its map knows nothing of it");
                // Within the file it may be data whose place in the map is lost.
                let start = chunk.get().saturating_mul(u64::from(self.chunk_bytes));
                let beyond = state == ChunkState::Hole && start >= attr.size_bytes;
                let repair = beyond.then_some(Repair::DropChunk { ino, chunk });
                self.find(ino, problem, repair)?;
                continue;
            }
            if let Some(missing) = ChunkRange::new(expected, chunk) {
                self.lost(ino, missing, data_xid)?;
            }
            if let Some(one) = ChunkRange::one(chunk).filter(|_| patch::is_lost(&content)) {
                self.lost(ino, one, data_xid)?;
            }
            expected = chunk.next();
        }
        if let Some(missing) = ChunkRange::new(expected, chunks.end()).filter(|_| resident) {
            self.lost(ino, missing, data_xid)?;
        }
        self.report.n_cold_runs += u64::from(state == ChunkState::Cold);
        if !archived {
            let problem =
                format!("the archive does not have its evicted chunks {chunks} of xid {data_xid}");
            self.find(ino, problem, None)?;
        }
        Ok(())
    }

    /// Chunks that should be in the store and are not. If the archive has just this version of
    /// them, they come from there.
    fn lost(&mut self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<(), FsError> {
        let archived = self.is_archived(ino, chunks, data_xid)?;
        let repair = archived.then_some(Repair::MakeCold { ino, chunks, data_xid });
        self.find(ino, format!("its chunks {chunks} have neither data nor detour"), repair)
    }

    fn is_archived(&self, ino: Ino, chunks: ChunkRange, data_xid: Xid) -> Result<bool, FsError> {
        let there = self.archive.is_persisted(ino, chunks, data_xid);
        there.map_err(|source| FsError::Recall { ino, source })
    }

    /// What is kept of an inode that does not exist.
    fn owners(&mut self, snapshot: &SnapshotView) -> Result<(), FsError> {
        for table in OF_INODES {
            let mut inodes = snapshot.cursor(Table::Inodes)?;
            let mut rows = snapshot.cursor(table)?;
            let mut from = Ino::new(0);
            while let Some((key, _)) = rows.at_or_after(&schema::ino(from))? {
                let Some((number, _)) = schema::take_number(key) else {
                    let name = table.name();
                    let problem = format!("a key of table {name} cannot be read");
                    self.find(Ino::new(0), problem, None)?;
                    break;
                };
                self.check_stop()?;
                let ino = Ino::new(number);
                let key = schema::ino(ino);
                if inodes.at_or_after(&key)?.is_none_or(|(at, _)| *at != key) {
                    let name = table.name();
                    let problem =
                        format!("it does not exist, and table {name} has something of it");
                    let repair = if table == Table::Entries {
                        self.lost_directory(ino)?
                    } else {
                        Some(Repair::Unowned { table, ino })
                    };
                    self.find(ino, problem, repair)?;
                }
                self.counted.n_pins += i64::from(table == Table::Pins);
                if number == u64::MAX {
                    break;
                }
                from = ino.next();
            }
        }
        Ok(())
    }

    fn totals(&mut self) -> Result<(), FsError> {
        let bytes = self.view.0.get(Table::Meta, META_COUNTERS)?;
        let kept = bytes.and_then(|bytes| value::counters_from_bytes(&bytes));
        let counted = self.counted;
        if kept != Some(counted) {
            let problem = format!("the totals are {kept:?}, and the sums {counted:?}");
            let repair = self.complete.then_some(Repair::Totals { counted });
            self.find(Ino::new(0), problem, repair)?;
        }
        let mut expected = None;
        for pair in self.view.0.scan(Table::Log, &[], &[0xff; 9])? {
            let number = schema::take_number(&pair?.0).map_or(0, |(number, _)| number);
            if expected.is_some_and(|expected| expected != number) {
                let problem = format!("the log has a gap before xid {number}");
                self.find(Ino::new(0), problem, None)?;
            }
            expected = Some(number + 1);
        }
        if expected.is_some_and(|expected| expected != self.last.get() + 1) {
            self.find(Ino::new(0), "the log does not end at the last transaction", None)?;
        }
        Ok(())
    }
}
