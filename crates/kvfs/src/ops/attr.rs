//! Attributes of inodes.
//!
//! Every change of an attribute is an operation with a transaction of its own, and the inode's row
//! carries the last one: a snapshot archives an inode's metadata if that number moved on. Access
//! times that reads imply are no change (see `access`).

use tier_log::Operation;
use tier_types::{FileAttr, FileKind, Ino, Timestamp};

use super::{acl, mode};
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::tx::{Committed, Draft};

/// What gives a program privileges; a change of owner or content takes it away.
const CAPABILITY: &[u8] = b"security.capability";

/// Attributes to be set; `None` leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission, set-id and sticky bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub accessed: Option<Timestamp>,
    /// Last change of data.
    pub modified: Option<Timestamp>,
    /// Last change of anything; without it, now.
    pub changed: Option<Timestamp>,
    /// Take set-user-id and set-group-id off a file, and its capabilities, as a change of owner
    /// does.
    pub strip: bool,
}

/// Attributes as a change leaves them, but for what its transaction gives.
#[derive(Clone)]
pub(super) struct NewAttributes {
    pub(super) attr: FileAttr,
    acl: Option<Vec<u8>>,
    strips: bool,
    /// Without it, the time of the transaction.
    changed: Option<Timestamp>,
}

impl NewAttributes {
    pub(super) fn put(self, draft: &mut Draft) {
        let Self { mut attr, acl, strips, changed } = self;
        if let Some(acl) = acl {
            draft.put_xattr(attr.ino, acl::ACCESS, acl);
        }
        if strips {
            draft.delete_xattr(attr.ino, CAPABILITY);
        }
        attr.changed = changed.unwrap_or(draft.time);
        draft.put_attr(&mut attr);
    }
}

impl Core {
    /// The attributes of an inode.
    pub fn getattr(&self, ino: Ino) -> Result<FileAttr, FsError> {
        Ok(self.with_access(self.reader().attr(ino)?))
    }

    /// Sets attributes.
    pub fn setattr(&self, ino: Ino, set: &SetAttr) -> Result<FileAttr, FsError> {
        let permit = self.admit_growth(ROWS_BYTES)?;
        let _guard = self.locks.lock(&[ino]);
        let new = self.new_attributes(self.reader().attr(ino)?, set)?;
        let NewAttributes { attr, changed, .. } = new.clone();
        let Committed { xid, time } = self.committer.commit(permit, 1, move |draft| {
            draft.log(Operation::SetAttr { ino });
            new.put(draft);
        })?;
        Ok(FileAttr { changed: changed.unwrap_or(time), xid, ..attr })
    }

    /// What attributes become, with the inode's lock held.
    pub(super) fn new_attributes(
        &self,
        mut attr: FileAttr,
        set: &SetAttr,
    ) -> Result<NewAttributes, FsError> {
        let mut acl = None;
        if let Some(mode) = set.mode {
            attr.mode = mode & mode::ALL;
            let before = self.acl(attr.ino, acl::ACCESS)?;
            // The mode's middle bits are the list's mask: both say the same after a chmod.
            acl = before.map(|before| before.with_mode(attr.mode).to_bytes());
        }
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        match set.accessed {
            Some(accessed) => {
                attr.accessed = accessed;
                self.access_times.forget(attr.ino);
            }
            // Along with this it is archived.
            None => attr = self.with_access(attr),
        }
        attr.modified = set.modified.unwrap_or(attr.modified);
        let strips = set.strip && matches!(attr.kind, FileKind::Regular);
        if strips {
            attr.mode = mode::stripped(attr.mode);
        }
        Ok(NewAttributes { attr, acl, strips, changed: set.changed })
    }

    /// Takes set-user-id and set-group-id off a file, and its capabilities, as a write does by a
    /// user that could not set them. Whether there were any.
    pub fn strip_privileges(&self, ino: Ino) -> Result<bool, FsError> {
        let attr = self.reader().attr(ino)?;
        let is_privileged =
            mode::stripped(attr.mode) != attr.mode || self.reader().has_xattr(ino, CAPABILITY)?;
        if is_privileged {
            self.setattr(ino, &SetAttr { strip: true, ..SetAttr::default() })?;
        }
        Ok(is_privileged)
    }
}
