//! The rows of tarballs that an index has, for a reader that goes through a history step by step:
//! read in pages that hold those of many steps.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use tier_index::{Index, IndexError, TarballId};

pub(crate) struct TarballRows<'a> {
    index: &'a Index,
    n_page: usize,
    page: VecDeque<(TarballId, Vec<u8>)>,
    /// What is not read yet.
    left: Option<RangeInclusive<TarballId>>,
}

impl<'a> TarballRows<'a> {
    /// The rows of these tarballs, `n_page` of which are in memory.
    pub(crate) fn new(index: &'a Index, ids: RangeInclusive<TarballId>, n_page: usize) -> Self {
        assert!(n_page > 0, "a page holds something");
        Self { index, n_page, page: VecDeque::new(), left: Some(ids) }
    }

    /// The next row of these tarballs; those before them are passed over.
    pub(crate) fn next_of(
        &mut self,
        ids: &RangeInclusive<TarballId>,
    ) -> Result<Option<Vec<u8>>, IndexError> {
        loop {
            self.read_if_empty()?;
            match self.page.pop_front_if(|(id, _)| *id <= *ids.end()) {
                Some((id, row)) if ids.contains(&id) => return Ok(Some(row)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    fn read_if_empty(&mut self) -> Result<(), IndexError> {
        if !self.page.is_empty() {
            return Ok(());
        }
        let Some(left) = self.left.take() else { return Ok(()) };
        self.page = self.index.tarball_rows(&left, self.n_page)?.into();
        let is_full = self.page.len() == self.n_page;
        self.left = self.page.back().filter(|_| is_full).map(|(id, _)| {
            // No row is between the two, whatever the next one is.
            let next = TarballId { part: id.part.saturating_add(1), ..*id };
            next..=*left.end()
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tier_index::IndexOptions;
    use tier_types::{Epoch, SnapshotId};

    use super::*;

    fn ids_of(epoch: u64, snapshot: u64) -> RangeInclusive<TarballId> {
        TarballId::of_snapshot(Epoch::new(epoch), SnapshotId::new(snapshot))
    }

    #[test]
    fn each_step_has_its_rows_whatever_a_page_holds() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), 512, &IndexOptions::default()).unwrap();
        // Of an epoch that is no part of the history there are rows as well.
        let steps = [(1, 1, 2), (1, 2, 0), (1, 3, 5), (2, 4, 1), (3, 4, 2), (3, 5, 3)];
        for (epoch, snapshot, n_rows) in steps {
            for part in 0..n_rows {
                let id = TarballId { part, ..*ids_of(epoch, snapshot).start() };
                index.writer().add_tarball(id, format!("{id}").as_bytes()).unwrap();
            }
        }
        for n_page in 1..15 {
            let all = *ids_of(1, 1).start()..=*ids_of(3, 4).end();
            let mut rows = TarballRows::new(&index, all, n_page);
            for (epoch, snapshot, n_rows) in [(1, 1, 2), (1, 2, 0), (1, 3, 5), (3, 4, 2)] {
                let ids = ids_of(epoch, snapshot);
                for part in 0..n_rows {
                    let id = TarballId { part, ..*ids.start() };
                    let row = rows.next_of(&ids).unwrap().unwrap();
                    assert_eq!(String::from_utf8(row).unwrap(), format!("{id}"));
                }
                assert_eq!(rows.next_of(&ids).unwrap(), None);
            }
            assert_eq!(rows.next_of(&ids_of(3, 5)).unwrap(), None, "not among those wanted");
        }
    }
}
