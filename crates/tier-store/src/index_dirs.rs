//! Where a store's index lies, and how another one takes its place.
//!
//! `index/1`, `index/2`, … are indexes, and the last one counts. An index in the making lies beside
//! them under a name that begins with `new-`, and gets the next number by a rename when it is
//! whole. A crash at any time therefore leaves the old index or the new one as the last: what is
//! half made has no number, and what is replaced keeps its own until the next opening, after the
//! new one was opened once, removes it ([`settle`]). Removing renames first, so that a half-removed
//! index has no number either.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Layout, StoreError, durable, layout};

/// How the name of an index in the making begins.
const NEW: &[u8] = b"new-";

/// The index: the last whole one, or where the first one is to be made.
pub(crate) fn current(layout: &Layout) -> Result<PathBuf, StoreError> {
    let indexes = layout.indexes();
    Ok(indexes.join(last_number(&indexes)?.max(1).to_string()))
}

/// Removes the indexes before the last one, and what was in the making when a crash came. None of
/// them is open.
pub(crate) fn settle(layout: &Layout) -> Result<(), StoreError> {
    let indexes = layout.indexes();
    let last = last_number(&indexes)?;
    for path in entries(&indexes)? {
        let is_new = path.file_name().is_some_and(|name| name.as_bytes().starts_with(NEW));
        let is_old = number(&path).is_some_and(|number| number < last);
        if is_new {
            // Whatever it was, it does not count; what stays is tried again at the next opening.
            drop(fs::remove_dir_all(&path));
        } else if is_old {
            remove(&path);
        }
    }
    Ok(())
}

/// Removes an index that is not open. One that stays costs space, and is tried again when the store
/// is opened the next time.
pub(crate) fn remove(index: &Path) {
    if let Err(error) = take_away(index) {
        tracing::warn!("cannot remove {}: {error}", index.display());
    }
}

fn take_away(index: &Path) -> Result<(), StoreError> {
    if !index.exists() {
        return Ok(());
    }
    let mut name = OsStr::from_bytes(NEW).to_os_string();
    name.push(index.file_name().unwrap_or(OsStr::new("index")));
    let away = index.with_file_name(name);
    tracing::debug!(path = %index.display(), "removing an index");
    durable::rename(index, &away)?;
    fs::remove_dir_all(&away).map_err(StoreError::io("remove", &away))
}

/// A place for an index in the making. What is in it goes when it is dropped.
#[derive(Debug)]
pub(crate) struct NewIndex {
    indexes: PathBuf,
    work: TempDir,
}

impl NewIndex {
    pub(crate) fn new(layout: &Layout) -> Result<Self, StoreError> {
        let indexes = layout.indexes();
        durable::make_directory(&indexes)?;
        let work = tempfile::Builder::new()
            .prefix(OsStr::from_bytes(NEW))
            .tempdir_in(&indexes)
            .map_err(StoreError::io("make a directory in", &indexes))?;
        Ok(Self { indexes, work })
    }

    /// For what else is needed meanwhile.
    pub(crate) fn directory(&self) -> &Path {
        self.work.path()
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.work.path().join("index")
    }

    /// Makes it the last one, durably, and returns where it is. It is whole and not open, and no
    /// other thread does the same meanwhile.
    pub(crate) fn publish(self) -> Result<PathBuf, StoreError> {
        let place = self.indexes.join((last_number(&self.indexes)? + 1).to_string());
        // Only directories have numbers that count, so that a file can have the name; the rename
        // would fail on it without saying what is in the way.
        if place.exists() {
            let problem = format!("{} is in the way of a new index; move it away", place.display());
            return Err(StoreError::Unusable(problem));
        }
        // If only the sync failed, the number is there and must not stay: this process goes on with
        // the old index, and the next opening would take this one.
        durable::rename(&self.index_path(), &place).inspect_err(|_| remove(&place))?;
        Ok(place)
    }
}

/// Bytes that an index's files take on the disk.
pub(crate) fn bytes(index: &Path) -> Result<u64, StoreError> {
    layout::tree_bytes(index).map_err(StoreError::io("measure", index))
}

/// Zero if there is none.
fn last_number(indexes: &Path) -> Result<u64, StoreError> {
    Ok(entries(indexes)?.iter().filter_map(|path| number(path)).max().unwrap_or(0))
}

/// The number of a whole index.
fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = name.parse().ok().filter(|number| (1..u64::MAX).contains(number))?;
    (path.is_dir() && number.to_string() == name).then_some(number)
}

/// What is in the directory of indexes, which is made if it is not there.
fn entries(indexes: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = || StoreError::io("read", indexes);
    if !indexes.exists() {
        durable::make_directory(indexes)?;
    }
    let entries = fs::read_dir(indexes).map_err(failed())?;
    entries.map(|entry| Ok(entry.map_err(failed())?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_index_takes_the_place_of_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let first = current(&layout).unwrap();
        assert!(first.ends_with("index/1"));
        fs::create_dir(&first).unwrap();
        let new = NewIndex::new(&layout).unwrap();
        fs::create_dir(new.index_path()).unwrap();
        assert_eq!(current(&layout).unwrap(), first, "what is in the making does not count");
        let second = new.publish().unwrap();
        assert_eq!(current(&layout).unwrap(), second);
        settle(&layout).unwrap();
        assert_eq!(entries(&layout.indexes()).unwrap(), [second]);
    }

    #[test]
    fn what_a_crash_left_has_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for name in ["1", "new-2", "03", "0", "x"] {
            fs::create_dir_all(layout.indexes().join(name)).unwrap();
        }
        assert!(current(&layout).unwrap().ends_with("index/1"));
        settle(&layout).unwrap();
        assert!(!layout.indexes().join("new-2").exists());
        assert!(layout.indexes().join("x").exists(), "it is not the store's");
    }
}
