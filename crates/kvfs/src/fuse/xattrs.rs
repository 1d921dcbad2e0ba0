//! Requests about extended attributes: which namespaces there are, and what each user sees.
//!
//! The kernel asks a FUSE filesystem for any name. It checks `user.` and `trusted.` itself, and its
//! security modules check `security.`; of `system.` it knows the two access control lists, and
//! leaves all others open to every user. So others are refused here, as filesystems on a disk do.

use fuser::{Errno, ReplyEmpty, ReplyXattr, Request};
use tier_types::Ino;

use super::adapter::Adapter;
use super::answer;
use super::tier_xattrs::{self, TierXattr};
use crate::Kvfs;
use crate::ops::{Caller, XattrMode};

impl Adapter {
    pub(super) fn set_xattr(
        &self,
        req: &Request,
        ino: Ino,
        (name, value): (&[u8], &[u8]),
        flags: i32,
        reply: ReplyEmpty,
    ) {
        match XattrName::of(name) {
            XattrName::Tier(asked) => {
                return self.set_tier_xattr(req, ino, asked, Some(value), reply);
            }
            XattrName::Unsupported => return reply.error(Errno::EOPNOTSUPP),
            XattrName::Stored => {}
        }
        let mode = match flags {
            1 => XattrMode::Create,
            2 => XattrMode::Replace,
            _ => XattrMode::Set,
        };
        let caller = Caller { uid: req.uid(), gid: req.gid() };
        let (name, value) = (name.to_vec(), value.to_vec());
        let set = move |fs: &Kvfs| fs.setxattr_as(caller, ino, &name, &value, mode);
        self.answer_growth(req, reply, set, answer::empty);
    }

    pub(super) fn get_xattr(&self, ino: Ino, name: &[u8], size: u32, reply: ReplyXattr) {
        let value = match XattrName::of(name) {
            XattrName::Tier(asked) => self.xattrs.get(&self.fs, ino, asked),
            XattrName::Unsupported => return reply.error(Errno::EOPNOTSUPP),
            XattrName::Stored => self.fs.getxattr(ino, name),
        };
        answer::xattr(reply, size, value);
    }

    pub(super) fn list_xattrs(&self, req: &Request, ino: Ino, size: u32, reply: ReplyXattr) {
        let names = self.fs.listxattr(ino).map(|mut names| {
            names.retain(|name| is_listed(name, req.uid()));
            names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect::<Vec<u8>>()
        });
        answer::xattr(reply, size, names);
    }

    pub(super) fn remove_xattr(&self, req: &Request, ino: Ino, name: &[u8], reply: ReplyEmpty) {
        match XattrName::of(name) {
            XattrName::Tier(asked) => self.set_tier_xattr(req, ino, asked, None, reply),
            XattrName::Unsupported => reply.error(Errno::EOPNOTSUPP),
            XattrName::Stored => answer::empty(reply, self.fs.removexattr(ino, name)),
        }
    }

    fn set_tier_xattr(
        &self,
        req: &Request,
        ino: Ino,
        asked: TierXattr,
        value: Option<&[u8]>,
        reply: ReplyEmpty,
    ) {
        // A user that pins what it likes keeps the store full for all.
        if req.uid() != 0 && !self.user_pins {
            return reply.error(Errno::EPERM);
        }
        answer::empty(reply, tier_xattrs::set(&self.fs, ino, asked, value));
    }
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum XattrName {
    /// What is stored with the inode.
    Stored,
    /// What tells where the data is.
    Tier(TierXattr),
    /// A namespace that there is not.
    Unsupported,
}

const ACCESS_CONTROL: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
const NAMESPACES: [&[u8]; 3] = [b"user.", TRUSTED, b"security."];
const TRUSTED: &[u8] = b"trusted.";

impl XattrName {
    fn of(name: &[u8]) -> Self {
        if let Some(asked) = tier_xattrs::parse(name) {
            return Self::Tier(asked);
        }
        let in_namespace =
            |namespace: &&[u8]| name.strip_prefix(*namespace).is_some_and(|rest| !rest.is_empty());
        if ACCESS_CONTROL.contains(&name) || NAMESPACES.iter().any(in_namespace) {
            Self::Stored
        } else {
            Self::Unsupported
        }
    }
}

/// Whether a listing for a user has it.
fn is_listed(name: &[u8], uid: u32) -> bool {
    XattrName::of(name) == XattrName::Stored && (uid == 0 || !name.starts_with(TRUSTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_those_of_linux() {
        for name in [
            &b"user.a"[..],
            b"trusted.overlay.opaque",
            b"security.capability",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
        ] {
            assert_eq!(XattrName::of(name), XattrName::Stored);
            assert!(is_listed(name, 0));
            assert_eq!(is_listed(name, 1), !name.starts_with(TRUSTED));
        }
        for name in [&b"system.x"[..], b"user.", b"a", b"", b"system.posix_acl_access2", b"btrfs.x"]
        {
            assert_eq!(XattrName::of(name), XattrName::Unsupported);
            assert!(!is_listed(name, 0));
        }
        assert_eq!(XattrName::of(b"user.tier.pin"), XattrName::Tier(TierXattr::Pin));
        assert!(!is_listed(b"user.tier.pin", 0));
    }
}
