//! Moves of names.
//!
//! A rename looks at up to four inodes (two directories, what moves, and what has the new name) and
//! has to lock them all before it can rely on any. It learns which they are without a lock, locks
//! them, and looks again. If a directory moves to another one, the lock of the tree comes first, so
//! that the way up from the new place stays what it is while it is searched for the directory
//! itself.

use tier_log::{NodeKind, Operation};
use tier_types::{DeviceNumber, FileAttr, FileKind, Ino, Link};

use super::create::{NewNode, new_attr, stamped};
use super::lifetime::AfterUnlink;
use super::lookup::{EntryRef, count_subdirectories, is_directory};
use super::xattr::Caller;
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Permit;
use crate::store::Entry;
use crate::tx::{Committed, Draft};

/// What happens if the new name is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// The inode that has it loses it.
    Replace,
    /// An error.
    NoReplace,
    /// Both names change hands; the new one must exist.
    Exchange,
}

/// The directories of a rename, which may be one.
struct Parents {
    from: FileAttr,
    /// `None` if both are the same.
    to: Option<FileAttr>,
}

impl Parents {
    fn to(&mut self) -> &mut FileAttr {
        self.to.as_mut().unwrap_or(&mut self.from)
    }

    fn touch(&mut self, draft: &mut Draft) {
        draft.touch_directory(&mut self.from);
        if let Some(to) = &mut self.to {
            draft.touch_directory(to);
        }
    }
}

/// A name that moves or is taken, with what it leads to.
struct Named {
    link: Link,
    cookie: u64,
    attr: FileAttr,
}

/// A name that moves, and the owner of the whiteout that it leaves, if any.
struct Moving {
    named: Named,
    whiteout: Option<Caller>,
}

/// An inode that loses its name to another one.
struct Replaced {
    cookie: u64,
    attr: FileAttr,
    after: AfterUnlink,
}

impl Core {
    /// Renames an entry, or moves it to another directory.
    pub fn rename(
        &self,
        from: EntryRef<'_>,
        to: EntryRef<'_>,
        mode: RenameMode,
    ) -> Result<(), FsError> {
        self.rename_leaving(from, to, mode, None)
    }

    /// The same; under the old name it leaves a whiteout of this owner, if there is to be one: a
    /// device with the number 0, by which an overlay filesystem hides what lies below.
    pub fn rename_leaving(
        &self,
        from: EntryRef<'_>,
        to: EntryRef<'_>,
        mode: RenameMode,
        whiteout: Option<Caller>,
    ) -> Result<(), FsError> {
        let permit = self.admit_growth(ROWS_BYTES)?;
        loop {
            // Without locks, to learn which ones to take.
            let Entry { ino, .. } = self.entry_in(from.dir, from.name)?;
            let target = self.reader().entry(to.dir, to.name)?.map(|entry| entry.ino);
            // Decided without locks, because this one comes before those of inodes. The kind of an
            // inode never changes, and names that lead elsewhere by now are found by the second
            // look.
            let _tree = self.moves_tree(from.dir, to.dir, ino, target)?.then(|| self.locks.tree());
            let inodes = [from.dir, to.dir, ino, target.unwrap_or(ino)];
            let _guard = self.locks.lock(&inodes);
            let source_now = self.reader().entry(from.dir, from.name)?;
            let target_now = self.reader().entry(to.dir, to.name)?;
            // The names may have changed hands before they were locked.
            let is_same = target_now.map(|entry| entry.ino) == target;
            if let Some(source) = source_now.filter(|source| source.ino == ino && is_same) {
                let from = Link { parent: from.dir, name: from.name.clone() };
                let to = Link { parent: to.dir, name: to.name.clone() };
                let attr = self.reader().attr(ino)?;
                let moving = Named { link: from, cookie: source.cookie, attr };
                let moving = Moving { named: moving, whiteout };
                return self.rename_locked(permit, moving, to, target_now, mode);
            }
        }
    }

    /// Whether a directory moves to another one, either way.
    fn moves_tree(
        &self,
        from_dir: Ino,
        to_dir: Ino,
        ino: Ino,
        target: Option<Ino>,
    ) -> Result<bool, FsError> {
        if from_dir == to_dir {
            return Ok(false);
        }
        if is_directory(&self.reader().attr(ino)?) {
            return Ok(true);
        }
        // One that cannot be read is found to be so under the locks.
        let is_dir = |target| self.reader().attr(target).is_ok_and(|attr| is_directory(&attr));
        Ok(target.is_some_and(is_dir))
    }

