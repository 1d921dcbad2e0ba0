//! The other names of exported files that have several.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tier_types::{FileAttr, Ino};

use super::Export;
use super::walk::host_path;
use crate::console;
use crate::transfer::walk;

impl Export<'_> {
    /// Makes the other names of files whose first names are there.
    pub(super) fn link(
        &self,
        start: &FileAttr,
        dir: &Path,
        first_names: &mut HashMap<Ino, PathBuf>,
    ) -> Result<()> {
        assert!(!first_names.is_empty(), "another name comes after a first one");
        let visit = |relative: &[u8], attr: &FileAttr| {
            // It may have to be stopped.
            self.count(0, 0)?;
            let path = host_path(dir, relative);
            let Some(first) = first_names.get(&attr.ino) else { return Ok(()) };
            // A directory that is not there was made meanwhile, with what is in it.
            let has_directory = path.parent().is_some_and(Path::is_dir);
            if !has_directory || fs::symlink_metadata(&path).is_ok() {
                return Ok(());
            }
            if fs::symlink_metadata(first).is_ok() {
                fs::hard_link(first, &path)
                    .with_context(|| format!("cannot export to {}", path.display()))?;
            } else {
                // The first one could not be made: this one says again why, or is the first.
                self.file(&path, attr)?;
                first_names.insert(attr.ino, path);
            }
            self.count(1, 0)
        };
        // What cannot be read was told and counted by the first walk.
        let told = |error| match console::code(&error) {
            console::DAMAGED => Ok(()),
            _ => Err(error),
        };
        walk::tree_past_failures(self.fs, start.clone(), visit, told)
    }
}
