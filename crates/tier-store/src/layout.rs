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
//! | `tmp` | temporary files of net changes |
//!
//! The filesystem's own files (for kvfs `kvs`, `segments` and `witness`) lie beside these.

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

    /// Temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }
}
