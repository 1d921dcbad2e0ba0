//! Owners: what is kept of inodes that do not exist, or that the walk could not read. A dying inode
//! is one of these, and the rows that the reaper has yet to delete are its own; a cut mark of an
//! inode that is gone is not.

use tier_types::Ino;

use super::Scan;
use crate::FsError;
use crate::check::problem::Problem;
use crate::store::{Owner, Table};

/// Tables whose keys begin with the number of an inode that must exist.
const OF_INODES: [Table; 11] = [
    Table::Entries,
    Table::Cookies,
    Table::Links,
    Table::Xattrs,
    Table::Map,
    Table::Chunks,
    Table::Resident,
    Table::Cuts,
    Table::Orphans,
    Table::Warm,
    Table::Pins,
];

/// Those of them of which a dying inode may have rows.
fn is_reaped(table: Table) -> bool {
    matches!(table, Table::Map | Table::Chunks | Table::Xattrs)
}

impl Scan<'_> {
    pub(super) fn owners(&mut self) -> Result<(), FsError> {
        for table in OF_INODES {
            for owner in self.snapshot.owners(table) {
                self.check_stop()?;
                match owner? {
                    Owner::Unreadable => self.find_any(None, Problem::KeyUnreadable { table })?,
                    Owner::Gap(gap) => self.gap(table, &gap)?,
                    Owner::Inode { ino, exists } => {
                        let is_dying = is_reaped(table) && self.is_dying(ino)?;
                        if exists == Some(false) && is_dying {
                            // The reaper comes for it.
                        } else if exists == Some(false) {
                            let can_be_recreated =
                                table == Table::Entries && self.can_be_recreated(ino)?;
                            self.find(ino, Problem::Unowned { table, can_be_recreated })?;
                        } else {
                            self.hidden_inode(ino)?;
                        }
                        // Counted by row, because that is what a deletion of one counts.
                        self.counted.n_pins += i64::from(table == Table::Pins);
                    }
                }
            }
        }
        self.dying()
    }

    fn dying(&mut self) -> Result<(), FsError> {
        for owner in self.snapshot.owners(Table::Dying) {
            self.check_stop()?;
            let (ino, exists) = match owner? {
                Owner::Inode { ino, exists } => (ino, exists),
                Owner::Gap(gap) => {
                    self.gap(Table::Dying, &gap)?;
                    continue;
                }
                Owner::Unreadable => {
                    self.find_any(None, Problem::KeyUnreadable { table: Table::Dying })?;
                    continue;
                }
            };
            let dying = self.reader().dying(ino);
            match self.tolerate(dying)? {
                Some(Some(dying)) => self.counted.gain_dying(dying.resident_bytes),
                Some(None) => self.find(ino, Problem::DyingUnreadable)?,
                None => {}
            }
            if exists == Some(true) {
                self.find(ino, Problem::DyingExists)?;
            }
        }
        Ok(())
    }

    /// Whether the reaper comes for an inode that does not exist. If that cannot be read, it may.
    fn is_dying(&mut self, ino: Ino) -> Result<bool, FsError> {
        let is_dying = self.reader().is_dying(ino);
        Ok(self.tolerate(is_dying)?.unwrap_or(true))
    }
}
