//! A disk that loses its power: a mounted filesystem in memory that remembers what of it was
//! synced.
//!
//! A file is durable as it was when it was last synced, a name when its directory was. What a loss
//! of power leaves is at least that. Of what was written to a file since, any blocks may have
//! reached the disk as well, and its length; of a directory all changes or none, because
//! filesystems keep renames whole.

mod adapter;
mod nodes;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption};
use parking_lot::Mutex;

use adapter::Disk;
use nodes::{BLOCK_BYTES, Content, Node, Nodes, ROOT, Synced};

/// The disk, mounted until it is dropped.
#[derive(Debug)]
pub(crate) struct FragileDisk {
    nodes: Arc<Mutex<Nodes>>,
    _session: BackgroundSession,
}

/// What a loss of power leaves.
#[derive(Debug)]
pub(crate) struct DiskImage(Nodes);

impl FragileDisk {
    /// Mounts an empty one on a directory.
    pub(crate) fn mount(directory: &Path) -> io::Result<Self> {
        let nodes = Arc::new(Mutex::new(Nodes::new()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("fragile".into())];
        let session = fuser::spawn_mount(Disk(Arc::clone(&nodes)), directory, &config)?;
        Ok(Self { nodes, _session: session })
    }

    /// Loses the power, in a copy: what uses the disk notices nothing.
    pub(crate) fn lose_power(&self) -> DiskImage {
        DiskImage(self.nodes.lock().clone())
    }
}

impl DiskImage {
    /// Writes them into a directory. `reached` is asked for every change that was not synced
    /// whether it reached the disk all the same.
    pub(crate) fn write(
        &self,
        directory: &Path,
        reached: &mut dyn FnMut() -> bool,
    ) -> io::Result<()> {
        self.write_directory(ROOT, directory, reached)
    }

    fn write_directory(
        &self,
        number: u64,
        directory: &Path,
        reached: &mut dyn FnMut() -> bool,
    ) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let Some(Node { content: Content::Directory(names), .. }) = self.0.nodes.get(&number)
        else {
            return Ok(());
        };
        for (name, &number) in if reached() { &names.now } else { &names.durable } {
            let path = directory.join(name);
            match self.0.nodes.get(&number).map(|node| &node.content) {
                Some(Content::Directory(_)) => self.write_directory(number, &path, reached)?,
                Some(Content::File(data)) => fs::write(path, torn(data, reached))?,
                Some(Content::Other(_)) | None => {}
            }
        }
        Ok(())
    }
}

/// A file of which some blocks and perhaps the length reached the disk, and others did not.
fn torn(data: &Synced<Vec<u8>>, reached: &mut dyn FnMut() -> bool) -> Vec<u8> {
    let mut left = data.durable.clone();
    if reached() {
        left.resize(data.now.len(), 0);
    }
    let block_bytes = usize::try_from(BLOCK_BYTES).unwrap();
    for (left, now) in left.chunks_mut(block_bytes).zip(data.now.chunks(block_bytes)) {
        let len = left.len().min(now.len());
        if left[..len] != now[..len] && reached() {
            left[..len].copy_from_slice(&now[..len]);
        }
    }
    left
}
