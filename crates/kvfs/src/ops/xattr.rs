//! Extended attributes.
//!
//! Values are stored as they are, but for access control lists: those are checked, the mode follows
//! the list that governs access, and a list that says no more than the mode is not stored at all,
//! as Linux's own filesystems have it.

use tier_log::Operation;
use tier_types::{Ino, Xattr, to_u64};

use super::acl::{self, Acl};
use super::mode;
use crate::FsError;
use crate::core::{Core, ROWS_BYTES};
use crate::space::Purpose;

/// Limits of Linux.
const NAME_BYTES_MAX: usize = 255;
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Names and values of one inode together: they are archived in one piece.
const XATTRS_BYTES_MAX: usize = 1 << 20;

/// Whether an attribute must or must not be there before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Either.
    Set,
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
}

/// The user and the group for which an operation is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user; 0 is free to do everything.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Caller {
    /// The user that is free to do everything.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

impl Core {
    /// The value of an attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.reader().attr(ino)?;
        self.reader().xattr(ino, name)?.ok_or(FsError::NoXattr)
    }

    /// The names of all attributes.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        self.reader().attr(ino)?;
        Ok(self.reader().xattrs(ino)?.into_iter().map(|xattr| xattr.name).collect())
    }

    /// Sets an attribute.
    pub fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        self.setxattr_as(Caller::ROOT, ino, name, value, mode)
    }

    /// The same for a caller that may not be free to do everything: by an access control list it
    /// cannot keep set-group-id on a file of another group.
    pub fn setxattr_as(
        &self,
        caller: Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        check_one(name, value)?;
        let permit = self.admit_growth(ROWS_BYTES + to_u64(value.len()))?;
        let _guard = self.locks.lock(&[ino]);
        let mut attr = self.reader().attr(ino)?;
        // Summed up under the lock: two that are set at the same time could otherwise exceed the
        // limit together.
        let before = self.reader().xattrs(ino)?;
        let (same, others): (Vec<_>, Vec<_>) = before.iter().partition(|xattr| xattr.name == name);
        let others_bytes: usize = others.into_iter().map(bytes_of).sum();
        // All of them are one member of a tarball, which has a limit.
        if others_bytes + name.len() + value.len() > XATTRS_BYTES_MAX {
            return Err(FsError::XattrsFull("all extended attributes of a file together"));
        }
        match mode {
            XattrMode::Create if !same.is_empty() => return Err(FsError::Exists),
            XattrMode::Replace if same.is_empty() => return Err(FsError::NoXattr),
            XattrMode::Set | XattrMode::Create | XattrMode::Replace => {}
        }
        let mut kept = Some(value.to_vec());
        if name == acl::ACCESS {
            let acl = Acl::from_bytes(value).ok_or(NO_ACL)?;
            attr.mode = mode::with_acl(attr.mode, &acl);
            if caller.uid != 0 && caller.gid != attr.gid {
                attr.mode &= !mode::SET_GID;
            }
            // The mode says it all.
            kept = kept.filter(|_| !acl.is_minimal());
        }
        let name = name.to_vec();
        self.committer.commit(permit, 1, move |draft| {
            match kept {
                Some(value) => draft.put_xattr(ino, &name, value),
                None => draft.delete_xattr(ino, &name),
            }
            draft.log(Operation::SetXattr { ino, name });
            draft.put_changed(&mut attr);
        })?;
        Ok(())
    }

    /// Removes an attribute.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        let permit = self.admit(Purpose::Removal, ROWS_BYTES)?;
        let _guard = self.locks.lock(&[ino]);
        let mut attr = self.reader().attr(ino)?;
        if !self.reader().has_xattr(ino, name)? {
            return Err(FsError::NoXattr);
        }
        let name = name.to_vec();
        self.committer.commit(permit, 1, move |draft| {
            draft.delete_xattr(ino, &name);
            draft.log(Operation::RemoveXattr { ino, name });
            draft.put_changed(&mut attr);
        })?;
        Ok(())
    }
}

const NO_ACL: FsError = FsError::Invalid("it is no access control list");

fn bytes_of(xattr: &Xattr) -> usize {
    xattr.name.len() + xattr.value.len()
}

fn check_one(name: &[u8], value: &[u8]) -> Result<(), FsError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(&0) {
        return Err(FsError::TooLong("the name of an extended attribute"));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(FsError::XattrsFull("the value of an extended attribute"));
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        Acl::from_bytes(value).ok_or(NO_ACL)?;
    }
    Ok(())
}

/// Whether an inode can have all these attributes.
pub(super) fn check_all(xattrs: &[Xattr]) -> Result<(), FsError> {
    if xattrs.iter().map(bytes_of).sum::<usize>() > XATTRS_BYTES_MAX {
        return Err(FsError::XattrsFull("all extended attributes of a file together"));
    }
    xattrs.iter().try_for_each(|xattr| check_one(&xattr.name, &xattr.value))
}
