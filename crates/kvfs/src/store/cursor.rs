//! Cursors: reads of a KVS snapshot in order of keys.
//!
//! A walk through all inodes reads five tables side by side. A point read for each row would cost a
//! seek through every level of the store; a cursor that already stands close by takes a few steps
//! instead, and no move at all where it knows that the table is empty up to its place
//! (`docs/adr/0009`). Two kinds of typed reads stand on cursors: [`OrderedReader`], which answers
//! questions about one inode after the other, and the walks of the check (`walks`), which see every
//! row, readable or not.

use std::collections::{HashMap, hash_map};

use rocksdb::DBRawIterator;
use tier_types::{ChunkNo, ChunkRange, ChunkRun, FileAttr, Ino, Link, Xattr};

use super::cuts::{CutMarks, EffectiveRuns};
use super::db::KvsSnapshot;
use super::decode::{parse_run, run, xattr_name};
use super::extents::Assembler;
use super::keys::{self, Table};
use super::rows::{self, RunState};
use super::{failure, tuning};
use crate::FsError;
use crate::error::Damage;

/// Pairs that a cursor steps over before it seeks.
const N_STEPS_MAX: usize = 16;

/// Key and value, where they are.
pub(super) type Item<'a> = (&'a [u8], &'a [u8]);

/// A place in a table of a snapshot that mostly moves forward: a step there is far cheaper than a
/// seek, and no move at all where the table is known to be empty.
pub(super) struct Cursor<'a> {
    snapshot: &'a KvsSnapshot,
    table: Table,
    iterator: DBRawIterator<'a>,
    n_steps_max: usize,
    /// The table holds nothing from this key up to the place; `None` before the first move.
    empty_from: Option<Vec<u8>>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(snapshot: &'a KvsSnapshot, table: Table) -> Self {
        let iterator = snapshot.raw_iterator(table, tuning::walk());
        // A step over a chunk reads it.
        let n_steps_max = if table == Table::Chunks { 1 } else { N_STEPS_MAX };
        Self { snapshot, table, iterator, n_steps_max, empty_from: None }
    }

    /// Moves to the first pair at or after `key`, and returns it.
    pub(super) fn at_or_after(&mut self, key: &[u8]) -> Result<Option<Item<'_>>, FsError> {
        let forward = self.empty_from.as_ref().is_some_and(|from| from.as_slice() <= key);
        let mut n_steps = 0;
        let behind = |iterator: &DBRawIterator<'_>| iterator.key().is_some_and(|at| at < key);
        while forward && n_steps < self.n_steps_max && behind(&self.iterator) {
            self.iterator.next();
            n_steps += 1;
        }
        // An error of a pair that was only stepped over is not one of this key.
        if !forward || behind(&self.iterator) || self.iterator.status().is_err() {
            self.iterator.seek(key);
        }
        let empty_from = self.empty_from.get_or_insert_default();
        empty_from.clear();
        empty_from.extend_from_slice(key);
        self.item(key)
    }

    /// Moves to the pair after the one it is at, and returns it.
    pub(super) fn next(&mut self) -> Result<Option<Item<'_>>, FsError> {
        let Some(at) = self.iterator.key() else {
            // Nothing follows the end, and what stands in the way is asked for by its key.
            return Ok(None);
        };
        let behind = [at, &[0]].concat();
        self.iterator.next();
        self.empty_from = Some(behind.clone());
        self.item(&behind)
    }

    /// Moves to the last pair at or before `key`, and returns it.
    fn at_or_before(&mut self, key: &[u8]) -> Result<Option<Item<'_>>, FsError> {
        self.iterator.seek_for_prev(key);
        self.empty_from = self.iterator.key().map(<[u8]>::to_vec);
        self.item(key)
    }

    /// The first inode at or behind `from` at which the table can be read again, although it
    /// cannot at `from`; `None` if there is none. What a damaged block holds is not known, so that
    /// its end is searched: with steps that double until one comes behind it, and then between the
    /// last two. A readable row between two damaged blocks may be passed over.
    pub(super) fn behind_damage(&mut self, from: Ino) -> Result<Option<Ino>, FsError> {
        let (mut damaged, mut step) = (from.get(), 1_u64);
        let mut readable = loop {
            let Some(probe) = damaged.checked_add(step) else { return Ok(None) };
            if self.can_read(probe)? {
                break probe;
            }
            (damaged, step) = (probe, step.saturating_mul(2));
        };
        while readable - damaged > 1 {
            let probe = damaged + (readable - damaged) / 2;
            if self.can_read(probe)? {
                readable = probe;
            } else {
                damaged = probe;
            }
        }
        Ok(Some(Ino::new(readable)))
    }

    fn can_read(&mut self, probe: u64) -> Result<bool, FsError> {
        match self.at_or_after(&keys::ino(Ino::new(probe))) {
            Err(error) if error.is_damage() => Ok(false),
            item => item.map(|_| true),
        }
    }

    /// The pair at the place, which a question about the row of `asked` led to.
    fn item(&mut self, asked: &[u8]) -> Result<Option<Item<'_>>, FsError> {
        self.snapshot.check()?;
        if let (None, Err(source)) = (self.iterator.key(), self.iterator.status()) {
            // What lies behind the damage is found by a seek.
            let rows = failure::row_at(self.table, asked);
            self.empty_from = None;
            return Err(self.snapshot.opened().not_read(rows, source));
        }
        Ok(self.iterator.item())
    }
}

