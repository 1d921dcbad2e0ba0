//! The ballast: a preallocated file that is given up when the disk is full all the same.
//!
//! After a write that failed for want of space RocksDB flushes what it has in memory and goes on by
//! itself, but the flush takes room in its turn. Another program may have taken the last byte; the
//! ballast is room that it cannot take. It holds no data, is given up for that flush only, and made
//! again when there is room.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// The file's name in the directory of a filesystem.
const NAME: &str = "ballast";

#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    /// Zero without a file.
    bytes: u64,
}

impl Ballast {
    /// The ballast of the filesystem in this directory, as an earlier process left it.
    pub(super) fn find(directory: &Path) -> Self {
        let path = directory.join(NAME);
        // A file that cannot be looked at is none that could be given up.
        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, bytes }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it this large, or removes it. Without one the filesystem works as well, as long as the
    /// disk is not filled to the last byte; so a failure is no error.
    pub(super) fn resize(&mut self, bytes: u64) {
        if bytes == self.bytes {
            return;
        }
        let done = if bytes == 0 { remove(&self.path) } else { make(&self.path, bytes) };
        match done {
            Ok(()) => {
                tracing::debug!(path = %self.path.display(), bytes, "ballast resized");
                self.bytes = bytes;
            }
            Err(error) => {
                tracing::debug!(path = %self.path.display(), bytes, %error, "no ballast");
                // What a failure left of it must not be taken for a ballast.
                let _ = fs::remove_file(&self.path);
                self.bytes = 0;
            }
        }
    }

    /// Gives it up. Whether there was one to give.
    pub(super) fn give_up(&mut self) -> bool {
        let held = self.bytes > 0;
        if held {
            tracing::info!(bytes = self.bytes, "the disk is full: the ballast is given up");
        }
        self.resize(0);
        held
    }
}

fn make(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::create(path)?;
    // A sparse file would hold no room that its removal could give back.
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ballast_is_found_again_and_given_up_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::find(dir.path());
        assert!(!ballast.give_up());
        ballast.resize(100_000);
        let mut again = Ballast::find(dir.path());
        assert_eq!(again.bytes(), 100_000);
        assert!(again.give_up() && !again.give_up());
        assert!(!dir.path().join(NAME).exists());
    }

    #[test]
    fn a_ballast_that_cannot_be_made_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::find(dir.path());
        ballast.resize(1 << 60);
        assert_eq!(ballast.bytes(), 0);
        assert!(!dir.path().join(NAME).exists());
    }
}
