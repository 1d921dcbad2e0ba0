//! Repairs of the tree: what cannot be reached comes into `/lost+found`.

use std::collections::HashSet;
use std::iter;

use tier_log::Operation;
use tier_types::{FileKind, FileName, Ino, Link, to_u64};

use super::Apply;
use crate::FsError;
use crate::ops::NewNode;

/// Names that are tried where one is taken.
const N_NAMES: usize = 100;

/// A name that an inode loses, and the place of its entry in the listing if it has one.
struct OldName {
    link: Link,
    cookie: Option<u64>,
}

impl Apply<'_> {
    /// Moves the top of what cannot be reached into `/lost+found`; what lies below comes along.
    pub(super) fn move_to_lost_and_found(&self, ino: Ino) -> Result<bool, FsError> {
        let Some(top) = self.unreachable_top(ino)? else { return Ok(true) };
        let links = self.core.reader().links(top)?;
        // Which of several names is the right one is said nowhere.
        if links.len() > 1 {
            return Ok(false);
        }
        let home = self.lost_and_found()?;
        let Some(name) = self.free_name(home, &format!("#{top}"))? else { return Ok(false) };
        let link = Link { parent: home, name };
        let mut old_names = Vec::new();
        for link in links {
            let entry = self.core.reader().entry(link.parent, &link.name)?;
            let cookie = entry.filter(|entry| entry.ino == top).map(|entry| entry.cookie);
            old_names.push(OldName { link, cookie });
        }
        let mut attr = self.core.reader().attr(top)?;
        self.core.committer.commit(self.permit()?, 1 + to_u64(old_names.len()), move |draft| {
            for OldName { link, cookie } in old_names {
                match cookie {
                    Some(cookie) => draft.remove_name(top, &link, cookie),
                    None => draft.delete_link(top, &link),
                }
                draft.log(Operation::Unlink { ino: top, link });
            }
            draft.add_name(top, &link);
            draft.log(Operation::Link { ino: top, link });
            draft.put_changed(&mut attr);
        })?;
        Ok(true)
    }

    /// The last inode on the way up that does not lead to the root; `None` if it does.
    fn unreachable_top(&self, ino: Ino) -> Result<Option<Ino>, FsError> {
        let (mut at, mut seen) = (ino, HashSet::new());
        while at != Ino::ROOT {
            let link = self.core.reader().first_link(at)?;
            let parent = link.map(|link| link.parent).filter(|_| seen.insert(at));
            match parent {
                Some(parent) if self.core.reader().has_inode(parent)? => at = parent,
                Some(_) | None => return Ok(Some(at)),
            }
        }
        Ok(None)
    }

    fn lost_and_found(&self) -> Result<Ino, FsError> {
        for name in numbered("lost+found") {
            let Some(entry) = self.core.reader().entry(Ino::ROOT, &name)? else {
                let (kind, mode) = (FileKind::Directory, 0o700);
                let node = NewNode { kind, mode, uid: 0, gid: 0, inherit: None };
                return Ok(self.core.create_node(Ino::ROOT, &name, &node)?.ino);
            };
            let attr = self.core.reader().find_attr(entry.ino);
            if matches!(attr, Ok(Some(attr)) if attr.kind == FileKind::Directory) {
                return Ok(entry.ino);
            }
        }
        Err(FsError::NotFound)
    }

    fn free_name(&self, dir: Ino, wanted: &str) -> Result<Option<FileName>, FsError> {
        for name in numbered(wanted) {
            if self.core.reader().entry(dir, &name)?.is_none() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

/// A name, and others in its place.
fn numbered(name: &str) -> impl Iterator<Item = FileName> {
    let others = (1..N_NAMES).map(move |number| format!("{name}.{number}"));
    let all = iter::once(name.to_string()).chain(others);
    all.filter_map(|name| FileName::new(name.as_bytes()))
}
