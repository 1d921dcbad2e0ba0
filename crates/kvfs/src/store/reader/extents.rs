//! Reads of what is known of extents: which no sync is known to cover, and which are free.

use tier_types::{ChunkNo, ChunkRange, Ino};

use super::StoreReader;
use crate::FsError;
use crate::error::Damage;
use crate::store::extents::Place;
use crate::store::keys::{self, META_EXTENTS_FLOOR, Table};
use crate::store::rows::{self, Unsynced};

/// An extent that is free, though its space may not yet be given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FreedExtent {
    pub(crate) generation: u64,
    pub(crate) place: Place,
    /// The chunk that it was of.
    pub(crate) ino: Ino,
    pub(crate) chunk: ChunkNo,
    pub(crate) len: u32,
}

impl StoreReader<'_> {
    /// Extents before this place are durable, or free.
    pub(crate) fn extents_floor(&self) -> Result<Place, FsError> {
        match self.tables.get(Table::Meta, META_EXTENTS_FLOOR)? {
            None => Ok(Place { file: 0, offset: 0 }),
            Some(row) => rows::place_from_bytes(&row)
                .ok_or_else(|| FsError::damaged_store(Damage::ExtentsFloor)),
        }
    }

    /// The extents that no sync is known to cover, in order of place.
    pub(crate) fn unsynced(&self) -> Result<Vec<(Place, Unsynced)>, FsError> {
        let pairs = self.tables.scan(Table::Unsynced, &[], &keys::AFTER_ALL)?;
        let rows = pairs.map(|pair| {
            let (key, row) = pair?;
            let read = keys::parse_place(&key).zip(rows::unsynced_from_bytes(&row));
            read.ok_or_else(|| FsError::damaged_store(Damage::UnsyncedRow))
        });
        rows.collect()
    }

    /// Free extents of the generations from `from` up to and with `last`, at most `n_max`.
    pub(crate) fn freed(
        &self,
        from: (u64, Place),
        last: u64,
        n_max: usize,
    ) -> Result<Vec<FreedExtent>, FsError> {
        let (generation, place) = from;
        let (from, until) = (keys::freed(generation, place), keys::generation(last + 1));
        let pairs = self.tables.scan(Table::Freed, &from, &until)?.take(n_max);
        let rows = pairs.map(|pair| {
            let (key, row) = pair?;
            let read = keys::parse_freed(&key).zip(rows::freed_from_bytes(&row));
            let ((generation, place), (ino, chunk, len)) =
                read.ok_or_else(|| FsError::damaged_store(Damage::FreedRow))?;
            Ok(FreedExtent { generation, place, ino, chunk, len })
        });
        rows.collect()
    }

    /// Whether the row of the chunk that a free extent was of refers to it all the same.
    pub(crate) fn is_in_use(&self, freed: &FreedExtent) -> Result<bool, FsError> {
        let Some(only) = ChunkRange::one(freed.chunk) else { return Ok(false) };
        let extents = self.file_extents(freed.ino, only)?;
        Ok(extents.iter().any(|of| of.extent.place == freed.place))
    }

    /// The last generation in which an extent was freed.
    pub(crate) fn last_generation(&self) -> Result<Option<u64>, FsError> {
        let last = self.tables.last(Table::Freed, &[], &keys::AFTER_ALL)?;
        Ok(last.and_then(|(key, _)| keys::parse_freed(&key)).map(|(generation, _)| generation))
    }
}
