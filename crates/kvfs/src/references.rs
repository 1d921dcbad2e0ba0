//! References to inodes: as long as a handle of an inode is held, or the kernel knows it, the inode
//! outlives its last name.
//!
//! Only counts are kept, in memory: after a restart there are neither handles nor a kernel that
//! knows anything. What a count is for is told in `ops::lifetime`: when a name goes it is looked at
//! under the inode's lock, and so a count of an inode that has none yet begins under that lock.
//! Every other change needs no lock, because a count that is there keeps the inode alive.

use std::collections::HashMap;

use parking_lot::Mutex;
use tier_types::Ino;

/// The references to each inode that has any.
#[derive(Debug, Default)]
pub(crate) struct References(Mutex<HashMap<Ino, Held>>);

/// How an inode is referred to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Held {
    n_handles: u64,
    /// How often the kernel was told of it and has not forgotten that.
    n_lookups: u64,
    /// It may have lost its last name meanwhile. A hint: it may have got another one since.
    may_be_orphan: bool,
}

impl References {
    /// One handle more. The inode's lock is held, or the inode cannot be seen yet.
    pub(crate) fn add_handle(&self, ino: Ino) {
        self.0.lock().entry(ino).or_default().n_handles += 1;
    }

    /// The kernel is told of it. The inode's lock is held.
    pub(crate) fn add_lookup(&self, ino: Ino) {
        self.0.lock().entry(ino).or_default().n_lookups += 1;
    }

    /// The same without the lock, if there is a reference that keeps it alive. Whether there is.
    pub(crate) fn add_lookup_if_held(&self, ino: Ino) -> bool {
        let mut all = self.0.lock();
        let Some(held) = all.get_mut(&ino) else { return false };
        held.n_lookups += 1;
        true
    }

    /// Whether there is any reference but one of the kernel's.
    pub(crate) fn is_known_elsewhere(&self, ino: Ino) -> bool {
        let all = self.0.lock();
        all.get(&ino).is_some_and(|held| held.n_handles > 0 || held.n_lookups > 1)
    }

    /// The inode has no name any more. Whether there is a reference, the last of which tells that:
    /// under one lock, so that the last one goes before, or knows.
    pub(crate) fn is_orphaned(&self, ino: Ino) -> bool {
        let mut all = self.0.lock();
        let Some(held) = all.get_mut(&ino) else { return false };
        held.may_be_orphan = true;
        true
    }

    /// A handle is closed. Whether it was the last reference of what may be an orphan.
    #[expect(clippy::expect_used, reason = "a handle exists only if it was counted")]
    pub(crate) fn remove_handle(&self, ino: Ino) -> bool {
        self.remove(ino, |held| {
            held.n_handles = held.n_handles.checked_sub(1).expect("every handle is counted");
        })
    }

    /// The kernel forgets that it was told so often. Whether that was the last reference of what
    /// may be an orphan.
    pub(crate) fn forget(&self, ino: Ino, n_lookups: u64) -> bool {
        self.remove(ino, |held| held.n_lookups = held.n_lookups.saturating_sub(n_lookups))
    }

    /// The kernel forgets everything. What may be orphans that nothing refers to any more.
    pub(crate) fn forget_all(&self) -> Vec<Ino> {
        let mut orphans = Vec::new();
        self.0.lock().retain(|ino, held| {
            held.n_lookups = 0;
            if !held.is_any() && held.may_be_orphan {
                orphans.push(*ino);
            }
            held.is_any()
        });
        orphans
    }

    fn remove(&self, ino: Ino, change: impl FnOnce(&mut Held)) -> bool {
        let mut all = self.0.lock();
        let Some(held) = all.get_mut(&ino) else { return false };
        change(held);
        if held.is_any() {
            return false;
        }
        all.remove(&ino).is_some_and(|held| held.may_be_orphan)
    }
}

impl Held {
    fn is_any(&self) -> bool {
        self.n_handles > 0 || self.n_lookups > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino::new(7);

    #[test]
    fn an_inode_is_held_until_its_last_reference_goes() {
        let references = References::default();
        assert!(!references.is_orphaned(INO) && !references.add_lookup_if_held(INO));
        references.add_handle(INO);
        references.add_lookup(INO);
        assert!(references.add_lookup_if_held(INO));
        assert!(references.is_orphaned(INO));
        assert!(!references.forget(INO, 1));
        assert!(!references.remove_handle(INO));
        assert!(references.forget(INO, 1), "the last one, of an orphan");
        assert!(!references.is_orphaned(INO));
    }

    #[test]
    fn what_has_names_is_nobodys_last_reference() {
        let references = References::default();
        references.add_handle(INO);
        assert!(!references.remove_handle(INO));
        references.add_lookup(INO);
        assert!(!references.forget(INO, 5), "more often than it was told");
        assert!(!references.add_lookup_if_held(INO));
        assert!(!references.forget(INO, 1), "what it was never told");
    }

    #[test]
    fn a_kernel_that_forgets_all_leaves_the_handles() {
        let references = References::default();
        let [named, orphan, open] = [1, 2, 3].map(Ino::new);
        for ino in [named, orphan, open] {
            references.add_lookup(ino);
        }
        references.add_handle(open);
        assert!(references.is_orphaned(orphan) && references.is_orphaned(open));
        assert_eq!(references.forget_all(), [orphan]);
        assert!(!references.add_lookup_if_held(named) && !references.add_lookup_if_held(orphan));
        assert!(references.remove_handle(open));
    }
}
