//! Cursors: reads of a KVS snapshot in order of keys.
//!
//! A walk through all inodes reads five tables side by side. A point read for each row would cost a
//! seek through every level of the store; a cursor that already stands close by takes a few steps
//! instead, and no move at all where it knows that the table is empty up to its place
//! (`docs/adr/0009`). Two kinds of reads stand on cursors: [`OrderedTables`](super::OrderedTables),
//! for questions about one inode after the other, and the walks of the check (`walks`), which see
//! every row, readable or not.

use rocksdb::DBRawIterator;
use tier_types::Ino;

use super::db::KvsSnapshot;
use super::keys::{self, Table};
use super::{failure, tuning};
use crate::FsError;

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
    pub(super) fn at_or_before(&mut self, key: &[u8]) -> Result<Option<Item<'_>>, FsError> {
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
