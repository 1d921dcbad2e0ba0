//! Salvage: an index from what is left of an archive.
//!
//! A restore must not end at the first object that is damaged. Each tarball is read by its tables; one
//! whose tables are damaged is read member by member; and those of a step whose manifest is lost are
//! found by their names, and say themselves what they are. What could be read nowhere is in the answer.

use std::collections::HashSet;

use tier_index::{Index, IndexWriter, TarballId};
use tier_types::{Call, ObjectName};

use crate::damage::Damage;
use crate::derive::apply::{Apply, Input, ScanMode, same_chunk_bytes, set_applied};
use crate::error::PersistError;
use crate::format::names::{self, ObjectKind, TarballName};
use crate::format::tarball::row::{TarballObject, TarballRow};
use crate::format::tarball::toc::entry::TocEntry;
use crate::progress::Watch;
use crate::read::chain::Archive;
use crate::read::contents::read_table;
use crate::read::link::ChainLink;
use crate::read::scanner::{Expected, ScanVisitor, scan};
use crate::read::small::is_of_the_object;
use crate::read::tarball_reader::TarballReader;

/// Keys of the index for tarballs of which several may have one number: of an attempt that was cut
/// short and of the one that was committed, or of two copies of a store.
#[derive(Default)]
pub(crate) struct FreeNumbers(HashSet<TarballId>);

impl FreeNumbers {
    /// This number if it is free, or the next part that is.
    pub(crate) fn take(&mut self, mut id: TarballId) -> Result<TarballId, PersistError> {
        while !self.0.insert(id) {
            let problem = "there are too many tarballs of this number";
            let next = id.part.checked_add(1);
            id.part = next.ok_or_else(|| PersistError::damaged(id, problem))?;
        }
        Ok(id)
    }
}

/// A tarball whose manifest is lost.
struct Found {
    name: ObjectName,
    tarball: TarballName,
    /// The index's key for it.
    id: TarballId,
}

