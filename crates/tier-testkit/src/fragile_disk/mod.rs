//! A disk that loses its power: a mounted filesystem in memory that remembers what of it was synced.
//!
//! A file is durable as it was when it was last synced, a name when its folder was. What a loss of
//! power leaves is at least that; of what came later, any part may have reached the disk as well.

mod adapter;
mod nodes;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption};
use parking_lot::Mutex;

use adapter::Disk;
use nodes::{Content, Node, Nodes, ROOT};

/// The disk, mounted until it is dropped.
#[derive(Debug)]
pub struct FragileDisk {
    nodes: Arc<Mutex<Nodes>>,
    _session: BackgroundSession,
}

/// What a loss of power leaves.
#[derive(Debug)]
pub struct Survivors(Nodes);

impl FragileDisk {
    /// Mounts an empty one on a folder.
    pub fn mount(folder: &Path) -> io::Result<Self> {
        let nodes = Arc::new(Mutex::new(Nodes::new()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("fragile".into())];
        let session = fuser::spawn_mount(Disk(Arc::clone(&nodes)), folder, &config)?;
        Ok(Self { nodes, _session: session })
    }

    /// Loses the power, in a copy: those who use the disk notice nothing.
    pub fn lose_power(&self) -> Survivors {
        Survivors(self.nodes.lock().clone())
    }
}

impl Survivors {
    /// Writes them into a folder. `reached` is asked for every file and folder whether it reached
    /// the disk though nobody had synced it.
    pub fn write(&self, folder: &Path, reached: &mut dyn FnMut() -> bool) -> io::Result<()> {
        self.write_folder(ROOT, folder, reached)
    }

    fn write_folder(
        &self,
        number: u64,
        folder: &Path,
        reached: &mut dyn FnMut() -> bool,
    ) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let Some(Node { content: Content::Folder(names), .. }) = self.0.nodes.get(&number) else {
            return Ok(());
        };
        for (name, &number) in if reached() { &names.now } else { &names.durable } {
            let path = folder.join(name);
            match self.0.nodes.get(&number).map(|node| &node.content) {
                Some(Content::Folder(_)) => self.write_folder(number, &path, reached)?,
                Some(Content::File(data)) => {
                    fs::write(path, if reached() { &data.now } else { &data.durable })?;
                }
                Some(Content::Other(_)) | None => {}
            }
        }
        Ok(())
    }
}
