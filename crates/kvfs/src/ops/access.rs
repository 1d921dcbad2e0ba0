//! Access times that reads imply: kept in memory, and written in batches beside the log.
//!
//! That a file was read is no change of it. Were it one, a scan of a hundred million files would be
//! as many transactions, and as many inodes to be archived once more. So the time is shown from
//! memory at once, and comes into the inode's row with many others, without a transaction id; it is
//! archived when something else of the inode changes. A crash loses what was not written yet. A
//! time that a program sets is a change like any other, and takes the place of what is kept here.

use tier_types::{FileAttr, Ino, to_u64};

use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;

/// Times that are written in one commit.
const N_WRITTEN: usize = 1000;
/// `relatime` notes an access that is so much later than the last one.
const DAY_SECONDS: i64 = 24 * 60 * 60;
/// What the row of an inode takes, about.
const ATTR_BYTES: u64 = 256;

impl Core {
    /// Attributes with the last access as it is known.
    pub(crate) fn with_access(&self, mut attr: FileAttr) -> FileAttr {
        attr.accessed = self.access_times.get(attr.ino).unwrap_or(attr.accessed);
        attr
    }

    /// Notes that something was read, as Linux does by default (`relatime`): if it changed since
    /// the last time that was noted, or that is a day ago.
    pub fn note_access(&self, ino: Ino) -> Result<(), FsError> {
        let now = self.clock.now();
        let attr = self.with_access(self.reader().attr(ino)?);
        let is_due = attr.accessed <= attr.modified
            || attr.accessed <= attr.changed
            || now.seconds - attr.accessed.seconds >= DAY_SECONDS;
        if is_due {
            self.access_times.note(ino, now);
        }
        Ok(())
    }

    /// Writes the access times that are kept in memory, as far as there is room.
    pub fn write_access_times(&self) -> Result<(), FsError> {
        if self.check_writable().is_err() {
            return Ok(());
        }
        // Those that there are now: what is noted anew meanwhile is for the next time.
        for times in self.access_times.all().chunks(N_WRITTEN) {
            let permit =
                self.admit(Purpose::Growth, ROWS_BYTES + to_u64(times.len()) * ATTR_BYTES)?;
            let inodes: Vec<_> = times.iter().map(|(ino, _)| *ino).collect();
            let _guard = self.locks.lock_all(&inodes);
            let mut changed = Vec::new();
            for (ino, _) in times {
                match self.db.reader().find_attr(*ino) {
                    // One that a program has set since is not in memory any more.
                    Ok(Some(attr)) => changed.push(self.with_access(attr)),
                    Ok(None) => {}
                    // The check finds it; the others are written.
                    Err(error) if error.is_damage() => {}
                    Err(error) => return Err(error),
                }
            }
            self.committer.commit(permit, 0, move |draft| {
                for attr in &changed {
                    draft.put_unchanged(attr);
                }
            })?;
            self.access_times.written(times);
        }
        Ok(())
    }
}
