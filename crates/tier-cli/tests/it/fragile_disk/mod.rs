//! A disk that loses its power: a mounted filesystem in memory that remembers what of it was
//! synced.
//!
//! A file is durable as it was when it was last synced, a name when its directory was. What a loss
//! of power leaves is at least that. Of what was written to a file since, any blocks may have
//! reached the disk as well, and its length; of a directory all changes or none, because
//! filesystems keep renames whole.
//!
//! The disk has a capacity, can be filled by another program (writes that need a block fail with
//! ENOSPC then), and can fail syncs. What flips bits works on what was left (`flip`).

mod adapter;
mod blocks;
mod faults;
mod file;
mod flip;
mod image;
mod nodes;
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption};
use parking_lot::Mutex;

use adapter::Disk;
use nodes::Nodes;

pub(crate) use faults::FailedSync;
pub(crate) use flip::flip_bit;
pub(crate) use image::DiskImage;

/// The disk, mounted until it is dropped.
#[derive(Debug)]
pub(crate) struct FragileDisk {
    nodes: Arc<Mutex<Nodes>>,
    session: Option<BackgroundSession>,
}

impl FragileDisk {
    /// Room on a disk that is not to fill up by itself.
    pub(crate) const CAPACITY_BYTES: u64 = 1 << 30;

    /// Mounts an empty one on a directory.
    pub(crate) fn mount(directory: &Path) -> io::Result<Self> {
        Self::mount_image(directory, &DiskImage(Nodes::new(Self::CAPACITY_BYTES)))
    }

    /// Mounts what was left of one.
    pub(crate) fn mount_image(directory: &Path, image: &DiskImage) -> io::Result<Self> {
        let nodes = Arc::new(Mutex::new(image.0.clone()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("fragile".into())];
        let session = fuser::spawn_mount(Disk(Arc::clone(&nodes)), directory, &config)?;
        Ok(Self { nodes, session: Some(session) })
    }

    /// Loses the power, in a copy: what uses the disk notices nothing.
    pub(crate) fn lose_power(&self) -> DiskImage {
        DiskImage(self.nodes.lock().clone())
    }

    /// Lets another program take or give back room until so many bytes are free.
    pub(crate) fn leave_free(&self, free_bytes: u64) {
        let mut nodes = self.nodes.lock();
        let n_used_blocks = nodes.n_used_blocks();
        nodes.faults.leave_free(free_bytes, n_used_blocks);
    }

    /// Fails the next syncs of files and directories.
    pub(crate) fn fail_syncs(&self, n_syncs: u64, failed_sync: FailedSync) {
        self.nodes.lock().faults.fail_syncs(n_syncs, failed_sync);
    }

    /// Syncs that failed until now.
    pub(crate) fn n_failed_syncs(&self) -> u64 {
        self.nodes.lock().faults.n_failed_syncs()
    }
}

impl Drop for FragileDisk {
    fn drop(&mut self) {
        // The same directory may be mounted on next. What still uses the disk ends with it.
        let ended = self.session.take().map(BackgroundSession::umount_and_join);
        if let Some(Err(error)) = ended {
            eprintln!("the fragile disk is not unmounted: {error}");
        }
    }
}
