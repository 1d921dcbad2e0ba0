//! Owners: what is kept of inodes that do not exist, or that the walk could not read.

use super::Scan;
use crate::FsError;
use crate::check::problem::Problem;
use crate::store::{Owner, Table};

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

impl Scan<'_> {
    pub(super) fn owners(&mut self) -> Result<(), FsError> {
        for table in OF_INODES {
            for owner in self.snapshot.owners(table) {
                self.check_stop()?;
                match owner? {
                    Owner::Unreadable => self.find_any(None, Problem::KeyUnreadable { table })?,
                    Owner::Gap(gap) => self.gap(table, &gap)?,
                    Owner::Inode { ino, exists } => {
                        if exists == Some(false) {
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
        Ok(())
    }
}