    fn rename_locked(
        &self,
        permit: Permit<'_>,
        Moving { named: moving, whiteout }: Moving,
        to: Link,
        target: Option<Entry>,
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let from_dir = moving.link.parent;
        let parents = Parents {
            from: self.linked_directory(from_dir)?,
            to: if from_dir == to.parent { None } else { Some(self.linked_directory(to.parent)?) },
        };
        self.check_no_circle(&moving.attr, to.parent)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => Err(FsError::Exists),
            (RenameMode::Exchange, None) => Err(FsError::NotFound),
            // Both names are of one inode: nothing to do, as POSIX has it.
            (_, Some(target)) if target.ino == moving.attr.ino => Ok(()),
            (RenameMode::Exchange, Some(target)) => {
                let attr = self.reader().attr(target.ino)?;
                self.check_no_circle(&attr, from_dir)?;
                let coming = Named { link: to, cookie: target.cookie, attr };
                self.exchange(permit, moving, coming, parents)
            }
            (RenameMode::Replace | RenameMode::NoReplace, target) => {
                let moving = Moving { named: moving, whiteout };
                self.replace(permit, moving, to, target, parents)
            }
        }
    }

    fn replace(
        &self,
        permit: Permit<'_>,
        moving: Moving,
        to: Link,
        target: Option<Entry>,
        mut parents: Parents,
    ) -> Result<(), FsError> {
        let Moving { named: Named { link: from, cookie, mut attr }, whiteout } = moving;
        let directory = is_directory(&attr);
        let replaced = match target {
            Some(target) => Some(self.replaced(&attr, target, &mut parents)?),
            None => None,
        };
        if directory {
            count_subdirectories(&mut parents.from, -1);
            count_subdirectories(parents.to(), 1);
        }
        let leaves_rows = replaced.as_ref().is_some_and(|replaced| replaced.after.leaves_rows());
        let n_deletions = replaced.as_ref().map_or(0, |replaced| replaced.after.n_operations());
        // A name that stays keeps its place in the listing, also that of a whiteout, and so does
        // what stays in its directory: a listing that goes on meanwhile shows each once.
        let stays = from.parent == to.parent && whiteout.is_none();
        let place = target.map(|target| target.cookie).or(stays.then_some(cookie));
        let n_operations = 1 + u64::from(whiteout.is_some()) + n_deletions;
        self.committer.commit(permit, n_operations, move |draft| {
            let ino = attr.ino;
            draft.log(Operation::Rename {
                ino,
                from: from.clone(),
                to: to.clone(),
                replaced: replaced.as_ref().map(|replaced| replaced.attr.ino),
            });
            // The name that is taken goes before the same one is added.
            draft.remove_name(ino, &from, cookie);
            if let Some(owner) = whiteout {
                put_whiteout(draft, from, cookie, owner);
            }
            if let Some(Replaced { cookie, mut attr, after }) = replaced {
                draft.remove_name(attr.ino, &to, cookie);
                after.apply(&mut attr, draft);
            }
            draft.add_name_at(ino, &to, place.unwrap_or(draft.new_cookie()));
            draft.put_changed(&mut attr);
            parents.touch(draft);
        })?;
        if leaves_rows {
            self.reaping.wake();
        }
        Ok(())
    }

    /// The inode that has the new name, if it can lose it to a directory or to something else.
    fn replaced(
        &self,
        by: &FileAttr,
        target: Entry,
        parents: &mut Parents,
    ) -> Result<Replaced, FsError> {
        assert_ne!(by.ino, target.ino, "no inode replaces itself");
        let mut attr = self.reader().attr(target.ino)?;
        match (is_directory(by), is_directory(&attr)) {
            (true, false) => return Err(FsError::NotDirectory),
            (false, true) => return Err(FsError::IsDirectory),
            (true, true) if !self.reader().is_empty_dir(target.ino)? => {
                return Err(FsError::NotEmpty);
            }
            (true, true) => count_subdirectories(parents.to(), -1),
            (false, false) => {}
        }
        let after = self.after_unlink(&mut attr)?;
        Ok(Replaced { cookie: target.cookie, attr, after })
    }

    fn exchange(
        &self,
        permit: Permit<'_>,
        moving: Named,
        coming: Named,
        mut parents: Parents,
    ) -> Result<(), FsError> {
        let Named { link: from, cookie: from_cookie, mut attr } = moving;
        let Named { link: to, cookie: to_cookie, attr: mut other } = coming;
        let n_dirs = |attr: &FileAttr| i32::from(is_directory(attr));
        // A directory that changes its parent takes one link along.
        let difference = n_dirs(&other) - n_dirs(&attr);
        count_subdirectories(&mut parents.from, difference);
        count_subdirectories(parents.to(), -difference);
        self.committer.commit(permit, 1, move |draft| {
            let (ino, other_ino) = (attr.ino, other.ino);
            draft.remove_name(ino, &from, from_cookie);
            draft.remove_name(other_ino, &to, to_cookie);
            // The names stay where they are in the listings of their directories.
            draft.add_name_at(other_ino, &from, from_cookie);
            draft.add_name_at(ino, &to, to_cookie);
            draft.put_changed(&mut attr);
            draft.put_changed(&mut other);
            parents.touch(draft);
            draft.log(Operation::Exchange { ino, from, to, other: other_ino });
        })?;
        Ok(())
    }

    /// A directory cannot move below itself.
    fn check_no_circle(&self, moved: &FileAttr, to_dir: Ino) -> Result<(), FsError> {
        if !is_directory(moved) {
            return Ok(());
        }
        // Up from the new place. The tree does not change meanwhile: its lock is held, or both
        // places are in one directory.
        let mut way = self.reader().way_up(to_dir);
        let mut at = to_dir;
        while at != moved.ino {
            let Some(link) = way.step()? else { return Ok(()) };
            at = link.parent;
        }
        Err(FsError::Invalid("a directory cannot move below itself"))
    }
}

/// Makes a whiteout, as the second operation of a transaction.
fn put_whiteout(draft: &mut Draft, link: Link, cookie: u64, owner: Caller) {
    assert_eq!(draft.n_operations(), 1, "it follows the rename");
    let kind = FileKind::CharDevice(DeviceNumber { major: 0, minor: 0 });
    let node = NewNode { kind, mode: 0, uid: owner.uid, gid: owner.gid, inherit: None };
    let made = Committed { xid: draft.xid.next(), time: draft.time };
    let attr = stamped(new_attr(&node), made);
    draft.add_name_at(attr.ino, &link, cookie);
    draft.put_new_inode(&attr);
    draft.log(Operation::Mknod { ino: attr.ino, link, kind: NodeKind::CharDevice });
}
