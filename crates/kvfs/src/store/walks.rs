//! Walks of the check: all rows of a table in order, whatever of them can be read.
//!
//! Three things can be wrong with a row: its value cannot be decoded, its key cannot be, or the
//! database cannot give it out, because the block in which it lies is damaged. The first two are
//! shown in their place. The third is a [`Gap`]: how many rows lie in a damaged block, and which,
//! is not known, so that the walk says from where to where it saw nothing and goes on behind it.
//! What lies in a gap is found by other tables that name the same inodes, and read row by row.

use tier_types::{FileAttr, Ino, with_causes};

use super::cursor::Cursor;
use super::db::KvsSnapshot;
use super::keys::{self, Table};
use super::rows;
use crate::FsError;

/// Inodes of which a table cannot be read in order, because the database is damaged there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    pub(crate) from: Ino,
    /// The first one behind it; `None` if it reaches to the end.
    pub(crate) until: Option<Ino>,
    /// Which file, and what is wrong with it.
    pub(crate) reason: String,
}

impl Gap {
    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.from <= ino && self.until.is_none_or(|until| ino < until)
    }

    /// What a cursor cannot read from an inode on, or an error that is no damage.
    fn at(cursor: &mut Cursor<'_>, from: Ino, error: FsError) -> Result<Self, FsError> {
        if !error.is_damage() {
            return Err(error);
        }
        let until = cursor.behind_damage(from)?;
        Ok(Self { from, until, reason: with_causes(&error) })
    }
}

/// A row of the inodes, readable or not.
#[derive(Debug)]
pub(crate) struct InodeRow {
    /// `None` if the key cannot be decoded.
    pub(crate) ino: Option<Ino>,
    /// `None` if the attributes cannot be decoded.
    pub(crate) attr: Option<FileAttr>,
}

/// What a walk through the inodes comes to.
#[derive(Debug)]
pub(crate) enum InodeFound {
    Row(InodeRow),
    Gap(Gap),
}

/// What a walk through the owners of a table's rows comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// Its number, and whether it exists; `None` if its row cannot be read.
    Inode {
        ino: Ino,
        exists: Option<bool>,
    },
    /// A key in which no number can be read: nothing behind it is looked at.
    Unreadable,
    Gap(Gap),
}

/// Where a walk goes on.
#[derive(Clone, Copy)]
enum Place {
    /// At the first row of this inode or behind it.
    From(Ino),
    /// At the row after the one that the cursor is at; this inode was the last whose number was
    /// read.
    After(Ino),
    End,
}

impl KvsSnapshot {
    /// All rows of the inodes in order. Ends after the first error that is no damage.
    pub(crate) fn inode_rows(&self) -> impl Iterator<Item = Result<InodeFound, FsError>> + '_ {
        let mut cursor = Cursor::new(self, Table::Inodes);
        let mut place = Place::From(Ino::new(0));
        std::iter::from_fn(move || {
            let (last, first, item) = match place {
                Place::From(ino) => (ino, ino, cursor.at_or_after(&keys::ino(ino))),
                Place::After(ino) => (ino, ino.next(), cursor.next()),
                Place::End => return None,
            };
            let row = item.map(|item| {
                item.map(|(key, bytes)| {
                    let ino = keys::take_number(key).map(|(number, _)| Ino::new(number));
                    let attr = ino.and_then(|ino| rows::attr_from_bytes(ino, bytes));
                    InodeRow { ino, attr }
                })
            });
            // It stays there after an error that is no damage, and after a gap that has no end.
            place = Place::End;
            match row {
                Ok(None) => None,
                Ok(Some(row)) => {
                    // A key without a number has no place among the inodes: a gap that follows it
                    // is said to begin behind the last number that was read.
                    place = Place::After(row.ino.unwrap_or(last));
                    Some(Ok(InodeFound::Row(row)))
                }
                Err(error) => {
                    let gap = Gap::at(&mut cursor, first, error);
                    if let Ok(Gap { until: Some(until), .. }) = &gap {
                        place = Place::From(*until);
                    }
                    Some(gap.map(InodeFound::Gap))
                }
            }
        })
    }

    /// The inodes of which a table has rows, each once, in order. Ends after the first error that
    /// is no damage, and after a key that cannot be read.
    pub(crate) fn owners(&self, table: Table) -> impl Iterator<Item = Result<Owner, FsError>> + '_ {
        let mut rows = Cursor::new(self, table);
        let mut inodes = Cursor::new(self, Table::Inodes);
        let mut from = Some(Ino::new(0));
        std::iter::from_fn(move || {
            let start = from.take()?;
            let owner = match next_owner(&mut rows, start) {
                Ok(NextOwner::End) => return None,
                Ok(NextOwner::Unreadable) => Ok(Owner::Unreadable),
                Ok(NextOwner::Inode(ino)) => {
                    from = (ino.get() < u64::MAX).then(|| ino.next());
                    self.exists(&mut inodes, ino).map(|exists| Owner::Inode { ino, exists })
                }
                Err(error) => {
                    let gap = Gap::at(&mut rows, start, error);
                    from = gap.as_ref().ok().and_then(|gap| gap.until);
                    gap.map(Owner::Gap)
                }
            };
            Some(owner)
        })
    }

    /// Whether an inode exists; `None` if that cannot be read.
    fn exists(&self, inodes: &mut Cursor<'_>, ino: Ino) -> Result<Option<bool>, FsError> {
        let key = keys::ino(ino);
        if let Ok(item) = inodes.at_or_after(&key) {
            return Ok(Some(item.is_some_and(|(at, _)| *at == key)));
        }
        // A cursor fails at a damaged block whatever lies in it; this row may lie elsewhere.
        match self.reader().has_inode(ino) {
            Err(error) if error.is_damage() => Ok(None),
            exists => exists.map(Some),
        }
    }
}

