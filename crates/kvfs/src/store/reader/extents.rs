//! Reads of what is known of extents: which no sync is known to cover, and which are free.

use tier_types::{ChunkNo, Ino};

use super::StoreReader;
use crate::FsError;
use crate::error::Damage;
use crate::store::extents::{Content, FileExtent, Place};
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

/// The extents that no sync is known to cover.
#[derive(Debug)]
pub(crate) struct UnsyncedPlaces {
    /// Where each is, in order, and its bytes.
    pub(crate) places: Vec<(Place, u32)>,
    /// Whether all rows could be read.
    pub(crate) are_all: bool,
}

/// Rows of free extents that follow each other.
#[derive(Debug)]
pub(crate) struct FreedPage {
    pub(crate) extents: Vec<FreedExtent>,
    /// The key behind the last of them.
    pub(crate) until: Vec<u8>,
    /// There are no more of these generations.
    pub(crate) is_last: bool,
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
    pub(crate) fn unsynced_places(&self) -> Result<UnsyncedPlaces, FsError> {
        let mut unsynced = UnsyncedPlaces { places: Vec::new(), are_all: true };
        for pair in self.tables.scan(Table::Unsynced, &[], &keys::AFTER_ALL)? {
            let (key, row) = match pair {
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, "extents that no sync covered are not known");
                    unsynced.are_all = false;
                    break;
                }
                pair => pair?,
            };
            match keys::parse_place(&key).zip(rows::unsynced_from_bytes(&row)) {
                Some((place, row)) => unsynced.places.push((place, row.len)),
                None => {
                    tracing::error!("a row of the extents that no sync covered says nothing");
                    unsynced.are_all = false;
                }
            }
        }
        Ok(unsynced)
    }

    /// What is known of an extent that no sync is known to cover.
    pub(crate) fn unsynced(&self, place: Place) -> Result<Option<Unsynced>, FsError> {
        let row = self.row(Table::Unsynced, &keys::place(place), rows::unsynced_from_bytes)?;
        Ok(row.readable())
    }

    /// The extents that no sync is known to cover and to which the rows of chunks refer.
    pub(crate) fn unsynced_extents(&self) -> Result<Vec<FileExtent>, FsError> {
        let unsynced = self.unsynced_places()?;
        if !unsynced.are_all {
            return Err(FsError::damaged_store(Damage::UnsyncedRow));
        }
        let mut extents = Vec::new();
        for (place, _) in unsynced.places {
            let Some(Unsynced { ino, chunk, .. }) = self.unsynced(place)? else { continue };
            let row = self.chunk_row(ino, chunk)?;
            match row.as_deref().and_then(Content::from_bytes) {
                Some(Content::InFile(extent, _)) if extent.place == place => extents.push(extent),
                Some(_) | None => {}
            }
        }
        Ok(extents)
    }

    /// Free extents from a key on, of the generations up to and with `last`, at most `n_max` rows.
    /// A row that says nothing is left out.
    pub(crate) fn freed(&self, from: &[u8], last: u64, n_max: usize) -> Result<FreedPage, FsError> {
        let end = last.checked_add(1).map(keys::generation);
        let end = end.as_ref().map_or(&keys::AFTER_ALL[..], |end| &end[..]);
        let mut page = FreedPage { extents: Vec::new(), until: from.to_vec(), is_last: true };
        for (n_rows, pair) in self.tables.scan(Table::Freed, from, end)?.enumerate() {
            if n_rows == n_max {
                page.is_last = false;
                break;
            }
            let (key, row) = pair?;
            match keys::parse_freed(&key).zip(rows::freed_from_bytes(&row)) {
                Some(((generation, place), (ino, chunk, len))) => {
                    page.extents.push(FreedExtent { generation, place, ino, chunk, len });
                }
                None => tracing::warn!("a row of the free extents says nothing"),
            }
            page.until = [&key[..], &[0]].concat();
        }
        Ok(page)
    }

    /// Whether the row of the chunk that a free extent was of refers to it all the same, or cannot
    /// be read.
    pub(crate) fn is_in_use(&self, freed: &FreedExtent) -> Result<bool, FsError> {
        let row = match self.chunk_row(freed.ino, freed.chunk) {
            Err(FsError::Unreadable { .. }) => return Ok(true),
            row => row?,
        };
        let content = row.as_deref().and_then(Content::from_bytes);
        Ok(matches!(content, Some(Content::InFile(extent, _)) if extent.place == freed.place))
    }

    /// The last generation in which an extent was freed.
    pub(crate) fn last_generation(&self) -> Result<Option<u64>, FsError> {
        let last = self.tables.last(Table::Freed, &[], &keys::AFTER_ALL)?;
        Ok(last.and_then(|(key, _)| keys::parse_freed(&key)).map(|(generation, _)| generation))
    }
}
