//! Salvage: an index from what is left of an archive.
//!
//! A restore must not end at the first object that is damaged. Each tarball is read by its tables,
//! and one whose tables are damaged member by member. What could be read nowhere is in the answer,
//! and so are the transactions of the steps that it belongs to: what the index does not know of a
//! file that they changed may have been data, and must not come back as zeros.

use std::collections::{HashMap, HashSet};

use tier_index::{Index, IndexWriter, TarballId};
use tier_types::{
    ErrorKind, HasKind, ListPage, ListedObject, ObjectName, ObjectStore, SnapshotId, Xid,
};

use crate::damage::Damage;
use crate::derive::apply::{
    Apply, Input, ScanMode, row_past_damage, same_chunk_bytes, set_applied,
};
use crate::derive::checkpoint::Loaded;
use crate::derive::doubt::{Doubtful, ReadLog};
use crate::error::PersistError;
use crate::format::manifest::Manifest;
use crate::format::names::{self, FilesystemId};
use crate::format::tarball::layout::FramePosition;
use crate::format::tarball::row::{TarballObject, TarballRow};
use crate::format::tarball::toc::entry::TocEntry;
use crate::progress::Watch;
use crate::read::chain::Archive;
use crate::read::contents::read_table;
use crate::read::link::ChainLink;
use crate::read::scanner::{Expected, ScanVisitor, scan};
use crate::read::small::is_of_the_object;
use crate::read::tarball_reader::TarballReader;

/// Objects of which each is asked for, however few names there may be.
const N_ASKED: usize = 64;
/// Names in a page of a listing, as most stores give them.
const N_LISTED: usize = 1000;

/// What became of a salvage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Salvaged {
    /// What could be read nowhere.
    pub damages: Vec<Damage>,
    /// Steps of which not all could be read.
    pub(crate) doubtful: Vec<Doubtful>,
    /// Steps at the beginning of the history that a checkpoint brought into the index.
    pub(crate) n_loaded: usize,
}

impl Salvaged {
    /// The checkpoint that the index was filled from, if there was one.
    pub fn checkpoint(&self, archive: &Archive<'_>) -> Option<SnapshotId> {
        let last = self.n_loaded.checked_sub(1)?;
        archive.links().get(last).map(|link| link.summary.snapshot)
    }
}

