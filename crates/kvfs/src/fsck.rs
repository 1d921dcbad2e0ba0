//! The store against itself, and against the archive.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use tier_types::{
    ChunkNo, ChunkRun, ChunkState, FileAttr, FileKind, FileName, Ino, Persisted, Xid, to_u64,
};

use crate::counters::Counters;
use crate::db::SnapshotView;
use crate::fs::Kvfs;
use crate::schema::{self, META_COUNTERS, Table};
use crate::view::View;
use crate::{FsError, patch, value};

/// A contradiction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The inode that it concerns; zero for the whole.
    pub ino: Ino,
    /// What is wrong.
    pub problem: String,
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
    /// Contradictions.
    pub n_findings: u64,
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
        let (snapshot, last) = self.committer.snapshot();
        let mut check = Check {
            view: View(&snapshot),
            chunk_bytes: self.chunk_bytes,
            archive,
            found,
            stop,
            report: FsckReport::default(),
            counted: Counters::default(),
            rooted: HashSet::from([Ino::ROOT]),
        };
        check.inodes(&snapshot)?;
        check.owners(&snapshot)?;
        check.totals(last)?;
        Ok(check.report)
    }
}

struct Check<'a> {
    view: View<'a>,
    chunk_bytes: u32,
    archive: &'a dyn Persisted,
    found: &'a mut dyn FnMut(Finding),
    stop: &'a AtomicBool,
    report: FsckReport,
    counted: Counters,
    /// Directories from which the way up leads to the root.
    rooted: HashSet<Ino>,
}

