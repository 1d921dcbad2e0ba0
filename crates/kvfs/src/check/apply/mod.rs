//! Repairs carried out, each on the filesystem as those before it left it.
//!
//! A repair was planned by a scan that may be older than the repairs since; so each one looks again
//! at what it is about, and does nothing where that is right by now. What changes what a snapshot
//! persists is logged like any operation.

mod data;
mod names;
mod tree;

use tier_log::Operation;
use tier_types::{ChunkNo, FileAttr, FileKind, Ino};

use super::repair::Repair;
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::ops::{NewNode, new_attr};
use crate::space::{Permit, Purpose};
use crate::store::{Dying, Table};
use crate::tx::{Draft, ListKind};

/// Rows that one batch deletes.
const N_ROWS_BATCH: usize = 1000;

/// Carries out one repair at a time.
pub(super) struct Apply<'a> {
    core: &'a Core,
    /// What is repaired was seen in it: after a reopening it may be otherwise.
    epoch: u64,
}

impl<'a> Apply<'a> {
    /// To be made before what is to be repaired is looked for.
    pub(super) fn new(core: &'a Core) -> Self {
        Self { core, epoch: core.room.epoch() }
    }

    /// Whether it is right now. A repair that meets other damage is none.
    pub(super) fn apply(&self, repair: Repair) -> Result<bool, FsError> {
        tracing::debug!(?repair, "repairing");
        let done = match repair {
            Repair::RecreateDirectory { ino } => self.recreate_directory(ino),
            Repair::DeleteUnowned { table, ino } => self.delete_unowned(table, ino),
            Repair::DeleteRootName { link } => self.delete_root_name(&link),
            Repair::ReconcileLink { ino, link } => self.reconcile_link(ino, link),
            Repair::DeleteEntry { dir, name } => self.delete_dead_entry(dir, name),
            Repair::ReconcileEntry { ino, link, .. } => self.reconcile_entry(ino, link),
            Repair::ListEntry { dir, name } => self.list_entry(dir, &name),
            Repair::SweepListing { dir } => self.sweep_listing(dir),
            Repair::MoveToLostAndFound { ino } => self.move_to_lost_and_found(ino),
            Repair::UnlistOrphan { ino } => {
                self.write(move |draft| draft.unlist(ListKind::Orphans, ino))
            }
            Repair::SetLinkCount { ino, n_links } => self.set_link_count(ino, n_links),
            Repair::DeleteChunk { ino, chunk } => self.delete_chunk(ino, chunk),
            Repair::MakeCold { ino, chunks, data_xid } => self.make_cold(ino, chunks, data_xid),
            Repair::SumResident { ino } => self.sum_resident(ino),
            Repair::UnlistDying { ino } => self.write(move |draft| draft.delete_dying(ino)),
            Repair::RestartDying { ino } => self.restart_dying(ino),
            Repair::ListWarm { ino } => self.write(move |draft| draft.list(ListKind::Warm, ino)),
            Repair::SetTotals { counted } => {
                let kept = self.core.committer.counters();
                self.write(move |draft| draft.counters = counted.minus(&kept))
            }
        };
        match done {
            Err(
                FsError::Damaged { .. }
                | FsError::Unreadable { .. }
                | FsError::NotFound
                | FsError::NotDirectory,
            ) => Ok(false),
            done => done,
        }
    }

    /// A repair of a store that is full may be what makes room in it.
    fn permit(&self) -> Result<Permit<'_>, FsError> {
        self.core.admit_since(self.epoch, Purpose::Removal, ROWS_BYTES)
    }

    /// Writes rows that no snapshot persists, and so no operation describes.
    fn write(&self, fill: impl FnOnce(&mut Draft) + Send + 'static) -> Result<bool, FsError> {
        self.core.committer.commit(self.permit()?, 0, fill)?;
        Ok(true)
    }

    /// A directory whose attributes are lost gets new ones, of root alone. Its links are counted
    /// later.
    fn recreate_directory(&self, ino: Ino) -> Result<bool, FsError> {
        if matches!(self.core.reader().find_attr(ino), Ok(Some(_))) {
            return Ok(true);
        }
        let kind = FileKind::Directory;
        let blank = new_attr(&NewNode { kind, mode: 0o700, uid: 0, gid: 0, inherit: None });
        self.core.committer.commit(self.permit()?, 1, move |draft| {
            let time = draft.time;
            let mut attr = FileAttr { ino, modified: time, accessed: time, created: time, ..blank };
            draft.log(Operation::SetAttr { ino });
            draft.put_changed(&mut attr);
        })?;
        Ok(true)
    }

    /// Deletes what a table has of an inode that does not exist, unless there is a name or data of
    /// it: then its attributes may be all that is lost.
    fn delete_unowned(&self, table: Table, ino: Ino) -> Result<bool, FsError> {
        if self.core.reader().has_inode(ino)? {
            return Ok(true);
        }
        // One that is dying and has other rows than it may have: these go, and the reaper's do not.
        let is_dying = self.core.reader().is_dying(ino)?;
        for content in [Table::Links, Table::Entries, Table::Map, Table::Chunks] {
            let is_content = !(is_dying && matches!(content, Table::Map | Table::Chunks));
            if is_content && self.core.reader().has_rows(content, ino)? {
                return Ok(false);
            }
        }
        loop {
            let rows = self.core.reader().keys_of(table, ino, N_ROWS_BATCH)?;
            if rows.is_empty() {
                return Ok(true);
            }
            self.write(move |draft| draft.delete_unowned(table, &rows))?;
        }
    }

    /// The reaper begins at the start, and finds what is left. How many bytes that is nothing says.
    fn restart_dying(&self, ino: Ino) -> Result<bool, FsError> {
        let dying = Dying { next: ChunkNo::new(0), resident_bytes: 0 };
        self.write(move |draft| draft.put_dying(ino, dying))
    }

    fn set_link_count(&self, ino: Ino, n_links: u64) -> Result<bool, FsError> {
        let mut attr = self.core.reader().attr(ino)?;
        let Ok(nlink) = u32::try_from(n_links) else { return Ok(false) };
        attr.nlink = nlink;
        self.core.committer.commit(self.permit()?, 1, move |draft| {
            draft.log(Operation::SetAttr { ino });
            draft.put_changed(&mut attr);
        })?;
        Ok(true)
    }
}
