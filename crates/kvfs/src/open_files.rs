//! Open files: as long as a handle of an inode is held, the inode outlives its last name.
//!
//! Only counts are kept, in memory: after a restart there are no handles. What a count is for is
//! told in `ops::unlink`, which looks at it when a name goes, under the inode's lock; so a count of
//! an inode that can be seen changes only under that lock.

use std::collections::HashMap;

use parking_lot::Mutex;
use tier_types::Ino;

/// How many handles of each inode are held. Counts change with the inode's lock held, or before the
/// inode can be seen at all, so that an operation that holds the lock can rely on what it is told.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles(Mutex<HashMap<Ino, u64>>);

impl OpenFiles {
    pub(crate) fn add(&self, ino: Ino) {
        *self.0.lock().entry(ino).or_default() += 1;
    }

    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.0.lock().contains_key(&ino)
    }

    /// Whether it was the last handle of the inode.
    #[expect(clippy::expect_used, reason = "a handle exists only if it was counted")]
    pub(crate) fn remove(&self, ino: Ino) -> bool {
        let mut counts = self.0.lock();
        let n = counts.get_mut(&ino).expect("every handle is counted");
        *n -= 1;
        let was_last = *n == 0;
        if was_last {
            counts.remove(&ino);
        }
        was_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_open_until_its_last_handle_goes() {
        let open = OpenFiles::default();
        let ino = Ino::new(7);
        assert!(!open.is_open(ino));
        open.add(ino);
        open.add(ino);
        assert!(!open.remove(ino));
        assert!(open.is_open(ino));
        assert!(open.remove(ino));
        assert!(!open.is_open(ino));
    }
}