impl Check<'_> {
    fn find(&mut self, ino: Ino, problem: impl Into<String>) {
        self.report.n_findings += 1;
        (self.found)(Finding { ino, problem: problem.into() });
    }

    fn inodes(&mut self, snapshot: &SnapshotView) -> Result<(), FsError> {
        let mut cursor = snapshot.cursor(Table::Inodes)?;
        let mut at = cursor.at_or_after(&schema::ino(Ino::new(0)))?;
        while let Some((key, bytes)) = at {
            if self.stop.load(Ordering::Relaxed) {
                return Err(FsError::Interrupted);
            }
            let number = schema::take_number(key).map_or(0, |(number, _)| number);
            let ino = Ino::new(number);
            match value::attr_from_bytes(ino, bytes) {
                Some(attr) => match self.inode(&attr) {
                    // What else is wrong with this one is not seen; the others are.
                    Err(FsError::Damaged { ino, problem }) => self.find(ino, problem),
                    checked => checked?,
                },
                None => self.find(ino, "its attributes cannot be read"),
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
        let expected = if directory { 2 + self.entries(ino)? } else { n_links };
        let orphan = self.view.0.get(Table::Orphans, &schema::ino(ino))?.is_some();
        let named = n_links > 0 || ino == Ino::ROOT;
        if orphan == named {
            let problem =
                if named { "it has a name and is listed as having none" } else { "it has no name" };
            self.find(ino, problem);
        }
        if directory && n_links > 1 {
            self.find(ino, "a directory has several names");
        }
        if directory && named && !self.reaches_root(ino)? {
            self.find(ino, "the way up from it does not lead to the root");
        }
        let expected = if directory && !named { 0 } else { expected };
        if u64::from(attr.nlink) != expected {
            self.find(ino, format!("its link count is {}, not {expected}", attr.nlink));
        }
        self.map(attr)
    }

    /// The number of names; each must be in its directory.
    fn links(&mut self, ino: Ino) -> Result<u64, FsError> {
        let links = self.view.links(ino)?;
        for link in &links {
            let entry = self.view.entry(link.parent, &link.name)?;
            if entry.map(|(of, _)| of) != Some(ino) {
                self.find(
                    ino,
                    format!("directory {} does not know it as {}", link.parent, link.name),
                );
            }
        }
        Ok(to_u64(links.len()))
    }

    /// The number of directories in a directory, whose entries are checked.
    fn entries(&mut self, dir: Ino) -> Result<u64, FsError> {
        let (from, until) = (schema::ino(dir), schema::ino(dir.next()));
        let (mut n_entries, mut n_cookies, mut n_dirs) = (0_u64, 0_u64, 0);
        for pair in self.view.0.scan(Table::Entries, &from, &until)? {
            let (key, bytes) = pair?;
            n_entries += 1;
            let name = FileName::new(key.get(8..).unwrap_or_default());
            let (Some(name), Some((ino, cookie))) = (name, value::entry_from_bytes(&bytes)) else {
                self.find(dir, "an entry cannot be read");
                continue;
            };
            match self.view.find_attr(ino) {
                // It is found by itself.
                Err(FsError::Damaged { .. }) => {}
                Err(error) => return Err(error),
                Ok(None) => {
                    self.find(dir, format!("its entry {name} is of inode {ino}, which is gone"));
                }
                Ok(Some(attr)) => n_dirs += u64::from(matches!(attr.kind, FileKind::Directory)),
            }
            if self.view.0.get(Table::Links, &schema::link(ino, dir, &name))?.is_none() {
                self.find(ino, format!("it does not know its name {name} in directory {dir}"));
            }
            let listed = self.view.0.get(Table::Cookies, &schema::pair(dir.get(), cookie))?;
            if listed.as_deref() != Some(name.as_bytes()) {
                self.find(dir, format!("its entry {name} is not listed at its place"));
            }
        }
        for pair in self.view.0.scan(Table::Cookies, &from, &until)? {
            pair?;
            n_cookies += 1;
        }
        if n_cookies != n_entries {
            self.find(dir, format!("it lists {n_cookies} names and has {n_entries}"));
        }
        self.report.n_entries += n_entries;
        Ok(n_dirs)
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
                self.find(ino, "it has data and is no regular file");
            }
            self.run(ino, &run)?;
        }
        before.resident_bytes = self.counted.resident_bytes - before.resident_bytes;
        let kept = self.view.resident_bytes(ino)?;
        if i64::try_from(kept) != Ok(before.resident_bytes) {
            let sum = before.resident_bytes;
            self.find(ino, format!("{kept} bytes of it are said to be local, and {sum} are"));
        }
        if warm && self.view.0.get(Table::Warm, &schema::ino(ino))?.is_none() {
            self.find(ino, "it has recalled data and is not listed as having some");
        }
        Ok(())
    }

    fn run(&mut self, ino: Ino, run: &ChunkRun) -> Result<(), FsError> {
        let ChunkRun { chunks, state, data_xid } = *run;
        let (from, until) = (schema::chunk(ino, chunks.start()), schema::chunk(ino, chunks.end()));
        let mut expected = chunks.start().get();
        let resident = matches!(state, ChunkState::Hot | ChunkState::Warm);
        for pair in self.view.0.scan(Table::Chunks, &from, &until)? {
            let (key, content) = pair?;
            let number = schema::parse_pair(&key).map_or(u64::MAX, |(_, number)| number);
            self.report.n_chunks += 1;
            if !resident {
                self.find(
                    ino,
                    format!("chunk {number} is in the store, and its map knows nothing of it"),
                );
            } else if number != expected {
                self.find(
                    ino,
                    format!("chunks from {expected} up to {number} have neither data nor detour"),
                );
            } else if patch::is_lost(&content) {
                self.find(ino, format!("the content of chunk {number} is lost"));
            }
            expected = number.saturating_add(1);
        }
        if resident && expected < chunks.end().get() {
            self.find(ino, format!("chunks from {expected} on have neither data nor detour"));
        }
        if state == ChunkState::Cold {
            self.report.n_cold_runs += 1;
            let there = self.archive.is_persisted(ino, chunks, data_xid);
            if !there.map_err(|source| FsError::Recall { ino, source })? {
                self.find(
                    ino,
                    format!(
                        "the archive does not have its evicted chunks {chunks} of xid {data_xid}"
                    ),
                );
            }
        }
        Ok(())
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
                    self.find(Ino::new(0), format!("a key of table {name} cannot be read"));
                    break;
                };
                let ino = Ino::new(number);
                let key = schema::ino(ino);
                if inodes.at_or_after(&key)?.is_none_or(|(at, _)| *at != key) {
                    let name = table.name();
                    self.find(
                        ino,
                        format!("it does not exist, and table {name} has something of it"),
                    );
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

    fn totals(&mut self, last: Xid) -> Result<(), FsError> {
        let bytes = self.view.0.get(Table::Meta, META_COUNTERS)?;
        let kept = bytes.and_then(|bytes| value::counters_from_bytes(&bytes));
        let counted = self.counted;
        if kept != Some(counted) {
            self.find(Ino::new(0), format!("the totals are {kept:?}, and the sums {counted:?}"));
        }
        let mut expected = None;
        for pair in self.view.0.scan(Table::Log, &[], &[0xff; 9])? {
            let number = schema::take_number(&pair?.0).map_or(0, |(number, _)| number);
            if expected.is_some_and(|expected| expected != number) {
                self.find(Ino::new(0), format!("the log has a gap before xid {number}"));
            }
            expected = Some(number + 1);
        }
        if expected.is_some_and(|expected| expected != last.get() + 1) {
            self.find(Ino::new(0), "the log does not end at the last transaction");
        }
        Ok(())
    }
}
