//! Where a store's index lies, and how another takes its place.
//!
//! `index/1`, `index/2`, … are indexes; the last one counts. An index in the making lies beside
//! them under another name, so that a crash at any time leaves the old one or the new one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// How the name of an index in the making begins.
const NEW: &[u8] = b"new-";

/// The folder of all indexes of a store.
pub(crate) fn indexes_path(store: &Path) -> PathBuf {
    store.join("index")
}

/// The index: the last whole one, or where the first one is to be made.
pub(crate) fn index_path(store: &Path) -> Result<PathBuf> {
    let folder = indexes_path(store);
    Ok(folder.join(last_number(&folder)?.max(1).to_string()))
}

/// Removes the indexes before the last one, and what was in the making when a crash came. Nobody has
/// one of them open.
pub(crate) fn settle_indexes(store: &Path) -> Result<()> {
    let folder = indexes_path(store);
    let last = last_number(&folder)?;
    for path in entries(&folder)? {
        let is_new = path.file_name().is_some_and(|name| name.as_bytes().starts_with(NEW));
        let is_old = number(&path).is_some_and(|number| number < last);
        if is_new {
            // Whatever it was, it does not count.
            drop(fs::remove_dir_all(&path));
        } else if is_old {
            remove(&path);
        }
    }
    Ok(())
}

/// Removes an index that nobody has open. One that stays costs space, and is tried again when the
/// store is opened the next time.
pub(crate) fn remove(index: &Path) {
    // What is half removed must not count.
    let mut name = OsStr::from_bytes(NEW).to_os_string();
    name.push(index.file_name().unwrap_or_default());
    let away = index.with_file_name(name);
    let removed = fs::rename(index, &away)
        .and_then(|()| sync_folder(index.parent()))
        .and_then(|()| fs::remove_dir_all(&away));
    if let Err(error) = removed {
        tracing::warn!("cannot remove {}: {error}", index.display());
    }
}

/// A place for an index in the making. What is in it goes when it is dropped.
pub(crate) struct NewIndex {
    indexes: PathBuf,
    work: TempDir,
}

impl NewIndex {
    pub(crate) fn new(store: &Path) -> Result<Self> {
        let indexes = indexes_path(store);
        let failed = || format!("cannot make a folder in {}", indexes.display());
        fs::create_dir_all(&indexes).with_context(failed)?;
        let work = tempfile::Builder::new().prefix(OsStr::from_bytes(NEW)).tempdir_in(&indexes);
        let work = work.with_context(failed)?;
        Ok(Self { indexes, work })
    }

    /// For what else is needed meanwhile.
    pub(crate) fn folder(&self) -> &Path {
        self.work.path()
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.work.path().join("index")
    }

    /// Makes it the last one, durably, and returns where it is. It is whole and not open, and nobody
    /// else does the same meanwhile.
    pub(crate) fn put(self) -> Result<PathBuf> {
        let place = self.indexes.join((last_number(&self.indexes)? + 1).to_string());
        let failed = || format!("cannot put the new index in place at {}", place.display());
        fs::rename(self.index_path(), &place).with_context(failed)?;
        // The folder of indexes may be new as well.
        let synced = sync_folder(Some(&self.indexes));
        let synced = synced.and_then(|()| sync_folder(self.indexes.parent()));
        synced.inspect_err(|_| remove(&place)).with_context(failed)?;
        Ok(place)
    }
}

fn sync_folder(folder: Option<&Path>) -> io::Result<()> {
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Zero if there is none.
fn last_number(indexes: &Path) -> Result<u64> {
    Ok(entries(indexes)?.iter().filter_map(|path| number(path)).max().unwrap_or(0))
}

/// The number of a whole index.
fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = name.parse().ok().filter(|number| (1..u64::MAX).contains(number))?;
    (path.is_dir() && number.to_string() == name).then_some(number)
}

/// What is in the folder, which is made if it is not there.
fn entries(indexes: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", indexes.display());
    fs::create_dir_all(indexes).with_context(failed)?;
    let entries = fs::read_dir(indexes).with_context(failed)?;
    entries.map(|entry| Ok(entry.with_context(failed)?.path())).collect()
}
