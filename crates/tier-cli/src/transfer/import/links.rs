//! Hard links of the host: which names are of one file, and which file of the store that is.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use parking_lot::{Mutex, MutexGuard};
use tier_types::Ino;

/// A file of the host, whatever its names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct HostFile {
    device: u64,
    ino: u64,
}

/// The files with several names that were met so far.
#[derive(Default)]
pub(super) struct HostLinks(Mutex<HashMap<HostFile, Ino>>);

impl HostLinks {
    /// The slot of a file. While the slot of a file with several names is held, no other such file
    /// can be looked up: the holder is to fill it, or to let go of it, soon.
    pub(super) fn slot(&self, metadata: &Metadata) -> LinkSlot<'_> {
        // Both numbers, because inode numbers are unique within one filesystem only.
        let file = HostFile { device: metadata.dev(), ino: metadata.ino() };
        // A file with one name takes no lock, so that most files do not wait for each other.
        LinkSlot { file, table: (metadata.nlink() > 1).then(|| self.0.lock()) }
    }
}

/// Where the number of a file is to be found by its other names.
pub(super) struct LinkSlot<'a> {
    file: HostFile,
    /// None for a file with one name, which is not looked for by another.
    table: Option<MutexGuard<'a, HashMap<HostFile, Ino>>>,
}

impl LinkSlot<'_> {
    /// The file in the store, if one of its names was imported before.
    pub(super) fn first(&self) -> Option<Ino> {
        self.table.as_ref()?.get(&self.file).copied()
    }

    pub(super) fn fill(&mut self, ino: Ino) {
        if let Some(table) = &mut self.table {
            let former = table.insert(self.file, ino);
            // A second import of a name finds the number that the first one noted.
            assert!(former.is_none_or(|former| former == ino), "a file has one number");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_names_of_one_file_share_a_slot() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "").unwrap();
        fs::hard_link(at("a"), at("b")).unwrap();
        fs::write(at("alone"), "").unwrap();
        let metadata = |name: &str| fs::metadata(at(name)).unwrap();
        let links = HostLinks::default();
        links.slot(&metadata("a")).fill(Ino::new(7));
        assert_eq!(links.slot(&metadata("b")).first(), Some(Ino::new(7)));
        // A file with one name is not remembered: there may be very many of them.
        links.slot(&metadata("alone")).fill(Ino::new(8));
        assert_eq!(links.slot(&metadata("alone")).first(), None);
    }
}
