//! What an eviction policy may want to know of an inode.

use tier_types::{EvictionFacts, Ino};

use crate::FsError;
use crate::core::Core;
use crate::store::StoreReader;

impl Core {
    /// `None` for an inode that does not exist.
    pub(super) fn facts(&self, inodes: &[Ino]) -> Vec<Result<Option<EvictionFacts>, FsError>> {
        self.read_each(inodes, |reader, ino| self.facts_of(reader, *ino))
    }

    fn facts_of(
        &self,
        reader: StoreReader<'_>,
        ino: Ino,
    ) -> Result<Option<EvictionFacts>, FsError> {
        let Some(attr) = reader.find_attr(ino)? else { return Ok(None) };
        // After a restart the last use is not known; then what is stored counts.
        let last_used = self.uses.last(ino).unwrap_or(attr.accessed.max(attr.modified));
        Ok(Some(EvictionFacts {
            ino,
            size_bytes: attr.size_bytes,
            resident_bytes: reader.data_sums(ino)?.resident_bytes.min(attr.size_bytes),
            last_used,
            pinned: self.is_pinned(ino)?,
        }))
    }
}
