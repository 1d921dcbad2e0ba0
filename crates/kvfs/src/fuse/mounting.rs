//! Mounting as root, by the system call.
//!
//! The library would do it as well, but as a filesystem of the type `fuse`. Under its own type
//! `fuse.tier` a mount is found by `findmnt -t`, and taken for what it is by programs that go by
//! types.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, mount as mount_at};

use super::MountOptions;

const DEVICE: &str = "/dev/fuse";
const TYPE: &str = "fuse.tier";

/// Mounts on a directory. The kernel's requests come from the file that is returned.
pub(super) fn mount(mountpoint: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    let data = CString::new(data)?;
    mount_at(options.source.as_str(), mountpoint, TYPE, flags(options), data.as_c_str())?;
    Ok(device.into())
}

fn flags(options: &MountOptions) -> MountFlags {
    let MountOptions { read_only, no_suid, no_dev, no_exec, .. } = *options;
    let chosen = [
        (read_only, MountFlags::RDONLY),
        (no_suid, MountFlags::NOSUID),
        (no_dev, MountFlags::NODEV),
        (no_exec, MountFlags::NOEXEC),
    ];
    chosen.iter().filter(|(is_on, _)| *is_on).map(|(_, flag)| *flag).collect()
}
