//! Mode bits: what a change of owner or content takes away, and what a new inode inherits from its
//! directory. Pure functions.

use tier_types::{FileAttr, FileKind, Xattr};

use super::acl::{self, Acl};

/// Permission, set-id and sticky bits.
pub(super) const ALL: u16 = 0o7777;
const PERMISSIONS: u16 = 0o777;
const SET_UID: u16 = 0o4000;
pub(super) const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o0010;

/// A mode without set-user-id and set-group-id. Without the group's right to execute, the latter
/// is no privilege but a mark for mandatory locks, and stays.
pub(super) fn stripped(mode: u16) -> u16 {
    let mode = mode & !SET_UID;
    if mode & GROUP_EXECUTE == 0 { mode } else { mode & !SET_GID }
}

/// A mode with the permissions of an access control list.
pub(super) fn with_acl(mode: u16, acl: &Acl) -> u16 {
    (mode & !PERMISSIONS) | acl.permissions()
}

/// What is known of an inode that is to inherit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inheriting<'a> {
    pub(super) kind: &'a FileKind,
    pub(super) mode: u16,
    pub(super) gid: u32,
    pub(super) umask: u16,
}

/// What an inode got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Inherited {
    pub(super) mode: u16,
    pub(super) gid: u32,
    /// Its access control lists.
    pub(super) xattrs: Vec<Xattr>,
}

/// What a new inode gets from its directory, which has this default list, if any: the group and the
/// bit from a directory that is set-group-id, and the list in place of the umask.
pub(super) fn inherit(parent: &FileAttr, new: Inheriting<'_>, default: Option<&Acl>) -> Inherited {
    let directory = matches!(new.kind, FileKind::Directory);
    let (mut mode, mut gid) = (new.mode & ALL, new.gid);
    if parent.mode & SET_GID != 0 {
        gid = parent.gid;
        mode |= if directory { SET_GID } else { 0 };
    }
    if matches!(new.kind, FileKind::Symlink(_)) {
        return Inherited { mode, gid, xattrs: Vec::new() };
    }
    let Some(default) = default else {
        return Inherited { mode: mode & !new.umask, gid, xattrs: Vec::new() };
    };
    let access = default.restricted_to(mode);
    let mut xattrs = Vec::new();
    if !access.is_minimal() {
        xattrs.push(Xattr { name: acl::ACCESS.to_vec(), value: access.to_bytes() });
    }
    if directory {
        xattrs.push(Xattr { name: acl::DEFAULT.to_vec(), value: default.to_bytes() });
    }
    Inherited { mode: with_acl(mode, &access), gid, xattrs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(mode: u16) -> FileAttr {
        let node =
            crate::ops::NewNode { kind: FileKind::Directory, mode, uid: 0, gid: 77, inherit: None };
        crate::ops::create::new_attr(&node)
    }

    fn inherited(parent_mode: u16, kind: &FileKind, mode: u16) -> Inherited {
        let new = Inheriting { kind, mode, gid: 5, umask: 0o022 };
        inherit(&parent(parent_mode), new, None)
    }

    #[test]
    fn privileges_go_but_marks_for_locks_stay() {
        assert_eq!(stripped(0o6755), 0o0755);
        assert_eq!(stripped(0o2644), 0o2644, "no right to execute: a mark");
        assert_eq!(stripped(0o6644), 0o2644);
        assert_eq!(stripped(0o1777), 0o1777);
    }

    #[test]
    fn the_umask_takes_away_where_there_is_no_list() {
        let none = |mode, gid| Inherited { mode, gid, xattrs: Vec::new() };
        assert_eq!(inherited(0o755, &FileKind::Regular, 0o666), none(0o644, 5));
        assert_eq!(inherited(0o2755, &FileKind::Regular, 0o666), none(0o644, 77));
        assert_eq!(inherited(0o2755, &FileKind::Directory, 0o777), none(0o2755, 77));
        let link = FileKind::Symlink(b"to".to_vec());
        assert_eq!(inherited(0o2755, &link, 0o777), none(0o777, 77), "a link's mode means nothing");
    }

    /// A list of owner, user 9, group, mask and others.
    fn list(permissions: [u8; 5]) -> Acl {
        let mut bytes = vec![2, 0, 0, 0];
        let ids = [u32::MAX, 9, u32::MAX, u32::MAX, u32::MAX];
        for ((tag, permissions), id) in [1, 2, 4, 16, 32].into_iter().zip(permissions).zip(ids) {
            bytes.extend([tag, 0, permissions, 0]);
            bytes.extend(id.to_le_bytes());
        }
        Acl::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn a_default_list_stands_in_for_the_umask() {
        let default = list([7, 6, 5, 7, 0]);
        let new = |kind| Inheriting { kind, mode: 0o666, gid: 5, umask: 0o077 };
        let file = inherit(&parent(0o755), new(&FileKind::Regular), Some(&default));
        assert_eq!((file.mode, file.gid), (0o660, 5), "the mask is what the mode leaves");
        let access = Xattr { name: acl::ACCESS.to_vec(), value: list([6, 6, 5, 6, 0]).to_bytes() };
        assert_eq!(file.xattrs, std::slice::from_ref(&access));
        // A directory hands the list on as well.
        let dir = inherit(&parent(0o2755), new(&FileKind::Directory), Some(&default));
        assert_eq!((dir.mode, dir.gid), (0o2660, 77));
        let handed_on = Xattr { name: acl::DEFAULT.to_vec(), value: default.to_bytes() };
        assert_eq!(dir.xattrs, [access, handed_on]);
        // A link has neither mode nor list.
        let link = FileKind::Symlink(b"to".to_vec());
        assert_eq!(inherit(&parent(0o755), new(&link), Some(&default)).xattrs, []);
    }
}
