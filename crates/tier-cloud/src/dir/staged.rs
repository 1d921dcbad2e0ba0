//! A file on its way to being an object.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tier_types::{Flush, PortError, StagedObject};

use super::disk::{failed, sync_directories};

/// Files of this ending are not objects: a crash may leave them.
pub(super) const TEMPORARY: &str = ".tmp";

/// Temporary files made by this process.
static N_TEMPORARIES: AtomicU64 = AtomicU64::new(0);

/// A file under a temporary name. Dropped before it is finished, it is removed.
#[derive(Debug)]
pub(super) struct StagedFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    root: PathBuf,
    is_finished: bool,
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be removed is left, and is no object.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl StagedFile {
    /// Makes the temporary file of an object at this path below the root. The error says which file
    /// could not be made.
    pub(super) fn create(path: PathBuf, root: &Path) -> Result<Self, (PathBuf, io::Error)> {
        loop {
            let temporary = temporary_beside(&path);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    tracing::trace!(path = %temporary.display(), "staging an object");
                    let root = root.to_path_buf();
                    return Ok(Self { file, temporary, path, root, is_finished: false });
                }
                // A process of the same number left it, or has it, on another machine.
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err((temporary, source)),
            }
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| failed(&self.root, "write", &self.temporary, source))
    }

    /// Gives the object its name, whatever has it.
    pub(super) fn finish(mut self) -> Result<(), PortError> {
        self.sync()?;
        fs::rename(&self.temporary, &self.path)
            .map_err(|source| failed(&self.root, "rename", &self.temporary, source))?;
        // Before the sync, which may fail: the temporary name is gone with the rename, and the drop
        // has nothing left to remove.
        self.is_finished = true;
        sync_directories(&self.path, &self.root)
    }

    /// Gives the object its name if that is free; whether it was.
    pub(super) fn finish_new(mut self) -> Result<bool, PortError> {
        self.sync()?;
        match renameat_with(CWD, &self.temporary, CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => self.is_finished = true,
            Err(rustix::io::Errno::EXIST) => return Ok(false),
            // NFS and others have no such rename. The temporary name goes when this is dropped.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                match fs::hard_link(&self.temporary, &self.path) {
                    Ok(()) => {}
                    Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                        return Ok(false);
                    }
                    Err(source) => return Err(failed(&self.root, "link", &self.temporary, source)),
                }
            }
            Err(error) => return Err(failed(&self.root, "rename", &self.temporary, error.into())),
        }
        // An error from here leaves an object that may not be durable under its name. The next put
        // finds it there and syncs it again.
        sync_directories(&self.path, &self.root)?;
        Ok(true)
    }

    fn sync(&self) -> Result<(), PortError> {
        self.file.sync_all().map_err(|source| failed(&self.root, "sync", &self.temporary, source))
    }
}

impl StagedObject for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        self.append(bytes)
    }

    fn flush_handle(&self) -> Result<Flush, PortError> {
        let file = self
            .file
            .try_clone()
            .map_err(|source| failed(&self.root, "duplicate", &self.temporary, source))?;
        let (path, root) = (self.temporary.clone(), self.root.clone());
        Ok(Box::new(move || {
            file.sync_data().map_err(|source| failed(&root, "sync", &path, source))
        }))
    }

    fn commit(self: Box<Self>) -> Result<(), PortError> {
        self.finish()
    }
}

/// A name that no other writer of this machine has.
fn temporary_beside(path: &Path) -> PathBuf {
    let number = N_TEMPORARIES.fetch_add(1, Ordering::Relaxed);
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{}-{number}{TEMPORARY}", std::process::id()));
    name.into()
}
