//! Extended attributes.

use tier_log::Operation;
use tier_types::{Ino, Xattr};

use crate::FsError;
use crate::acl::{self, Acl};
use crate::fs::Kvfs;
use crate::inode::{SET_GID, put_changed};
use crate::schema::{self, Table};

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

impl Kvfs {
    /// The value of an attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.live().attr(ino)?;
        self.live().0.get(Table::Xattrs, &schema::named(ino, name))?.ok_or(FsError::NoXattr)
    }

    /// The names of all attributes.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        self.live().attr(ino)?;
        Ok(self.live().xattrs(ino)?.into_iter().map(|xattr| xattr.name).collect())
    }

    /// Sets an attribute.
    pub fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        self.setxattr_as((0, 0), ino, (name, value), mode)
    }

    /// The same for a user and group who may not be free to do all: by an access control list they
    /// cannot keep set-group-id on a file of a group that is not theirs.
    pub fn setxattr_as(
        &self,
        (uid, gid): (u32, u32),
        ino: Ino,
        (name, value): (&[u8], &[u8]),
        mode: XattrMode,
    ) -> Result<(), FsError> {
        check_one(name, value)?;
        self.check_room()?;
        let _guard = self.locks.lock(&[ino]);
        let mut attr = self.live().attr(ino)?;
        let key = schema::named(ino, name);
        let exists = self.live().0.get(Table::Xattrs, &key)?.is_some();
        let others = self.live().xattrs(ino)?;
        let others = others.iter().filter(|other| other.name != name);
        let others: usize = others.map(|other| other.name.len() + other.value.len()).sum();
        if others + name.len() + value.len() > XATTRS_BYTES_MAX {
            return Err(FsError::NoSpace("all extended attributes of a file together"));
        }
        match mode {
            XattrMode::Create if exists => return Err(FsError::Exists),
            XattrMode::Replace if !exists => return Err(FsError::NoXattr),
            XattrMode::Set | XattrMode::Create | XattrMode::Replace => {}
        }
        let mut kept = Some(value.to_vec());
        if name == acl::ACCESS || name == acl::DEFAULT {
            let acl = Acl::from_bytes(value);
            let acl = acl.ok_or(FsError::Invalid("it is no access control list"))?;
            if name == acl::ACCESS {
                attr.mode = (attr.mode & !0o777) | acl.permissions();
                if uid != 0 && gid != attr.gid {
                    attr.mode &= !SET_GID;
                }
                // The mode says it all.
                kept = kept.filter(|_| !acl.is_minimal());
            }
        }
        let name = name.to_vec();
        self.committer.commit(1, move |draft| {
            match kept {
                Some(value) => draft.changes.put(Table::Xattrs, &key, value),
                None => draft.changes.delete(Table::Xattrs, &key),
            }
            draft.operations.push(Operation::SetXattr { ino, name });
            put_changed(draft, &mut attr);
        })?;
        Ok(())
    }

    /// Removes an attribute.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        let _guard = self.locks.lock(&[ino]);
        let mut attr = self.live().attr(ino)?;
        let key = schema::named(ino, name);
        self.live().0.get(Table::Xattrs, &key)?.ok_or(FsError::NoXattr)?;
        let name = name.to_vec();
        self.committer.commit(1, move |draft| {
            draft.changes.delete(Table::Xattrs, &key);
            draft.operations.push(Operation::RemoveXattr { ino, name });
            put_changed(draft, &mut attr);
        })?;
        Ok(())
    }
}

fn check_one(name: &[u8], value: &[u8]) -> Result<(), FsError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(&0) {
        return Err(FsError::TooLong("the name of an extended attribute"));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(FsError::NoSpace("the value of an extended attribute"));
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        Acl::from_bytes(value).ok_or(FsError::Invalid("it is no access control list"))?;
    }
    Ok(())
}

/// Whether an inode can have all these attributes.
pub(crate) fn check_all(xattrs: &[Xattr]) -> Result<(), FsError> {
    let bytes: usize = xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
    if bytes > XATTRS_BYTES_MAX {
        return Err(FsError::NoSpace("all extended attributes of a file together"));
    }
    xattrs.iter().try_for_each(|xattr| check_one(&xattr.name, &xattr.value))
}
