//! Sockets at paths of any length.
//!
//! The system allows a socket's address about a hundred bytes, which a path into a store easily
//! exceeds. The directory is therefore opened, and the socket is named through the descriptor, as
//! `/proc/self/fd/N/name`. The name is good as long as the directory is held open.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A socket's short name, good as long as this is held.
#[derive(Debug)]
pub(crate) struct SocketPath {
    directory: File,
    name: PathBuf,
}

impl SocketPath {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // A bare name has the parent "", which cannot be opened.
        let directory = File::open(parent.unwrap_or(Path::new(".")))?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { directory, name: name.into() })
    }

    pub(crate) fn short(&self) -> PathBuf {
        let directory = self.directory.as_raw_fd().to_string();
        Path::new("/proc/self/fd").join(directory).join(&self.name)
    }
}
