//! The attributes of exported files and directories.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use tier_types::{FileAttr, FileKind, Timestamp};

use super::Export;
use crate::transfer::xattrs;

impl Export<'_> {
    /// Sets owner, extended attributes, mode and times, in this order: a new owner takes set-id
    /// bits away, and an ACL the mode, and each of them changes times.
    pub(super) fn attributes(&self, path: &Path, attr: &FileAttr) -> Result<()> {
        // The link itself and not its target, which may lie outside of the export.
        if self.options.as_root {
            let owned = lchown(path, Some(attr.uid), Some(attr.gid));
            let failed = || format!("cannot set the owner of {}", path.display());
            self.tolerate(owned.with_context(failed))?;
        }
        for name in self.fs.listxattr(attr.ino)? {
            if self.options.as_root || !xattrs::is_for_root(&name) {
                self.tolerate(xattrs::write(path, &name, &self.fs.getxattr(attr.ino, &name)?))?;
            }
        }
        // A symbolic link has no mode of its own on this system.
        if !matches!(attr.kind, FileKind::Symlink(_)) {
            let mode = Permissions::from_mode(u32::from(attr.mode));
            fs::set_permissions(path, mode)
                .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        }
        let time = |time: Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
        let times =
            Timestamps { last_access: time(attr.accessed), last_modification: time(attr.modified) };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("cannot set the times of {}", path.display()))
    }
}
