//! Typed reads of the tables.
//!
//! Rows come from a disk: one that cannot be read, or that says what cannot be, is a
//! [`Damaged`](IndexError::Damaged) index, which names its directory and can be rebuilt from the
//! tarballs. Nothing is computed from an extent before it was checked here.

use std::ops::RangeInclusive;

use tier_types::{Ino, SnapshotId};

use crate::database::{Database, Table};
use crate::location::{Extent, TarballId};
use crate::rows::{Applied, IndexedTarball, InodeRow};
use crate::{IndexError, key, wire};

pub(crate) const META_APPLIED: &[u8] = b"applied";
pub(crate) const META_SAFE: &[u8] = b"safe";

impl Database {
    pub(crate) fn applied(&self) -> Result<Option<Applied>, IndexError> {
        let Some(bytes) = self.get(Table::Meta, META_APPLIED)? else { return Ok(None) };
        // Not read as an empty index: every manifest would be applied again over the damage.
        wire::applied_from_bytes(&bytes)
            .map(Some)
            .ok_or_else(|| self.damaged("the last applied manifest cannot be read"))
    }

    /// The rows of the history's steps after this one, in their order.
    pub(crate) fn chain_after(
        &self,
        after: Option<SnapshotId>,
    ) -> Result<Vec<Vec<u8>>, IndexError> {
        let from = after.map_or([0; 8], |after| key::chain(after.next()));
        let pairs = self.scan(Table::Chain, &from, None)?;
        pairs.map(|pair| pair.map(|(_, value)| value.to_vec())).collect()
    }

    pub(crate) fn tarball(&self, id: TarballId) -> Result<Option<IndexedTarball>, IndexError> {
        let Some(bytes) = self.get(Table::Tarballs, &key::tarball(id))? else { return Ok(None) };
        let row = wire::tarball_from_bytes(&bytes);
        row.map(Some).ok_or_else(|| self.damaged("a tarball's row cannot be read"))
    }

    pub(crate) fn tarball_rows(
        &self,
        ids: &RangeInclusive<TarballId>,
        n_max: usize,
    ) -> Result<Vec<(TarballId, Vec<u8>)>, IndexError> {
        let (first, last) = (key::tarball(*ids.start()), key::tarball(*ids.end()));
        let mut rows = Vec::new();
        for pair in self.scan(Table::Tarballs, &first, None)?.take(n_max) {
            let (key, value) = pair?;
            if *key > last[..] {
                break;
            }
            let row = wire::tarball_from_bytes(&value);
            let (Some(id), Some(row)) = (key::parse_tarball(&key), row) else {
                return Err(self.damaged("a tarball's row cannot be read"));
            };
            rows.push((id, row.reader_row));
        }
        Ok(rows)
    }

    pub(crate) fn tarballs(&self) -> Result<Vec<(TarballId, u64)>, IndexError> {
        let mut tarballs = Vec::new();
        for pair in self.scan(Table::Tarballs, &[], None)? {
            let (key, value) = pair?;
            let id = key::parse_tarball(&key);
            let row = wire::tarball_from_bytes(&value);
            let (Some(id), Some(row)) = (id, row) else {
                return Err(self.damaged("a tarball's row cannot be read"));
            };
            tarballs.push((id, row.live_chunks));
        }
        Ok(tarballs)
    }

    pub(crate) fn inode(&self, ino: Ino) -> Result<Option<InodeRow>, IndexError> {
        let bytes = self.get(Table::Inodes, &key::inode(ino))?;
        bytes.map(|bytes| self.parse_inode(ino, &bytes)).transpose()
    }

    pub(crate) fn parse_inode(&self, ino: Ino, bytes: &[u8]) -> Result<InodeRow, IndexError> {
        let row = wire::inode_from_bytes(ino, bytes)
            .ok_or_else(|| self.damaged("an inode's row cannot be read"))?;
        row.inline.as_ref().map_or(Ok(()), |inline| self.check_possible(inline))?;
        Ok(row)
    }

    pub(crate) fn parse_extent(&self, key: &[u8], value: &[u8]) -> Result<Extent, IndexError> {
        let extent = key::parse_extent(key)
            .and_then(|(ino, last)| wire::extent_from_bytes(ino, last, value))
            .ok_or_else(|| self.damaged("an extent's row cannot be read"))?;
        self.check_possible(&extent)?;
        Ok(extent)
    }

    fn check_possible(&self, extent: &Extent) -> Result<(), IndexError> {
        if extent.is_possible(self.chunk_bytes()) {
            Ok(())
        } else {
            Err(self.damaged("an extent does not fit into a frame"))
        }
    }
}