impl Archive<'_> {
    /// Fills an empty index with all that can be read and is vouched for. Of steps whose manifests
    /// are lost nothing is: what has their numbers is signed by nothing. Opening the archive has
    /// told of them. The log is asked what a step held of which not all can be read.
    pub fn salvage_index(
        &self,
        index: &Index,
        read_log: ReadLog<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Salvaged, PersistError> {
        let mut writer = index.writer();
        let Loaded { n_steps, skipped } = self.load_checkpoint(&mut writer, watch)?;
        let mut salvaged = Salvaged { n_loaded: n_steps, ..Salvaged::default() };
        if n_steps > 0 {
            drop(writer);
            salvaged.damages.extend(self.missing_tarballs(index, watch)?);
            writer = index.writer();
        }
        // The last transaction before a snapshot that is not complete yet.
        let mut complete = Xid::new(0);
        for (position, link) in self.links().iter().enumerate() {
            let mut is_doubtful = link.is_doubtful;
            if position >= n_steps {
                same_chunk_bytes(writer.chunk_bytes(), link.chunk_bytes)?;
                let damage = skipped.iter().filter(|(skipped, _)| *skipped == position);
                salvaged.damages.extend(damage.map(|(_, damage)| damage.clone()));
                let n_damages = salvaged.damages.len();
                if !link.is_lost() {
                    self.salvage_step(link, &mut writer, watch, &mut salvaged.damages)?;
                }
                is_doubtful |= salvaged.damages.len() > n_damages;
                // Remembered, so that the checkpoints of this store say it as well.
                set_applied(&mut writer, &ChainLink { is_doubtful, ..ChainLink::clone(link) })?;
            }
            if is_doubtful {
                salvaged.doubtful.extend(self.doubt(position, complete, read_log)?);
            }
            if link.summary.covered.is_none() && !link.is_lost() {
                complete = link.summary.last_xid;
            }
        }
        writer.flush()?;
        Ok(salvaged)
    }

    /// Tarballs that a checkpoint knows and of which there is no object of that length in any
    /// store: where data lies in them it cannot be read.
    fn missing_tarballs(
        &self,
        index: &Index,
        watch: &Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut wanted = HashMap::new();
        let tarballs = index.tarballs()?;
        let n_pages = tarballs.len() / N_LISTED;
        for (id, n_live) in tarballs {
            let row = index.tarball_row(id)?.and_then(|bytes| TarballRow::from_bytes(&bytes));
            let row = row.ok_or_else(|| PersistError::damaged(id, "its row cannot be read"))?;
            if n_live > 0 {
                wanted.insert(row.object_name(self.filesystem()), row.object.content.len_bytes);
            }
        }
        let mut problem =
            "it is missing, or its length is wrong; data that lies in it cannot be read";
        for (number, store) in self.tarballs().stores.iter().enumerate() {
            if wanted.is_empty() {
                break;
            }
            // Whichever asks less: for each of them, or for the names of all there are.
            let found = if wanted.len() <= N_ASKED.max(n_pages) {
                find_each(*store, &mut wanted, watch)
            } else {
                find_in(*store, self.filesystem(), &mut wanted, watch)
            };
            match found {
                // Without the archive's own store nothing can be said.
                Err(error) if number == 0 || error.kind() == ErrorKind::Cancelled => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!("a copy of tarballs cannot be asked: {error}");
                    problem = "it was not found, and another copy could not be asked";
                }
                Ok(()) => {}
            }
        }
        let mut missing: Vec<_> = wanted.into_keys().collect();
        missing.sort_unstable();
        let damage = |name: ObjectName| Damage {
            object: name.to_string(),
            problem: format!("{name}: {problem}"),
            missing: true,
        };
        Ok(missing.into_iter().map(damage).collect())
    }

    /// The manifest of a step; if no copy has it whole, that is damage.
    pub(super) fn manifest_past_damage(
        &self,
        link: &ChainLink,
        damages: &mut Vec<Damage>,
    ) -> Result<Option<Manifest>, PersistError> {
        match self.manifest(link) {
            Err(error) if is_of_the_object(&error) => {
                damages.push(Damage::of_object(&link.name(self.filesystem()), &error));
                Ok(None)
            }
            manifest => manifest.map(Some),
        }
    }

    fn salvage_step(
        &self,
        link: &ChainLink,
        writer: &mut IndexWriter<'_>,
        watch: &mut Watch<'_>,
        damages: &mut Vec<Damage>,
    ) -> Result<(), PersistError> {
        let tables = Apply { source: self.tarballs(), mode: ScanMode::Tables };
        let Some(manifest) = self.manifest_past_damage(link, damages)? else { return Ok(()) };
        for tarball in &manifest.tarballs {
            let input = Input::Listed(tarball);
            match tables.tarballs(writer, [input], watch) {
                Err(error) if is_of_the_object(&error) => {
                    tracing::warn!("reading a tarball member by member: {error}");
                    damages.extend(self.scan_copies(writer, input, watch)?);
                }
                applied => drop(applied?),
            }
        }
        Ok(())
    }

    /// Applies what can be read of the members of a tarball, from each copy up to one that is
    /// whole; if none is, the damage of the one with the least is returned.
    pub(super) fn scan_copies(
        &self,
        writer: &mut IndexWriter<'_>,
        input: Input<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut least: Option<Vec<Damage>> = None;
        for source in self.tarballs().each() {
            let damages =
                Apply { source, mode: ScanMode::Full }.tarballs(writer, [input], watch)?;
            if damages.is_empty() {
                return Ok(damages);
            }
            // What is not there at all says the least of what is.
            let weight = |damages: &Vec<Damage>| (damages.iter().any(|d| d.missing), damages.len());
            if least.as_ref().is_none_or(|least| weight(&damages) < weight(least)) {
                least = Some(damages);
            }
        }
        // Without any copy nothing was read, which is no whole tarball.
        least.ok_or_else(|| PersistError::Missing("a store for the archive".into()))
    }

    /// Shows `visit` everything that can be read of a step, with the tarballs in which it lies.
    pub(crate) fn visit_step(
        &self,
        link: &ChainLink,
        visit: &mut dyn FnMut(TarballId, TocEntry) -> Result<(), PersistError>,
    ) -> Result<(), PersistError> {
        if link.is_lost() {
            return Ok(());
        }
        let manifest = match self.manifest(link) {
            // Told when the index was filled.
            Err(error) if is_of_the_object(&error) => return Ok(()),
            manifest => manifest?,
        };
        for tarball in &manifest.tarballs {
            let mut visitor =
                Once { id: tarball.name.id, seen: HashSet::new(), failed: None, visit };
            let read = self.tarballs().first_whole(|source| {
                read_table(source, tarball, &mut |entry| visitor.entry(entry))
            });
            // An error of the visitor is none of the tarball.
            if let Some(error) = visitor.failed {
                return Err(error);
            }
            match read {
                Err(error) if is_of_the_object(&error) => {
                    self.visit_past_damage(link, tarball, &mut visitor)?;
                }
                read => read?,
            }
        }
        Ok(())
    }

    /// The members of a tarball whose tables cannot be read, as far as they can.
    fn visit_past_damage(
        &self,
        link: &ChainLink,
        tarball: &TarballObject,
        visitor: &mut Once<'_>,
    ) -> Result<(), PersistError> {
        let row = match row_past_damage(self.tarballs(), tarball) {
            Err(error) if is_of_the_object(&error) => return Ok(()),
            row => row?,
        };
        let source = self.tarballs();
        let name = row.object_name(self.filesystem());
        let reader = TarballReader::with_row(source.store_with(&name)?, &name, &row, source.keys)?;
        let (id, chunk_bytes) = (row.object.name.id, link.chunk_bytes);
        let expected = Expected { filesystem: self.filesystem(), id, chunk_bytes };
        let scanned = scan(&reader, Some(expected), visitor);
        match (visitor.failed.take(), scanned) {
            (Some(error), _) => Err(error),
            (None, Err(error)) if is_of_the_object(&error) => Ok(()),
            (None, scanned) => scanned.map(drop),
        }
    }
}

