//! Reads of a snapshot in order of inodes, by one thread.
//!
//! The same typed reads as of any other view ([`StoreReader`](super::StoreReader)), through a
//! cursor for each table in place of an iterator for each question: what goes through many inodes
//! in ascending order asks each table for a place that lies a step away. A question that goes back
//! costs a seek, and is answered as well.

use std::cell::RefCell;
use std::collections::HashMap;
use std::iter;

use super::cursor::{Cursor, Item};
use super::db::{KvsSnapshot, Pair, Pairs, RawTables};
use super::extents::ExtentFiles;
use super::keys::Table;
use crate::FsError;

/// A snapshot with a place in each of its tables.
pub(crate) struct OrderedTables<'a> {
    snapshot: &'a KvsSnapshot,
    /// Opened when they are first needed.
    cursors: RefCell<HashMap<Table, Cursor<'a>>>,
}

impl<'a> OrderedTables<'a> {
    pub(crate) fn new(snapshot: &'a KvsSnapshot) -> Self {
        Self { snapshot, cursors: RefCell::default() }
    }

    /// Shows `see` what `go` comes to at a cursor.
    fn at<T>(
        &self,
        table: Table,
        go: impl for<'c> FnOnce(&'c mut Cursor<'a>) -> Result<Option<Item<'c>>, FsError>,
        see: impl FnOnce(Option<Item<'_>>) -> T,
    ) -> Result<T, FsError> {
        let mut cursors = self.cursors.borrow_mut();
        let cursor = cursors.entry(table).or_insert_with(|| Cursor::new(self.snapshot, table));
        go(cursor).map(see)
    }

    /// The first pair from `from` up to and not including `until`.
    fn first(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Option<Pair>, FsError> {
        self.at(
            table,
            |cursor| cursor.at_or_after(from),
            |item| item.filter(|(key, _)| *key < until).map(owned),
        )
    }
}

fn owned((key, value): Item<'_>) -> Pair {
    (key.into(), value.into())
}

impl RawTables for OrderedTables<'_> {
    fn visit(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<(), FsError> {
        let found = self.at(
            table,
            |cursor| cursor.at_or_after(key),
            |item| {
                if let Some((_, value)) = item.filter(|(at, _)| *at == key) {
                    visit(value);
                }
            },
        );
        match found {
            // A cursor fails at a damaged block whatever lies in it; this row may lie elsewhere, or
            // be newer.
            Err(error) if error.is_damage() => self.snapshot.visit(table, key, visit),
            found => found,
        }
    }

    fn scan(&self, table: Table, from: &[u8], until: &[u8]) -> Result<Pairs<'_>, FsError> {
        let (mut next, until) = (Some(from.to_vec()), until.to_vec());
        let mut rest: Option<Pairs<'_>> = None;
        Ok(Box::new(iter::from_fn(move || {
            if let Some(rest) = &mut rest {
                return rest.next();
            }
            let from = next.take()?;
            let found = match self.first(table, &from, &until) {
                // The cursor knows no end, and may have met what lies behind it.
                Err(error) if error.is_damage() => {
                    let pairs = self.snapshot.scan(table, &from, &until);
                    return match pairs {
                        Ok(pairs) => rest.insert(pairs).next(),
                        Err(error) => Some(Err(error)),
                    };
                }
                found => found.transpose()?,
            };
            // Behind what cannot be read comes nothing, as in any other scan.
            next = found.as_ref().ok().map(|(key, _)| [key, &[0][..]].concat());
            Some(found)
        })))
    }

    fn last(&self, table: Table, lower: &[u8], upper: &[u8]) -> Result<Option<Pair>, FsError> {
        if lower == upper {
            // Of one row it need not be looked for what lies before it.
            let value = self.get(table, lower)?;
            return Ok(value.map(|value| (lower.into(), value.into())));
        }
        self.at(
            table,
            |cursor| cursor.at_or_before(upper),
            |item| item.filter(|(key, _)| *key >= lower).map(owned),
        )
    }

    fn files(&self) -> &ExtentFiles {
        self.snapshot.extent_files()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tier_types::{ChunkNo, ChunkRange, ChunkState, FileKind, Ino, Link, Xid};

    use super::*;
    use crate::space::Permit;
    use crate::store::RunState;
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
            let tables = OrderedTables::new(&snapshot);
            let (ordered, single) = (tables.reader(), db.reader());
            for (number, from) in asked {
                let (ino, from) = (Ino::new(number), ChunkNo::new(from));
                prop_assert_eq!(ordered.find_attr(ino).unwrap(), single.find_attr(ino).unwrap());
                prop_assert_eq!(ordered.links(ino).unwrap(), single.links(ino).unwrap());
                prop_assert_eq!(ordered.xattrs(ino).unwrap(), single.xattrs(ino).unwrap());
                let runs = ordered.runs(ino, from, 2).unwrap();
                prop_assert_eq!(runs, single.runs(ino, from, 2).unwrap());
                let range = ChunkRange::new(from, ChunkNo::new(9)).unwrap();
                let rows = ordered.old_chunks(ino, range).unwrap();
                prop_assert_eq!(rows, single.old_chunks(ino, range).unwrap());
                let stored = ordered.stored_at(ino, from).unwrap();
                prop_assert_eq!(stored, single.stored_at(ino, from).unwrap());
            }
        }
    }

    #[test]
    fn chunks_are_filled_up_and_lost_ones_are_damage() {
        let (_dir, db) = store();
        fill(&committer(&db, Arc::new(StandingClock)));
        let snapshot = KvsSnapshot::take(&db).unwrap();
        let tables = OrderedTables::new(&snapshot);
        let range = |start, end| ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap();
        let mut data = b"before".to_vec();
        tables.reader().read_chunks(Ino::new(7), range(2, 4), CHUNK, &mut data).unwrap();
        assert_eq!(data.len(), 6 + 2 * 512);
        assert_eq!((data[6 + 99], data[6 + 100], data[6 + 512]), (2, 0, 3));
        let lost = tables.reader().read_chunks(Ino::new(7), range(3, 5), CHUNK, &mut data);
        assert!(lost.unwrap_err().is_damage());
    }
}