/// What the key at a place says of its owner.
enum NextOwner {
    End,
    Unreadable,
    Inode(Ino),
}

/// The first owner at or behind an inode.
fn next_owner(rows: &mut Cursor<'_>, from: Ino) -> Result<NextOwner, FsError> {
    let Some((key, _)) = rows.at_or_after(&keys::ino(from))? else { return Ok(NextOwner::End) };
    let number = keys::take_number(key);
    Ok(number.map_or(NextOwner::Unreadable, |(number, _)| NextOwner::Inode(Ino::new(number))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Damage;
    use crate::space::Permit;
    use crate::store::OrderedTables;
    use crate::testing::{StandingClock, attr, committer, store};
    use tier_types::FileKind;

    fn found(found: Result<InodeFound, FsError>) -> InodeRow {
        let InodeFound::Row(row) = found.unwrap() else { panic!("nothing is damaged") };
        row
    }

    /// Every third inode exists, every second of these has an extended attribute.
    fn fill(committer: &crate::tx::Committer) {
        for number in (1..60).step_by(3) {
            let (ino, attr) = (Ino::new(number), attr(number, FileKind::Regular));
            committer
                .commit(Permit::unchecked(), 0, move |draft| {
                    draft.put_new_inode(&attr);
                    if number % 2 == 1 {
                        draft.put_xattr(ino, b"user.a", vec![1; 10]);
                    }
                })
                .unwrap();
        }
    }

    #[test]
    fn walks_see_every_row_once() {
        let (_dir, db) = store();
        let committer = committer(&db, Arc::new(StandingClock));
        fill(&committer);
        let stray = Ino::new(100);
        committer
            .commit(Permit::unchecked(), 0, move |draft| {
                draft.put_xattr(stray, b"user.a", Vec::new());
            })
            .unwrap();
        let snapshot = KvsSnapshot::take(&db).unwrap();
        let inodes: Vec<_> = snapshot.inode_rows().map(|row| found(row).ino.unwrap()).collect();
        assert_eq!(inodes, (1..60).step_by(3).map(Ino::new).collect::<Vec<_>>());
        let owners: Vec<_> = snapshot.owners(Table::Xattrs).map(Result::unwrap).collect();
        let exists = |ino| Owner::Inode { ino, exists: Some(true) };
        let mut expected: Vec<_> = (1..60).step_by(6).map(|ino| exists(Ino::new(ino))).collect();
        expected.push(Owner::Inode { ino: stray, exists: Some(false) });
        assert_eq!(owners, expected);
        assert_eq!(snapshot.owners(Table::Pins).count(), 0);
    }

    #[test]
    fn rows_that_cannot_be_decoded_are_seen_as_such() {
        let (_dir, db) = store();
        let mut batch = crate::store::Batch::default();
        batch.put(Table::Inodes, b"short", Vec::new());
        batch.put(Table::Inodes, &keys::ino(Ino::new(u64::MAX)), b"no attributes".to_vec());
        batch.put(Table::Pins, &keys::ino(Ino::new(u64::MAX)), Vec::new());
        batch.put(Table::Warm, b"short", Vec::new());
        db.write(batch).unwrap();
        let snapshot = KvsSnapshot::take(&db).unwrap();
        let rows: Vec<_> = snapshot.inode_rows().map(found).collect();
        let seen: Vec<_> = rows.iter().map(|row| (row.ino, row.attr.is_some())).collect();
        assert_eq!(seen, [(None, false), (Some(Ino::new(u64::MAX)), false)]);
        let owners: Vec<_> = snapshot.owners(Table::Warm).map(Result::unwrap).collect();
        assert_eq!(owners, [Owner::Unreadable]);
        assert_eq!(snapshot.owners(Table::Pins).count(), 1, "the last number of all ends it");
        let read = OrderedTables::new(&snapshot).reader().find_attr(Ino::new(u64::MAX));
        assert!(matches!(read, Err(FsError::Damaged { damage: Damage::Attributes, .. })));
    }

    #[test]
    fn a_gap_holds_what_lies_between_its_ends() {
        let gap = |until| Gap { from: Ino::new(3), until, reason: String::new() };
        let inside = |until| [2, 3, 8, 9].map(|ino| gap(until).contains(Ino::new(ino)));
        assert_eq!(inside(Some(Ino::new(9))), [false, true, true, false]);
        assert_eq!(inside(None), [false, true, true, true]);
    }
}
