//! The attributes of a file of the host, as a store has them.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use kvfs::ops::{NewNode, SetAttr, XattrMode};
use tier_types::{DeviceNumber, FileKind, Ino, Timestamp, Xattr};

use super::Import;
use crate::transfer::xattrs;

impl Import<'_> {
    /// Sets extended attributes, and then all others at once: the time of change says that the file
    /// is complete.
    pub(super) fn attributes(&self, path: &Path, ino: Ino, metadata: &Metadata) -> Result<()> {
        // The mode comes after these: setting an access control list changes it.
        for Xattr { name, value } in xattrs::read(path)? {
            self.in_room(|| self.fs.setxattr(ino, &name, &value, XattrMode::Set))?;
        }
        let times = times(metadata)?;
        let set = SetAttr {
            mode: Some(mode(metadata)),
            uid: Some(metadata.uid()),
            gid: Some(metadata.gid()),
            accessed: Some(times.accessed),
            modified: Some(times.modified),
            ..SetAttr::default()
        };
        self.in_room(|| self.fs.setattr(ino, &set))?;
        Ok(())
    }
}

pub(super) fn look_at(path: &Path) -> Result<Metadata> {
    // Symbolic links are imported as such, and are not followed out of the tree.
    fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))
}

pub(super) struct Times {
    pub(super) accessed: Timestamp,
    pub(super) modified: Timestamp,
}

pub(super) fn times(metadata: &Metadata) -> Result<Times> {
    Ok(Times {
        accessed: timestamp(metadata.atime(), metadata.atime_nsec())?,
        modified: timestamp(metadata.mtime(), metadata.mtime_nsec())?,
    })
}

fn timestamp(seconds: i64, nanos: i64) -> Result<Timestamp> {
    let nanos =
        u32::try_from(nanos).context("the host's filesystem gives a time that cannot be")?;
    Ok(Timestamp { seconds, nanos })
}

#[expect(clippy::expect_used, reason = "twelve bits fit into sixteen")]
fn mode(metadata: &Metadata) -> u16 {
    // The kind is not part of a store's mode: only permissions and the three special bits are.
    u16::try_from(metadata.mode() & 0o7777).expect("twelve bits")
}

/// A node with the owner and the mode of a file of the host; the kind is to be set.
pub(super) fn owned(metadata: &Metadata) -> NewNode {
    NewNode {
        kind: FileKind::Regular,
        mode: mode(metadata),
        uid: metadata.uid(),
        gid: metadata.gid(),
        // A copy has the host's attributes, whatever the directory would pass on.
        inherit: None,
    }
}

/// What to make for a file of the host that is not a directory.
pub(super) fn node(path: &Path, metadata: &Metadata) -> Result<NewNode> {
    let of_host = metadata.file_type();
    // A device number is split, because hosts pack its parts differently.
    let device = || DeviceNumber {
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
    };
    let kind = if of_host.is_file() {
        FileKind::Regular
    } else if of_host.is_symlink() {
        let failed = || format!("cannot read {}", path.display());
        let target = fs::read_link(path).with_context(failed)?;
        FileKind::Symlink(target.into_os_string().into_vec())
    } else if of_host.is_fifo() {
        FileKind::Fifo
    } else if of_host.is_socket() {
        FileKind::Socket
    } else if of_host.is_char_device() {
        FileKind::CharDevice(device())
    } else if of_host.is_block_device() {
        FileKind::BlockDevice(device())
    } else {
        // A kind that is not known cannot be restored, and leaving it out would lose it silently.
        bail!("{} is of a kind that is not known", path.display());
    };
    Ok(NewNode { kind, ..owned(metadata) })
}
