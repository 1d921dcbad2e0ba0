//! Salvage: an index from what is left of an archive.
//!
//! A restore must not end at the first object that is damaged. Each tarball is read by its tables, and
//! one whose tables are damaged member by member. What could be read nowhere is in the answer, and so
//! are the transactions of the steps that it belongs to: what the index does not know of a file that
//! they changed may have been data, and must not come back as zeros.

use std::collections::HashSet;

use tier_index::{Index, IndexWriter, TarballId};
use tier_types::{Ino, Xid};

use crate::damage::Damage;
use crate::derive::apply::{
    Apply, Input, ScanMode, row_past_damage, same_chunk_bytes, set_applied,
};
use crate::derive::checkpoint::Loaded;
use crate::error::PersistError;
use crate::format::tarball::layout::FramePosition;
use crate::format::tarball::row::TarballObject;
use crate::format::tarball::toc::entry::TocEntry;
use crate::progress::Watch;
use crate::read::chain::Archive;
use crate::read::contents::read_table;
use crate::read::link::ChainLink;
use crate::read::scanner::{Expected, ScanVisitor, scan};
use crate::read::small::is_of_the_object;
use crate::read::tarball_reader::TarballReader;

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

/// Transactions of a step of which not all can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Doubtful {
    /// The last one before them.
    pub(crate) after: Xid,
    /// The last one of them.
    pub(crate) last: Xid,
}

impl Doubtful {
    /// Whether an inode whose newest transaction is this one may have changed in the step: if it was
    /// there by its end, and was not left alone from before it. An inode has the number of the
    /// transaction that made it, so that one with a higher number came later.
    pub(crate) fn may_have(self, ino: Ino, xid: Xid) -> bool {
        xid > self.after && ino.get() <= self.last.get()
    }
}

impl Archive<'_> {
    /// Fills an empty index with all that can be read and is vouched for. Of steps whose manifests
    /// are lost nothing is: what has their numbers is signed by nothing. Opening the archive has told
    /// of them.
    pub fn salvage_index(
        &self,
        index: &Index,
        watch: &mut Watch<'_>,
    ) -> Result<Salvaged, PersistError> {
        let mut writer = index.writer();
        let Loaded { n_steps, skipped } = self.load_checkpoint(&mut writer, watch)?;
        let mut salvaged = Salvaged { n_loaded: n_steps, ..Salvaged::default() };
        let mut after = Xid::new(0);
        for (position, link) in self.links().iter().enumerate() {
            let last = link.summary.last_xid;
            let mut is_doubtful = link.is_doubtful;
            if position >= n_steps {
                same_chunk_bytes(writer.chunk_bytes(), link.chunk_bytes)?;
                let n_damages = salvaged.damages.len();
                if !link.is_lost() {
                    self.salvage_step(link, &mut writer, watch, &mut salvaged.damages)?;
                }
                let damage = skipped.iter().filter(|(skipped, _)| *skipped == position);
                salvaged.damages.extend(damage.map(|(_, damage)| damage.clone()));
                is_doubtful |= salvaged.damages.len() > n_damages;
                // Remembered, so that the checkpoints of this store say it as well.
                set_applied(&mut writer, &ChainLink { is_doubtful, ..ChainLink::clone(link) })?;
            }
            if is_doubtful {
                salvaged.doubtful.push(Doubtful { after, last });
            }
            after = last;
        }
        writer.flush()?;
        Ok(salvaged)
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

    /// Shows `visit` everything that can be read of a step, with the tarballs in which it lies.
    pub(crate) fn visit_step(
        &self,
        link: &ChainLink,
        visit: &mut dyn FnMut(TarballId, TocEntry) -> Result<(), PersistError>,
    ) -> Result<(), PersistError> {
        if link.is_lost() {
            return Ok(());
        }
        for tarball in &self.manifest(link)?.tarballs {
            let mut visitor =
                Once { id: tarball.name.id, seen: HashSet::new(), failed: None, visit };
            let read = read_table(self.tarballs(), tarball, &mut |entry| visitor.entry(entry));
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

/// Hands on each entry of a tarball once, whichever way it is found. What is damaged was told when the
/// index was filled.
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
