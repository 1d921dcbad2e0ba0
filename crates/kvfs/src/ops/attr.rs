//! Attributes of inodes.
//!
//! Every change of an attribute is an operation with a transaction of its own, and the inode's row
//! carries the last one: a snapshot archives an inode's metadata if that number moved on. Access
//! times are noted as `relatime` does, so that reading a file again and again writes nothing.

use tier_log::Operation;
use tier_types::{FileAttr, FileKind, Ino, Timestamp};

use super::{acl, mode};
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;

/// What gives a program privileges; a change of owner or content takes it away.
const CAPABILITY: &[u8] = b"security.capability";

const DAY_SECONDS: i64 = 24 * 60 * 60;

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

impl Core {
    /// The attributes of an inode.
    pub fn getattr(&self, ino: Ino) -> Result<FileAttr, FsError> {
        self.reader().attr(ino)
    }

    /// Sets attributes.
    pub fn setattr(&self, ino: Ino, set: &SetAttr) -> Result<FileAttr, FsError> {
        let permit = self.admit(Purpose::Growth, ROWS_BYTES)?;
        let _guard = self.locks.lock(&[ino]);
        let mut attr = self.reader().attr(ino)?;
        let mut acl = None;
        if let Some(mode) = set.mode {
            attr.mode = mode & mode::ALL;
            let before = self.acl(ino, acl::ACCESS)?;
            // The mode's middle bits are the list's mask: both say the same after a chmod.
            acl = before.map(|before| before.with_mode(attr.mode));
        }
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.accessed = set.accessed.unwrap_or(attr.accessed);
        attr.modified = set.modified.unwrap_or(attr.modified);
        let strips = set.strip && matches!(attr.kind, FileKind::Regular);
        if strips {
            attr.mode = mode::stripped(attr.mode);
        }
        let changed = set.changed;
        let mut updated = attr.clone();
        let committed = self.committer.commit(permit, 1, move |draft| {
            draft.log(Operation::SetAttr { ino });
            if let Some(acl) = acl {
                draft.put_xattr(ino, acl::ACCESS, acl.to_bytes());
            }
            if strips {
                draft.delete_xattr(ino, CAPABILITY);
            }
            updated.changed = changed.unwrap_or(draft.time);
            draft.put_attr(&mut updated);
        })?;
        attr.changed = changed.unwrap_or(committed.time);
        attr.xid = committed.xid;
        Ok(attr)
    }

    /// Takes set-user-id and set-group-id off a file, and its capabilities, as a write does by a
    /// user that could not set them.
    pub fn strip_privileges(&self, ino: Ino) -> Result<(), FsError> {
        let attr = self.reader().attr(ino)?;
        let is_privileged = mode::stripped(attr.mode) != attr.mode;
        if is_privileged || self.reader().has_xattr(ino, CAPABILITY)? {
            self.setattr(ino, &SetAttr { strip: true, ..SetAttr::default() })?;
        }
        Ok(())
    }

    /// Notes that something was read, as Linux does by default (`relatime`): if it changed since
    /// the last time that was noted, or that is a day ago.
    pub fn note_access(&self, ino: Ino) -> Result<(), FsError> {
        let now = self.clock.now();
        let is_due = |attr: &FileAttr| {
            attr.accessed <= attr.modified
                || attr.accessed <= attr.changed
                || now.seconds - attr.accessed.seconds >= DAY_SECONDS
        };
        // Mostly it is not due: then a read costs no lock.
        if !is_due(&self.reader().attr(ino)?) {
            return Ok(());
        }
        let permit = match self.admit(Purpose::Growth, ROWS_BYTES) {
            Ok(permit) => permit,
            // What was read is not held back because that cannot be noted.
            Err(FsError::NoSpace(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let _guard = self.locks.lock(&[ino]);
        let mut attr = self.reader().attr(ino)?;
        if is_due(&attr) {
            attr.accessed = now;
            self.committer.commit(permit, 1, move |draft| {
                draft.log(Operation::SetAttr { ino });
                draft.put_attr(&mut attr);
            })?;
        }
        Ok(())
    }
}
