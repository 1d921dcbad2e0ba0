//! What is to be persisted: the net changes, and whoever could not be persisted last time.

use std::collections::BTreeSet;

use tier_log::NetChanges;
use tier_types::{Change, ChunkRange, FileUpdate, Ino, PortError};

/// Net changes in order, with the inodes that failed before taken as changed altogether.
pub(crate) struct Updates {
    changes: NetChanges,
    next: Option<FileUpdate>,
    failed: BTreeSet<Ino>,
    started: bool,
}

impl Updates {
    pub(crate) fn new(changes: NetChanges, failed: impl IntoIterator<Item = Ino>) -> Self {
        Self { changes, next: None, failed: failed.into_iter().collect(), started: false }
    }

    fn advance(&mut self) -> Result<Option<FileUpdate>, PortError> {
        let next = self.changes.next().transpose()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn step(&mut self) -> Result<Option<FileUpdate>, PortError> {
        if !self.started {
            self.started = true;
            self.advance()?;
        }
        let next = self.next.as_ref().map(|update| update.ino);
        let failed = self.failed.first().copied();
        match (next, failed) {
            (Some(next), Some(failed)) if failed > next => self.advance(),
            (_, None) => self.advance(),
            (next, Some(failed)) => {
                self.failed.pop_first();
                let mut change = Change::Touched(vec![ChunkRange::ALL]);
                if next == Some(failed)
                    && let Some(FileUpdate { change: Change::Gone(xid), .. }) = self.advance()?
                {
                    change = Change::Gone(xid);
                }
                Ok(Some(FileUpdate { ino: failed, change }))
            }
        }
    }
}

impl Iterator for Updates {
    type Item = Result<FileUpdate, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
