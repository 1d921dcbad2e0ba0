//! A store that was made anew, and takes the place of the old one.
//!
//! It is built in a directory inside of the store ([`Layout::rebuilt`]). Its settings are written
//! last: with them it is whole, without them it is what an interrupted takeover left. It is moved
//! entry by entry, the settings last, so that a crash half way is finished when the store is opened
//! next.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Layout, StoreError, durable};

/// Moves a store that was made anew to its place, if there is one: entry by entry, its settings
/// last.
pub(crate) fn finish(layout: &Layout) -> Result<(), StoreError> {
    let rebuilt = Layout::new(&layout.rebuilt());
    if !rebuilt.config().exists() {
        // What an interrupted takeover left is of no use: the next one begins anew.
        return remove_tree(rebuilt.root());
    }
    tracing::info!(path = %layout.root().display(), "putting a store that was made anew in place");
    // What the old filesystem's evicter carried over is of other data.
    remove_tree(&layout.evict())?;
    for entry in entries(rebuilt.root())? {
        let name = entry.file_name().map(PathBuf::from).unwrap_or_default();
        if entry == rebuilt.config() {
            continue;
        }
        let to = layout.root().join(name);
        remove_tree(&to)?;
        durable::rename(&entry, &to)?;
    }
    let pending = layout.pending_claim();
    if pending.exists() {
        fs::remove_file(&pending).map_err(StoreError::io("remove", &pending))?;
    }
    durable::rename(&rebuilt.config(), &layout.config())?;
    remove_tree(rebuilt.root())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = || StoreError::io("list", directory);
    let listed = fs::read_dir(directory).map_err(failed())?;
    listed.map(|entry| Ok(entry.map_err(failed())?.path())).collect()
}

pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
