//! The persister's input: the net changes, and the inodes that could not be persisted last time, or
//! not all of them.

use std::collections::BTreeSet;
use std::iter::Peekable;

use tier_types::{Change, ChunkRange, FileUpdate, Ino, PortError};

/// Net changes in order, with the inodes that failed before taken as changed altogether: the list
/// does not say what of them is archived, so that all of it is persisted.
pub(super) struct Updates<C: Iterator<Item = Result<FileUpdate, PortError>>> {
    changes: Peekable<C>,
    failed: BTreeSet<Ino>,
    last: Option<Ino>,
}

impl<C: Iterator<Item = Result<FileUpdate, PortError>>> Updates<C> {
    pub(super) fn new(changes: C, failed: impl IntoIterator<Item = Ino>) -> Self {
        Self { changes: changes.peekable(), failed: failed.into_iter().collect(), last: None }
    }

    fn step(&mut self) -> Result<Option<FileUpdate>, PortError> {
        let changed = match self.changes.peek() {
            Some(Ok(update)) => Some(update.ino),
            // The error comes out below, before any later inode.
            Some(Err(_)) => return self.changes.next().transpose(),
            None => None,
        };
        let Some(failed) = self.failed.first().copied() else {
            return self.changes.next().transpose();
        };
        match changed {
            Some(changed) if changed < failed => self.changes.next().transpose(),
            Some(changed) if changed == failed => {
                self.failed.pop_first();
                let update = self.changes.next().transpose()?;
                Ok(update.map(|update| match update.change {
                    // What failed is moot: nothing of the inode can be read any more, nor needs to
                    // be.
                    Change::Gone(_) => update,
                    Change::Touched(_) => touched_altogether(failed),
                }))
            }
            // The log says nothing of it, because it has not changed since it failed.
            Some(_) | None => {
                self.failed.pop_first();
                Ok(Some(touched_altogether(failed)))
            }
        }
    }
}

impl<C: Iterator<Item = Result<FileUpdate, PortError>>> Iterator for Updates<C> {
    type Item = Result<FileUpdate, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.step();
        if let Ok(Some(update)) = &next {
            assert!(self.last.is_none_or(|last| last < update.ino), "updates come once, in order");
            self.last = Some(update.ino);
        }
        next.transpose()
    }
}

fn touched_altogether(ino: Ino) -> FileUpdate {
    FileUpdate { ino, change: Change::Touched(vec![ChunkRange::ALL]) }
}

#[cfg(test)]
mod tests {
    use tier_types::{ChunkNo, ErrorKind, Xid};

    use super::*;

    fn touched(ino: u64) -> FileUpdate {
        let first = ChunkRange::one(ChunkNo::new(0)).unwrap();
        FileUpdate { ino: Ino::new(ino), change: Change::Touched(vec![first]) }
    }

    fn gone(ino: u64) -> FileUpdate {
        FileUpdate { ino: Ino::new(ino), change: Change::Gone(Xid::new(99)) }
    }

    fn all(ino: u64) -> FileUpdate {
        touched_altogether(Ino::new(ino))
    }

    fn merged(changes: Vec<FileUpdate>, failed: &[u64]) -> Vec<FileUpdate> {
        let failed = failed.iter().copied().map(Ino::new);
        Updates::new(changes.into_iter().map(Ok), failed).map(Result::unwrap).collect()
    }

    #[test]
    fn without_failures_the_changes_pass_through() {
        let changes = vec![touched(1), gone(2), touched(9)];
        assert_eq!(merged(changes.clone(), &[]), changes);
        assert_eq!(merged(Vec::new(), &[]), []);
    }

    #[test]
    fn what_failed_before_comes_altogether_and_in_its_place() {
        assert_eq!(merged(Vec::new(), &[7, 3]), [all(3), all(7)]);
        let changes = vec![touched(2), touched(5)];
        let expected = [all(1), touched(2), all(3), touched(5), all(8)];
        assert_eq!(merged(changes, &[8, 1, 3]), expected);
    }

    #[test]
    fn what_failed_before_and_changed_comes_once() {
        let changes = vec![touched(2), touched(3), touched(4)];
        assert_eq!(merged(changes, &[3]), [touched(2), all(3), touched(4)]);
    }

    #[test]
    fn what_failed_before_and_is_gone_now_stays_gone() {
        assert_eq!(merged(vec![gone(3)], &[3]), [gone(3)]);
        assert_eq!(merged(vec![gone(3)], &[2, 4]), [all(2), gone(3), all(4)]);
    }

    #[test]
    fn an_error_of_the_log_comes_out_where_it_is() {
        let damaged = || PortError::new(ErrorKind::Damaged, "told to");
        let changes = vec![Ok(touched(1)), Err(damaged()), Ok(touched(9))];
        let results: Vec<_> = Updates::new(changes.into_iter(), [Ino::new(4)]).collect();
        let is_error: Vec<_> = results.iter().map(Result::is_err).collect();
        assert_eq!(is_error, [false, true, false, false]);
    }

    #[test]
    #[should_panic(expected = "once, in order")]
    fn changes_out_of_order_are_a_programmers_error() {
        merged(vec![touched(2), touched(2)], &[]);
    }
}
