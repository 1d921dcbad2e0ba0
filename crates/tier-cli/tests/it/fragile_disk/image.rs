//! What a loss of power leaves of a disk, as a value: written into a directory of the host, or
//! mounted as the next disk.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use super::faults::Faults;
use super::file::SyncedFile;
use super::nodes::{Content, Names, Node, Nodes, ROOT};

/// A disk at one moment: what is there, and what of it was synced.
#[derive(Clone, Debug)]
pub(crate) struct DiskImage(pub(super) Nodes);

impl DiskImage {
    /// The disk after the power has come back. `reached` is asked for every change that was not
    /// synced whether it reached the disk all the same.
    pub(crate) fn left(&self, reached: &mut dyn FnMut() -> bool) -> Self {
        let mut nodes = HashMap::new();
        self.leave(ROOT, reached, &mut nodes);
        let faults = Faults::none(self.0.faults.n_blocks() * super::blocks::BLOCK_BYTES);
        Self(Nodes::of(nodes, self.0.next(), faults))
    }

    /// Leaves a node and all below it. Whether there is one.
    fn leave(
        &self,
        number: u64,
        reached: &mut dyn FnMut() -> bool,
        nodes: &mut HashMap<u64, Node>,
    ) -> bool {
        let Some(node) = self.0.get(number) else { return false };
        let content = match &node.content {
            Content::Other(_) => return false,
            Content::File(file) => Content::File(SyncedFile::durable(file.torn(reached))),
            Content::Directory { now, durable } => {
                let names = if reached() { now } else { durable };
                let mut left = Names::new();
                for (name, number) in names {
                    // A file may have several names. A directory that was renamed may be named
                    // twice as well, where one of two directories reached the disk: one name
                    // counts.
                    let is_left = match nodes.get_mut(number) {
                        Some(Node { content: Content::File(_), n_names, .. }) => {
                            *n_names += 1;
                            true
                        }
                        Some(_) => false,
                        None => self.leave(*number, reached, nodes),
                    };
                    if is_left {
                        left.insert(name.clone(), *number);
                    }
                }
                Content::directory(left)
            }
        };
        nodes.insert(number, Node::new(content, node.mode));
        true
    }

    /// Writes the disk into a directory of the host, as it is now.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        self.write_node(ROOT, directory)
    }

    fn write_node(&self, number: u64, path: &Path) -> io::Result<()> {
        let Some(node) = self.0.get(number) else { return Ok(()) };
        match &node.content {
            Content::Directory { now, .. } => {
                fs::create_dir_all(path)?;
                for (name, number) in now {
                    self.write_node(*number, &path.join(name))?;
                }
            }
            Content::File(file) => {
                let written = File::create(path)?;
                written.set_permissions(Permissions::from_mode(u32::from(node.mode)))?;
                written.set_len(file.now().len())?;
                for (offset, bytes) in file.now().stored() {
                    written.write_all_at(&bytes, offset)?;
                }
            }
            Content::Other(_) => {}
        }
        Ok(())
    }
}
