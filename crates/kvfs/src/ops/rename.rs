//! Moving names.

use tier_log::Operation;
use tier_types::{FileAttr, FileKind, FileName, Ino, Link};

use crate::FsError;
use crate::fs::Kvfs;
use crate::inode::{delete_link, put_changed, put_link, put_link_with_cookie, touch_directory};
use crate::remove::{Fate, settle};

/// What happens if the new name is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// Who has it loses it.
    Replace,
    /// An error.
    NoReplace,
    /// Both names change hands; the new one must exist.
    Exchange,
}

/// The directories of a rename, which may be one.
struct Parents {
    from: FileAttr,
    to: Option<FileAttr>,
}

impl Parents {
    fn to(&mut self) -> &mut FileAttr {
        self.to.as_mut().unwrap_or(&mut self.from)
    }
}

impl Kvfs {
    /// Renames an entry, or moves it to another directory.
    pub fn rename(
        &self,
        (from_dir, from_name): (Ino, &FileName),
        (to_dir, to_name): (Ino, &FileName),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let from = Link { parent: from_dir, name: from_name.clone() };
        let to = Link { parent: to_dir, name: to_name.clone() };
        loop {
            let (ino, _) = self.entry_in(from_dir, from_name)?;
            let target = self.live().entry(to_dir, to_name)?.map(|(ino, _)| ino);
            let is_dir = |ino: Ino| {
                Ok::<bool, FsError>(matches!(self.live().attr(ino)?.kind, FileKind::Directory))
            };
            let moves_tree = from_dir != to_dir
                && (is_dir(ino)? || target.is_some_and(|target| is_dir(target).unwrap_or(false)));
            let _tree = moves_tree.then(|| self.tree.lock());
            let mut inodes = vec![from_dir, to_dir, ino];
            inodes.extend(target);
            let _guard = self.locks.lock(&inodes);
            let source_now = self.live().entry(from_dir, from_name)?;
            let target_now = self.live().entry(to_dir, to_name)?;
            let same = source_now.map(|(ino, _)| ino) == Some(ino)
                && target_now.map(|(ino, _)| ino) == target;
            if let (true, Some(source)) = (same, source_now) {
                return self.rename_locked((from, source), (to, target_now), mode);
            }
        }
    }

    fn rename_locked(
        &self,
        (from, source): (Link, (Ino, u64)),
        (to, target): (Link, Option<(Ino, u64)>),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let parents = Parents {
            from: self.linked_directory(from.parent)?,
            to: match from.parent == to.parent {
                true => None,
                false => Some(self.linked_directory(to.parent)?),
            },
        };
        let attr = self.live().attr(source.0)?;
        self.check_no_circle(&attr, to.parent)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => Err(FsError::Exists),
            (RenameMode::Exchange, None) => Err(FsError::NotFound),
            // Both names are of one inode: nothing to do, as POSIX has it.
            (_, Some((other, _))) if other == source.0 => Ok(()),
            (RenameMode::Exchange, Some(target)) => {
                let other = self.live().attr(target.0)?;
                self.check_no_circle(&other, from.parent)?;
                self.exchange((from, source.1, attr), (to, target.1, other), parents)
            }
            (RenameMode::Replace | RenameMode::NoReplace, target) => {
                self.replace((from, source.1, attr), (to, target), parents)
            }
        }
    }

    fn replace(
        &self,
        (from, from_cookie, mut attr): (Link, u64, FileAttr),
        (to, target): (Link, Option<(Ino, u64)>),
        mut parents: Parents,
    ) -> Result<(), FsError> {
        let directory = matches!(attr.kind, FileKind::Directory);
        let mut loser = None;
        if let Some((ino, cookie)) = target {
            let mut other = self.live().attr(ino)?;
            match (directory, matches!(other.kind, FileKind::Directory)) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                (true, true) if !self.live().is_empty_dir(ino)? => return Err(FsError::NotEmpty),
                (true, true) => parents.to().nlink -= 1,
                (false, false) => {}
            }
            let fate = self.lose_name(&mut other)?;
            loser = Some((other, cookie, fate));
        }
        if directory {
            parents.from.nlink -= 1;
            parents.to().nlink += 1;
        }
        let ends = matches!(loser, Some((_, _, Some(Fate::Ends(_)))));
        self.committer.commit(1 + u64::from(ends), move |draft| {
            let ino = attr.ino;
            let replaced = loser.as_ref().map(|(other, _, _)| other.ino);
            draft.operations.push(Operation::Rename {
                ino,
                from: from.clone(),
                to: to.clone(),
                replaced,
            });
            delete_link(draft, ino, &from, from_cookie);
            if let Some((mut other, cookie, fate)) = loser {
                delete_link(draft, other.ino, &to, cookie);
                settle(draft, &mut other, fate);
            }
            put_link(draft, ino, &to);
            put_changed(draft, &mut attr);
            touch_directory(draft, &mut parents.from);
            if let Some(to) = &mut parents.to {
                touch_directory(draft, to);
            }
        })?;
        Ok(())
    }

    fn exchange(
        &self,
        (from, from_cookie, mut attr): (Link, u64, FileAttr),
        (to, to_cookie, mut other): (Link, u64, FileAttr),
        mut parents: Parents,
    ) -> Result<(), FsError> {
        let is_dir = |attr: &FileAttr| u32::from(matches!(attr.kind, FileKind::Directory));
        let (moving, coming) = (is_dir(&attr), is_dir(&other));
        parents.from.nlink = parents.from.nlink + coming - moving;
        let to_dir = parents.to();
        to_dir.nlink = to_dir.nlink + moving - coming;
        self.committer.commit(1, move |draft| {
            let (ino, other_ino) = (attr.ino, other.ino);
            delete_link(draft, ino, &from, from_cookie);
            delete_link(draft, other_ino, &to, to_cookie);
            // The names stay where they are in their directories.
            put_link_with_cookie(draft, other_ino, &from, from_cookie);
            put_link_with_cookie(draft, ino, &to, to_cookie);
            put_changed(draft, &mut attr);
            put_changed(draft, &mut other);
            touch_directory(draft, &mut parents.from);
            if let Some(to) = &mut parents.to {
                touch_directory(draft, to);
            }
            draft.operations.push(Operation::Exchange { ino, from, to, other: other_ino });
        })?;
        Ok(())
    }

    /// A directory cannot move below itself.
    fn check_no_circle(&self, moved: &FileAttr, to_dir: Ino) -> Result<(), FsError> {
        if !matches!(moved.kind, FileKind::Directory) {
            return Ok(());
        }
        let mut at = Some(to_dir);
        while let Some(dir) = at {
            if dir == moved.ino {
                return Err(FsError::Invalid("a directory cannot move below itself"));
            }
            at = self.live().first_link(dir)?.map(|link| link.parent);
        }
        Ok(())
    }
}