impl Archive<'_> {
    /// Fills an empty index with all that can be read, and returns what cannot. Lost manifests are
    /// not among that: opening the archive has told of them.
    pub fn salvage_index(
        &self,
        index: &Index,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut writer = index.writer();
        let mut damages = Vec::new();
        for link in self.links() {
            same_chunk_bytes(writer.chunk_bytes(), link.chunk_bytes)?;
            if link.is_lost {
                self.salvage_lost(link, &mut writer, watch, &mut damages)?;
            } else {
                self.salvage_step(link, &mut writer, watch, &mut damages)?;
            }
            set_applied(&mut writer, link)?;
        }
        writer.flush()?;
        Ok(damages)
    }

    fn salvage_step(
        &self,
        link: &ChainLink,
        writer: &mut IndexWriter<'_>,
        watch: &mut Watch<'_>,
        damages: &mut Vec<Damage>,
    ) -> Result<(), PersistError> {
        let apply = |mode| Apply { source: self.tarballs(), mode };
        for tarball in &self.manifest(link)?.tarballs {
            let input = [Input::Listed(tarball)];
            match apply(ScanMode::Tables).tarballs(writer, input, watch) {
                Err(error) if is_of_the_object(&error) => {
                    tracing::warn!("reading a tarball member by member: {error}");
                    damages.extend(apply(ScanMode::Full).tarballs(writer, input, watch)?);
                }
                applied => drop(applied?),
            }
        }
        Ok(())
    }

    fn salvage_lost(
        &self,
        link: &ChainLink,
        writer: &mut IndexWriter<'_>,
        watch: &mut Watch<'_>,
        damages: &mut Vec<Damage>,
    ) -> Result<(), PersistError> {
        let apply = Apply { source: self.tarballs(), mode: ScanMode::Full };
        for found in self.tarballs_of_lost(link)? {
            match self.recovered_row(&found) {
                Ok(row) => {
                    let input = [Input::Recovered(&row)];
                    damages.extend(apply.tarballs(writer, input, watch)?);
                }
                Err(error) => damages.push(Damage::of(&found.name, error)?),
            }
        }
        Ok(())
    }

    /// Tarballs that have the number of a lost step, committed or not.
    fn tarballs_of_lost(&self, link: &ChainLink) -> Result<Vec<Found>, PersistError> {
        let (epoch, snapshot) = (link.summary.epoch, link.summary.snapshot);
        let prefix = names::snapshot_prefix(self.filesystem(), epoch, snapshot);
        let (mut found, mut numbers) = (Vec::new(), FreeNumbers::default());
        for name in self.store().names(&Call::bulk(), &prefix).map_err(PersistError::Store)? {
            if let Some((_, ObjectKind::Tarball(tarball))) = names::parse(&name) {
                found.push(Found { name, tarball, id: numbers.take(tarball.id)? });
            }
        }
        Ok(found)
    }

    fn recovered_row(&self, found: &Found) -> Result<TarballRow, PersistError> {
        let Found { name, tarball, id } = found;
        let source = self.tarballs();
        TarballReader::recovered_row(source.store_with(name)?, name, *tarball, *id, source.keys)
    }

    /// Shows `visit` everything that can be read of a step, with the tarballs in which it lies.
    pub(crate) fn visit_step(
        &self,
        link: &ChainLink,
        visit: &mut dyn FnMut(TarballId, TocEntry) -> Result<(), PersistError>,
    ) -> Result<(), PersistError> {
        if link.is_lost {
            for found in self.tarballs_of_lost(link)? {
                match self.recovered_row(&found) {
                    Ok(row) => self.visit_members(link, &row, visit)?,
                    Err(error) if is_of_the_object(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(());
        }
        for tarball in &self.manifest(link)?.tarballs {
            let id = tarball.name.id;
            match read_table(self.tarballs(), tarball, &mut |entry| visit(id, entry)) {
                Err(error) if is_of_the_object(&error) => {
                    if let Some(row) = self.row_past_damage(tarball)? {
                        self.visit_members(link, &row, visit)?;
                    }
                }
                read => read?,
            }
        }
        Ok(())
    }

    /// The row of a tarball whose tables cannot be read; `None` if nothing of it can.
    fn row_past_damage(&self, tarball: &TarballObject) -> Result<Option<TarballRow>, PersistError> {
        let name = tarball.object_name(self.filesystem());
        let found = Found { name, tarball: tarball.name, id: tarball.name.id };
        match self.recovered_row(&found) {
            Ok(row) => Ok(Some(TarballRow { object: tarball.clone(), ..row })),
            Err(error) if is_of_the_object(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn visit_members(
        &self,
        link: &ChainLink,
        row: &TarballRow,
        visit: &mut dyn FnMut(TarballId, TocEntry) -> Result<(), PersistError>,
    ) -> Result<(), PersistError> {
        let source = self.tarballs();
        let name = row.object_name(self.filesystem());
        let reader = TarballReader::with_row(source.store_with(&name)?, &name, row, source.keys)?;
        let (id, chunk_bytes) = (row.object.name.id, link.chunk_bytes);
        let expected = Expected { filesystem: self.filesystem(), id, chunk_bytes };
        scan(&reader, Some(expected), &mut Members { id: row.id, visit }).map(drop)
    }
}

/// Hands on what a scan finds; what is damaged was told by the one that filled the index.
struct Members<'a> {
    id: TarballId,
    visit: &'a mut dyn FnMut(TarballId, TocEntry) -> Result<(), PersistError>,
}

impl ScanVisitor for Members<'_> {
    fn entry(&mut self, entry: TocEntry) -> Result<(), PersistError> {
        (self.visit)(self.id, entry)
    }

    fn damage(&mut self, damage: PersistError) -> Result<(), PersistError> {
        tracing::debug!(%damage, "going past damage");
        Ok(())
    }
}
