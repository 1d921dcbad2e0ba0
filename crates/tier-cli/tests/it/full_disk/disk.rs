//! An ext4 in a file, and the other program that fills it.
//!
//! The other program takes blocks without writing them (`fallocate`), so that it takes a gigabyte
//! within milliseconds, before the store can have looked again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate};

/// A disk of its own, mounted until it is dropped.
pub(crate) struct LoopDisk {
    on: PathBuf,
}

impl LoopDisk {
    /// Makes and mounts one of so many bytes in a directory. `None`, said loudly, for a user that
    /// may not mount.
    pub(crate) fn new(directory: &Path, bytes: u64) -> Option<Self> {
        let (image, on) = (directory.join("image"), directory.join("disk"));
        File::create(&image).unwrap().set_len(bytes).unwrap();
        fs::create_dir(&on).unwrap();
        // No share of it is kept for root, which is the user that fills it here.
        let format = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).status();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&image).arg(&on).stderr(Stdio::null());
        let made = format.is_ok_and(|status| status.success())
            && mount.status().is_ok_and(|status| status.success());
        if !made {
            eprintln!("SKIPPED: no disk can be made and mounted here; run it as root");
            return None;
        }
        Some(Self { on })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.on
    }

    /// The other program takes the last byte.
    pub(crate) fn fill(&self) {
        let mut file = self.other();
        for step in [64 << 20, 1 << 20, 64 << 10, 4 << 10] {
            let mut end = file.metadata().unwrap().len();
            // An attempt that fails keeps what blocks it got, which the next ones find there.
            while fallocate(&file, FallocateFlags::empty(), end, step).is_ok() {
                end += step;
            }
        }
        while file.write_all(&[1; 4096]).is_ok() {}
        let _ = file.sync_all();
    }

    /// The other program gives so many bytes back.
    pub(crate) fn give_back(&self, bytes: u64) {
        let file = self.other();
        let taken = file.metadata().unwrap().len();
        file.set_len(taken.checked_sub(bytes).expect("it took more than it gives back")).unwrap();
        // Blocks can be taken again when the journal knows that they are free.
        file.sync_all().unwrap();
    }

    fn other(&self) -> File {
        File::options().append(true).create(true).open(self.on.join("other")).unwrap()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.on).stderr(Stdio::null()).status();
    }
}
