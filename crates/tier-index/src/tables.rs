//! What the tables hold, as values.

use tier_types::Ino;

use crate::store::{Item, Store, Table};
use crate::{Applied, Extent, IndexError, InodePlace, TarballId, key, wire};

pub(crate) const META_APPLIED: &[u8] = b"applied";

/// The entry of an inode, and the extent of a new inode whose data lies with its metadata: most files
/// are small and written once, and so take one entry.
pub(crate) type InodeEntry = (InodePlace, Option<Extent>);

impl Store {
    pub(crate) fn applied(&self) -> Result<Option<Applied>, IndexError> {
        let Some(bytes) = self.get(Table::Meta, META_APPLIED)? else { return Ok(None) };
        wire::applied_from_bytes(&bytes)
            .map(Some)
            .ok_or_else(|| self.damaged("the last applied manifest cannot be read"))
    }

    /// How many chunks are live in a tarball, and its reader's row.
    pub(crate) fn tarball(&self, id: TarballId) -> Result<Option<(u64, Vec<u8>)>, IndexError> {
        let Some(bytes) = self.get(Table::Tarballs, &key::tarball(id))? else { return Ok(None) };
        let row = wire::tarball_from_bytes(&bytes).map(|(live, row)| (live, row.to_vec()));
        row.map(Some).ok_or_else(|| self.damaged("a tarball's row cannot be read"))
    }

    pub(crate) fn tarballs(&self) -> Result<Vec<(TarballId, u64)>, IndexError> {
        let mut tarballs = Vec::new();
        for pair in self.scan(Table::Tarballs, &[], None)? {
            let (key, value) = pair?;
            let id = key::parse_tarball(&key);
            let row = wire::tarball_from_bytes(&value);
            let (Some(id), Some((live_chunks, _))) = (id, row) else {
                return Err(self.damaged("a tarball's row cannot be read"));
            };
            tarballs.push((id, live_chunks));
        }
        Ok(tarballs)
    }

    pub(crate) fn inode(&self, ino: Ino) -> Result<Option<InodeEntry>, IndexError> {
        let bytes = self.get(Table::Inodes, &key::inode(ino))?;
        bytes.map(|bytes| self.parse_inode(ino, &bytes)).transpose()
    }

    pub(crate) fn parse_inode(&self, ino: Ino, bytes: &[u8]) -> Result<InodeEntry, IndexError> {
        let entry = wire::inode_from_bytes(ino, bytes);
        entry.ok_or_else(|| self.damaged("an inode's entry cannot be read"))
    }

    pub(crate) fn parse_extent(&self, (key, value): Item<'_>) -> Result<Extent, IndexError> {
        key::parse_extent(key)
            .and_then(|(ino, last)| wire::extent_from_bytes(ino, last, value))
            .ok_or_else(|| self.damaged("an extent's entry cannot be read"))
    }
}
