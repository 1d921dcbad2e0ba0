//! Durable changes of small files: write, sync, rename, sync the directory.
//!
//! A reader sees the old content or the new one, and after a loss of power what was there when the
//! call returned is still there. The sync of the file comes before the rename, so that the name
//! never leads to content that is not on the disk; the sync of the directory comes after it,
//! because the name lies there.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::StoreError;

/// Puts a file in place of the one that is there, if any.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    assert!(path.file_name().is_some(), "a file has a name");
    let directory = parent(path);
    let failed = || StoreError::io("write", path);
    let mut file = NamedTempFile::new_in(directory).map_err(failed())?;
    file.write_all(content).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(path).map_err(|error| failed()(error.error))?;
    sync_directory(directory)
}

/// Writes a new file with a secret, which only its owner can read. A file that is there stays.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), StoreError> {
    let failed = || StoreError::io("write", path);
    // Not by a rename, which replaces: a key that is there may be the only way to what it has
    // encrypted.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed())?;
    file.write_all(text.as_bytes()).map_err(failed())?;
    file.sync_all().map_err(failed())?;
    sync_directory(parent(path))
}

/// Makes a directory with all above it, durably.
pub(crate) fn make_directory(path: &Path) -> Result<(), StoreError> {
    // From the first level that is missing: each new name lies in the directory above it.
    let mut missing: Vec<&Path> = path.ancestors().take_while(|level| !level.exists()).collect();
    missing.retain(|level| !level.as_os_str().is_empty());
    fs::create_dir_all(path).map_err(StoreError::io("create", path))?;
    missing.into_iter().rev().try_for_each(|level| sync_directory(parent(level)))
}

/// Renames, and makes the new name durable.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    assert_ne!(from, to, "a rename has two names");
    fs::rename(from, to).map_err(StoreError::io("rename", from))?;
    sync_directory(parent(to))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(StoreError::io("sync", path))
}

/// The directory that holds a name; the current one for a bare name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_secret_is_its_owners_and_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_secret(&path, "secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write_secret(&path, "other").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
    }
}
