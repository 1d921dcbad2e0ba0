//! A store with small buffers, and what must hold of it after every fault.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::history::{Found, History};
use super::writer::Writer;
use crate::harness::tier;

/// A store and its cloud, in one directory.
#[derive(Debug)]
pub(crate) struct WorkStore {
    directory: PathBuf,
}

impl WorkStore {
    /// Makes one with buffers so small that files of the key-value store come and go all the time.
    pub(crate) fn init(directory: &Path) -> Self {
        let store = Self { directory: directory.to_path_buf() };
        let cloud = format!("file://{}", directory.join("cloud").display());
        tier(&["init", &store.name(), "--cloud", &cloud]).ok();
        let settings = store.path().join("tier.toml");
        let text = fs::read_to_string(&settings).unwrap();
        let small = text.replace("kvs_write_buffer = 50331648", "kvs_write_buffer = 1048576");
        assert_ne!(small, text);
        fs::write(&settings, small).unwrap();
        File::open(&settings).unwrap().sync_all().unwrap();
        store
    }

    /// The one that was copied or came back in this directory, with the cloud beside it.
    pub(crate) fn moved(directory: &Path, from: &Path) -> Self {
        let store = Self { directory: directory.to_path_buf() };
        let settings = store.path().join("tier.toml");
        let text = fs::read_to_string(&settings).unwrap();
        let (from, to) = (from.display().to_string(), directory.display().to_string());
        fs::write(&settings, text.replace(&from, &to)).unwrap();
        store
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("store")
    }

    pub(crate) fn name(&self) -> String {
        self.path().display().to_string()
    }

    /// The store is clean, and each writer finds what it may. Returns what they find.
    pub(crate) fn check(
        &self,
        out: &Path,
        writers: &[Writer],
        histories: &[History],
    ) -> Vec<Found> {
        tier(&["fsck", &self.name()]).ok();
        tier(&["index", "check", &self.name()]).ok();
        remove_directory(out);
        tier(&["export", &self.name(), "/", &out.display().to_string()]).ok();
        let found = writers.iter().zip(histories).map(|(writer, history)| {
            let found = find(&out.join(&writer.name));
            history.check(&found).unwrap_or_else(|wrong| panic!("{}: {wrong}", writer.name));
            found
        });
        found.collect()
    }

    /// It goes on.
    pub(crate) fn go_on(&self) {
        tier(&["snapshot", &self.name()]).ok();
        tier(&["evict", "--all", &self.name()]).ok();
        tier(&["fsck", &self.name()]).ok();
    }
}

/// The files of a directory.
pub(crate) fn find(directory: &Path) -> Found {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let files = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
    files.collect()
}

pub(crate) fn remove_directory(directory: &Path) {
    if directory.exists() {
        fs::remove_dir_all(directory).unwrap();
    }
}
