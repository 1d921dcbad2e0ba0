//! Names of extended attributes: which namespaces there are, and who sees what.
//!
//! The kernel asks a FUSE filesystem for any name. It checks `user.` and `trusted.` itself, and its
//! security modules check `security.`; of `system.` it knows the two access control lists, and
//! leaves all others to anybody. So others are refused here, as filesystems on a disk do.

use super::tier_xattrs::{self, TierXattr};

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum XattrName {
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
    pub(super) fn of(name: &[u8]) -> Self {
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
pub(super) fn is_listed(name: &[u8], uid: u32) -> bool {
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
