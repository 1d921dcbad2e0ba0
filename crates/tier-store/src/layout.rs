//! The layout of a store: the path of everything in it, each named once.
//!
//! | path | what it is |
//! | --- | --- |
//! | `tier.toml` | the settings; a directory without it is no store |
//! | `identity.key` | the identity that opens what was written |
//! | `lock` | held by the process that has the store open; its text is the process's number |
//! | `control.sock` | the control socket of that process |
//! | `index/N` | indexes; the last one counts |
//! | `tarballs` | the local objects: tarballs and manifests |
//! | `status` | a status log for each snapshot |
//! | `evict` | the evicter's carried-over candidates |
//! | `deletions` | what is to be deleted in the cloud |
//! | `probe.toml` | what the cloud was seen to do |
//! | `thaws` | frozen objects that were asked for |
//! | `tmp` | temporary files of net changes |
//! | `claim` | the claim of a takeover that is under way |
//! | `rebuilt` | a store that a takeover makes anew, until it takes the place of this one |
//!
//! The filesystem's own files (for kvfs `kvs`, `chunks`, `segments`, `witness` and `ballast`) lie
//! beside these.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The paths of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of a store at `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The settings.
    pub fn config(&self) -> PathBuf {
        self.root.join("tier.toml")
    }

    /// The identity file that a new store gets.
    pub fn identity(&self) -> PathBuf {
        self.root.join(Self::IDENTITY)
    }

    /// The name of the identity file within a store.
    pub const IDENTITY: &'static str = "identity.key";

    /// The file that is locked.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// The directory of all indexes.
    pub fn indexes(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The local objects.
    pub fn tarballs(&self) -> PathBuf {
        self.root.join("tarballs")
    }

    /// The status logs.
    pub fn status(&self) -> PathBuf {
        self.root.join("status")
    }

    /// The evicter's files.
    pub fn evict(&self) -> PathBuf {
        self.root.join("evict")
    }

    /// What is to be deleted in the cloud.
    pub fn deletions(&self) -> PathBuf {
        self.root.join("deletions")
    }

    /// What the cloud was seen to do.
    pub fn probe(&self) -> PathBuf {
        self.root.join("probe.toml")
    }

    /// Frozen objects that were asked for.
    pub fn thaws(&self) -> PathBuf {
        self.root.join("thaws")
    }

    /// Temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A store that was made anew and is to take the place of this one.
    pub fn rebuilt(&self) -> PathBuf {
        self.root.join("rebuilt")
    }

    /// The claim of a takeover that is under way.
    pub fn pending_claim(&self) -> PathBuf {
        self.root.join("claim")
    }

    /// Bytes that all of this takes on the disk: the store without its filesystem's own files.
    pub fn used_bytes(&self) -> io::Result<u64> {
        let directories =
            [self.indexes(), self.tarballs(), self.status(), self.evict(), self.temporary()];
        directories.iter().map(|directory| tree_bytes(directory)).sum()
    }
}

/// Bytes that the files below a directory take on the disk. One that is not there takes none.
pub(crate) fn tree_bytes(directory: &Path) -> io::Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let gone = |error: io::Error| {
        // Files come and go while they are measured.
        if error.kind() == io::ErrorKind::NotFound { Ok(0) } else { Err(error) }
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return gone(error),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => tree_bytes(&entry.path())?,
            Ok(metadata) => metadata.blocks().saturating_mul(BLOCK_BYTES),
            Err(error) => gone(error)?,
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_takes_is_the_blocks_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        assert_eq!(layout.used_bytes().unwrap(), 0);
        fs::create_dir_all(layout.indexes().join("1")).unwrap();
        fs::create_dir_all(layout.tarballs()).unwrap();
        fs::write(layout.indexes().join("1/table"), vec![7; 100_000]).unwrap();
        fs::write(layout.tarballs().join("tarball"), vec![7; 50_000]).unwrap();
        fs::write(dir.path().join("of-the-filesystem"), vec![7; 900_000]).unwrap();
        let bytes = layout.used_bytes().unwrap();
        assert!((150_000..400_000).contains(&bytes), "{bytes}");
    }
}
