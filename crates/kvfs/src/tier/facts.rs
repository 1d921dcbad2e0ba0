//! What an eviction policy may want to know of an inode.

use tier_types::{EvictionFacts, Ino};

use crate::FsError;
use crate::core::Core;

impl Core {
    /// `None` for an inode that does not exist.
    pub(super) fn facts(&self, inodes: &[Ino]) -> Vec<Result<Option<EvictionFacts>, FsError>> {
        inodes.iter().map(|ino| self.facts_of(*ino)).collect()
    }

    fn facts_of(&self, ino: Ino) -> Result<Option<EvictionFacts>, FsError> {
        let Some(attr) = self.reader().find_attr(ino)? else { return Ok(None) };
        // After a restart the last use is not known; then what is stored counts.
        let last_used = self.uses.last(ino).unwrap_or(attr.accessed.max(attr.modified));
        Ok(Some(EvictionFacts {
            ino,
            size_bytes: attr.size_bytes,
            resident_bytes: self.resident_bytes_of(&attr)?,
            last_used,
            pinned: self.is_pinned(ino)?,
        }))
    }
}
