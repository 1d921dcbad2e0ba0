//! Sockets at paths of any length: the system allows about a hundred bytes, so the folder is opened
//! and the socket is named through it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A socket's short name, good as long as this is held.
#[derive(Debug)]
pub(crate) struct Place {
    folder: File,
    name: PathBuf,
}

impl Place {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new(".")))?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { folder, name: name.into() })
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(&self.name)
    }
}
