//! Where a store's index lies, and how a new one takes its place.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) fn index_path(store: &Path) -> PathBuf {
    store.join("index")
}

/// Where a new index is made.
pub(crate) fn new_index_path(store: &Path) -> PathBuf {
    store.join("index.new")
}

fn old_index_path(store: &Path) -> PathBuf {
    store.join("index.old")
}

/// Puts the new index in the place of the one that is there, if one is. Neither is open.
pub(crate) fn put_index(store: &Path) -> Result<()> {
    let live = index_path(store);
    let failed = || format!("cannot put the new index in place at {}", live.display());
    let old = old_index_path(store);
    remove_folder(&old)?;
    if live.exists() {
        fs::rename(&live, &old).with_context(failed)?;
    }
    fs::rename(new_index_path(store), &live).with_context(failed)?;
    File::open(store).and_then(|folder| folder.sync_all()).with_context(failed)?;
    remove_folder(&old)
}

/// Undoes or finishes a change of indexes that a crash interrupted, and removes what it left.
pub(crate) fn settle_index(store: &Path) -> Result<()> {
    remove_folder(&new_index_path(store))?;
    let (live, old) = (index_path(store), old_index_path(store));
    if old.exists() && !live.exists() {
        return fs::rename(&old, &live)
            .with_context(|| format!("cannot put the index back at {}", live.display()));
    }
    remove_folder(&old)
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