/// Typed reads of a snapshot, cheap as long as they go from inode to inode in ascending order. For
/// one thread. Cursors are opened when they are first needed.
pub(crate) struct OrderedReader<'a> {
    snapshot: &'a KvsSnapshot,
    cursors: HashMap<Table, Cursor<'a>>,
}

impl<'a> OrderedReader<'a> {
    pub(crate) fn new(snapshot: &'a KvsSnapshot) -> Self {
        Self { snapshot, cursors: HashMap::new() }
    }

    fn cursor(&mut self, table: Table) -> &mut Cursor<'a> {
        match self.cursors.entry(table) {
            hash_map::Entry::Occupied(cursor) => cursor.into_mut(),
            hash_map::Entry::Vacant(vacant) => vacant.insert(Cursor::new(self.snapshot, table)),
        }
    }

    /// The inode's attributes; `None` if it does not exist.
    pub(crate) fn attr(&mut self, ino: Ino) -> Result<Option<FileAttr>, FsError> {
        let key = keys::ino(ino);
        let found = self.cursor(Table::Inodes).at_or_after(&key)?;
        let Some((_, bytes)) = found.filter(|(at, _)| *at == key) else { return Ok(None) };
        let attr = rows::attr_from_bytes(ino, bytes);
        attr.map(Some).ok_or_else(|| FsError::damaged(ino, Damage::Attributes))
    }

    /// The inode's names, sorted.
    pub(crate) fn links(&mut self, ino: Ino) -> Result<Vec<Link>, FsError> {
        let mut links = Vec::new();
        self.each_of(Table::Links, ino, |key, _| {
            let link = keys::parse_link(key);
            links.push(link.ok_or_else(|| FsError::damaged(ino, Damage::Link))?);
            Ok(())
        })?;
        Ok(links)
    }

    /// The inode's extended attributes, sorted by name.
    pub(crate) fn xattrs(&mut self, ino: Ino) -> Result<Vec<Xattr>, FsError> {
        let mut xattrs = Vec::new();
        self.each_of(Table::Xattrs, ino, |key, value| {
            let name = xattr_name(ino, key)?.to_vec();
            xattrs.push(Xattr { name, value: value.to_vec() });
            Ok(())
        })?;
        Ok(xattrs)
    }

    /// Calls `visit` for all pairs of a table whose key starts with the inode.
    fn each_of(
        &mut self,
        table: Table,
        ino: Ino,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let prefix = keys::ino(ino);
        let cursor = self.cursor(table);
        let mut item = cursor.at_or_after(&prefix)?;
        while let Some((key, value)) = item.filter(|(key, _)| key.starts_with(&prefix)) {
            visit(key, value)?;
            item = cursor.next()?;
        }
        Ok(())
    }

    /// The chunks that were cut while their runs are still in the map.
    fn cut_marks(&mut self, ino: Ino) -> Result<CutMarks, FsError> {
        let key = keys::ino(ino);
        let found = self.cursor(Table::Cuts).at_or_after(&key)?;
        let Some((_, bytes)) = found.filter(|(at, _)| *at == key) else {
            return Ok(CutMarks::default());
        };
        rows::cuts_from_bytes(bytes).ok_or_else(|| FsError::damaged(ino, Damage::CutMarks))
    }

    /// The runs of a total chunk map from `from` on, at most `n_max`; the first one is cut there.
    pub(crate) fn runs(
        &mut self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, FsError> {
        let mut runs = EffectiveRuns::new(self.cut_marks(ino)?, n_max);
        let key = keys::chunk(ino, from);
        let prefix = keys::ino(ino);
        // The run that holds a chunk may start far before it: that takes a look back, which a
        // cursor pays for with a seek.
        let cursor = self.cursor(Table::Map);
        // From the first chunk on it can be read without looking back.
        let holds_from = if from == ChunkNo::new(0) {
            cursor.at_or_after(&key)?.filter(|(at, _)| *at == key)
        } else {
            cursor.at_or_before(&key)?.filter(|(at, _)| at.starts_with(&prefix))
        };
        let mut state = match holds_from {
            Some((at, bytes)) => parse_run(ino, at, bytes)?.1,
            None => RunState::NEVER_WRITTEN,
        };
        let mut start = from;
        while !runs.is_full() {
            let after = cursor.at_or_after(&keys::chunk(ino, start.next()))?;
            let Some((at, bytes)) = after.filter(|(at, _)| at.starts_with(&prefix)) else {
                if let Some(run) = run(start, ChunkNo::END, state) {
                    runs.add(run);
                }
                break;
            };
            let (next, next_state) = parse_run(ino, at, bytes)?;
            // The end lies behind the last chunk of every file, so that no run can begin there.
            if next == ChunkNo::END {
                return Err(FsError::damaged(ino, Damage::RunBeyondEnd));
            }
            if let Some(run) = run(start, next, state) {
                runs.add(run);
            }
            (start, state) = (next, next_state);
        }
        Ok(runs.finish())
    }

    /// Appends resident chunks, each but the last filled up with zeros.
    pub(crate) fn read_chunks(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        chunk_bytes: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        let reader = self.snapshot.reader();
        let mut assembler = Assembler::new(self.snapshot.extent_files(), ino, chunk_bytes, out);
        let cursor = self.cursor(Table::Chunks);
        for number in chunks.start().get()..chunks.end().get() {
            let key = keys::pair(ino.get(), number);
            let item = match cursor.at_or_after(&key) {
                // A cursor fails at a damaged block whatever lies in it; this row may lie
                // elsewhere, or be newer.
                Err(error) if error.is_damage() => {
                    let row = reader.chunk_row(ino, ChunkNo::new(number))?;
                    assembler.push(row.as_deref())?;
                    continue;
                }
                item => item?,
            };
            let found = item.filter(|(at, _)| *at == key);
            assembler.push(found.map(|(_, row)| row))?;
        }
        assembler.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tier_types::{ChunkState, FileKind, Xid};

    use super::*;
    use crate::space::Permit;
    use crate::testing::{CHUNK, StandingClock, attr, committer, name, store};
    use crate::tx::Committer;

    /// Every third inode exists, every second of these has names, data and attributes.
    fn fill(committer: &Committer) {
        for number in (1..60).step_by(3) {
            let (ino, attr) = (Ino::new(number), attr(number, FileKind::Regular));
            committer
                .commit(Permit::unchecked(), 0, move |draft| {
                    draft.put_new_inode(&attr);
                    if number % 2 == 0 {
                        return;
                    }
                    for text in ["a", "b"] {
                        let link = Link { parent: Ino::new(1), name: name(text) };
                        draft.put_link(ino, &link);
                        draft.put_xattr(ino, text.as_bytes(), vec![1; 10]);
                    }
                    let hot = RunState { state: ChunkState::Hot, data_xid: Xid::new(number) };
                    draft.put_run(ino, ChunkNo::new(2), hot);
                    draft.put_run(ino, ChunkNo::new(4), RunState::NEVER_WRITTEN);
                    draft.put_chunk(ino, ChunkNo::new(2), &[2; 100]);
                    draft.put_chunk(ino, ChunkNo::new(3), &[3; 512]);
                })
                .unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// In whatever order it is asked, it says what single reads say.
        #[test]
        fn an_ordered_reader_says_what_single_reads_say(
            asked in prop::collection::vec((0..65_u64, 0..6_u64), 200),
        ) {
            let (_dir, db) = store();
            fill(&committer(&db, Arc::new(StandingClock)));
            let snapshot = KvsSnapshot::take(&db).unwrap();
            let mut ordered = OrderedReader::new(&snapshot);
            for (number, from) in asked {
                let (ino, from) = (Ino::new(number), ChunkNo::new(from));
                prop_assert_eq!(ordered.attr(ino).unwrap(), db.reader().find_attr(ino).unwrap());
                prop_assert_eq!(ordered.links(ino).unwrap(), db.reader().links(ino).unwrap());
                prop_assert_eq!(ordered.xattrs(ino).unwrap(), db.reader().xattrs(ino).unwrap());
                let runs = ordered.runs(ino, from, 2).unwrap();
                prop_assert_eq!(runs, db.reader().runs(ino, from, 2).unwrap());
            }
        }
    }

    #[test]
    fn chunks_are_filled_up_and_lost_ones_are_damage() {
        let (_dir, db) = store();
        fill(&committer(&db, Arc::new(StandingClock)));
        let snapshot = KvsSnapshot::take(&db).unwrap();
        let mut ordered = OrderedReader::new(&snapshot);
        let range = |start, end| ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap();
        let mut data = b"before".to_vec();
        ordered.read_chunks(Ino::new(7), range(2, 4), CHUNK, &mut data).unwrap();
        assert_eq!(data.len(), 6 + 2 * 512);
        assert_eq!((data[6 + 99], data[6 + 100], data[6 + 512]), (2, 0, 3));
        let lost = ordered.read_chunks(Ino::new(7), range(3, 5), CHUNK, &mut data);
        assert!(matches!(lost, Err(FsError::Damaged { damage: Damage::LostChunk, .. })));
        let mut same = Vec::new();
        db.reader().read_chunks(Ino::new(7), range(2, 4), CHUNK, &mut same).unwrap();
        assert_eq!(same.len(), 2 * 512);
    }
}