/// Strikes what a store has of the objects that are wanted, by asking for each.
fn find_each(
    store: &dyn ObjectStore,
    wanted: &mut HashMap<ObjectName, u64>,
    watch: &Watch<'_>,
) -> Result<(), PersistError> {
    let mut found = HashSet::new();
    for (name, len_bytes) in &*wanted {
        match store.metadata(&watch.call(), name) {
            Ok(metadata) if metadata.len_bytes == *len_bytes => {
                found.insert(name.clone());
            }
            Ok(_) => {}
            Err(error) if error.kind().is_of_object() => {}
            Err(error) => return Err(PersistError::Store(error)),
        }
    }
    wanted.retain(|name, _| !found.contains(name));
    Ok(())
}

/// The same by a listing.
fn find_in(
    store: &dyn ObjectStore,
    filesystem: FilesystemId,
    wanted: &mut HashMap<ObjectName, u64>,
    watch: &Watch<'_>,
) -> Result<(), PersistError> {
    let prefix = names::data_prefix(filesystem);
    let mut after = None;
    loop {
        let page = store.list(&watch.call(), &prefix, after.as_ref());
        let ListPage { objects, is_last } = page.map_err(PersistError::Store)?;
        for ListedObject { name, len_bytes } in &objects {
            if wanted.get(name) == Some(len_bytes) {
                wanted.remove(name);
            }
        }
        after = objects.into_iter().last().map(|object| object.name);
        if is_last || after.is_none() || wanted.is_empty() {
            return Ok(());
        }
    }
}

/// Hands on each entry of a tarball once, whichever way it is found. What is damaged was told when
/// the index was filled.
struct Once<'a> {
    id: TarballId,
    /// Where the entries that were handed on lie: at most as many as a tarball has members.
    seen: HashSet<FramePosition>,
    failed: Option<PersistError>,
    visit: &'a mut dyn FnMut(TarballId, TocEntry) -> Result<(), PersistError>,
}

impl ScanVisitor for Once<'_> {
    fn entry(&mut self, entry: TocEntry) -> Result<(), PersistError> {
        if !self.seen.insert(entry.at) {
            return Ok(());
        }
        (self.visit)(self.id, entry).map_err(|error| {
            self.failed = Some(error);
            PersistError::Cancelled
        })
    }

    fn damage(&mut self, damage: PersistError) -> Result<(), PersistError> {
        tracing::debug!(%damage, "going past damage");
        Ok(())
    }
}
