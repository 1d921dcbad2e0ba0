//! An index from a checkpoint: what the steps up to it say, without reading their tarballs.
//!
//! A checkpoint is what an index knew, with the rows of all tarballs and the steps of the history.
//! It is read object by object, several at a time, and taken in by the same merge as contents are.
//! One of which an object is damaged is gone past, to the one before: nothing is lost with it,
//! because everything is in the tarballs as well.

use tier_index::{IndexWriter, InodeRecord};
use tier_types::HasKind;

use crate::damage::Damage;
use crate::derive::apply::{same_chunk_bytes, set_applied};
use crate::error::PersistError;
use crate::format::checkpoint::{CheckpointInode, CheckpointStep};
use crate::format::names::PackedKind;
use crate::format::tarball::row::TarballRow;
use crate::progress::Watch;
use crate::read::ahead::read_ahead;
use crate::read::chain::Archive;
use crate::read::link::{ChainLink, StepKind};
use crate::read::small::is_of_the_object;

/// What a checkpoint has brought into an index.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// How many steps of the chain the index includes now.
    pub(crate) n_steps: usize,
    /// Checkpoints that were gone past: their positions in the chain, and what is wrong with them.
    pub(crate) skipped: Vec<(usize, Damage)>,
}

impl Archive<'_> {
    /// Fills an empty index from the newest checkpoint that can be read, if there is one.
    pub(crate) fn load_checkpoint(
        &self,
        writer: &mut IndexWriter<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Loaded, PersistError> {
        let mut loaded = Loaded::default();
        for (position, link) in self.links().iter().enumerate().rev() {
            if link.summary.kind != StepKind::Checkpoint || link.is_lost() {
                continue;
            }
            match self.load(link, writer, watch) {
                Ok(()) => {
                    loaded.n_steps = position + 1;
                    break;
                }
                Err(error) if is_of_the_object(&error) => {
                    let name = link.name(self.filesystem());
                    tracing::warn!(%name, kind = ?error.kind(), "going past a checkpoint: {error}");
                    loaded.skipped.push((position, Damage::of_object(&name, &error)));
                }
                Err(error) => return Err(error),
            }
        }
        // After all contents, as with every step.
        for link in self.links().iter().take(loaded.n_steps) {
            set_applied(writer, link)?;
        }
        Ok(loaded)
    }

    fn load(
        &self,
        link: &ChainLink,
        writer: &mut IndexWriter<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), PersistError> {
        same_chunk_bytes(writer.chunk_bytes(), link.chunk_bytes)?;
        // All of it is looked at first: of one that is gone past nothing may be in the index, which
        // would lead to what only the checkpoint knows.
        self.read_checkpoint(link, &mut |_| watch.check_stop())?;
        let (manifest, source) = (self.manifest(link)?, self.tarballs());
        let damaged = |problem| PersistError::damaged(manifest.name(), problem);
        // Tarballs first: an index knows the tarball of each location.
        let objects = manifest.packed_of(PackedKind::Steps);
        let read = |number: usize| match objects.get(number) {
            Some(object) => source.read_steps(object),
            None => Err(PersistError::Pipeline),
        };
        read_ahead(objects.len(), &read, &mut |steps: Vec<CheckpointStep>| {
            let readable = |bytes: &Vec<u8>| TarballRow::from_bytes(bytes).is_some();
            let is_sound = steps.iter().flat_map(|step| &step.tarballs).all(readable);
            if is_sound { Ok(()) } else { Err(damaged("a tarball's row in it cannot be read")) }
        })?;
        read_ahead(objects.len(), &read, &mut |steps: Vec<CheckpointStep>| {
            for bytes in steps.iter().flat_map(|step| &step.tarballs) {
                watch.check_stop()?;
                let row = TarballRow::from_bytes(bytes);
                let row = row.ok_or_else(|| damaged("a tarball's row in it cannot be read"))?;
                writer.add_tarball(row.id, bytes)?;
                watch.report(row.object.content.len_bytes);
            }
            Ok(())
        })?;
        self.read_checkpoint(link, &mut |inodes| {
            watch.check_stop()?;
            let records: Vec<InodeRecord> = inodes.into_iter().map(|inode| inode.record).collect();
            Ok(writer.load(&records)?)
        })
    }

    /// Shows `take` the inodes of a checkpoint, in order.
    pub(crate) fn read_checkpoint(
        &self,
        link: &ChainLink,
        take: &mut dyn FnMut(Vec<CheckpointInode>) -> Result<(), PersistError>,
    ) -> Result<(), PersistError> {
        let (manifest, source) = (self.manifest(link)?, self.tarballs());
        let objects = manifest.packed_of(PackedKind::Inodes);
        let read = |number: usize| match objects.get(number) {
            Some(object) => source.read_inodes(object),
            None => Err(PersistError::Pipeline),
        };
        read_ahead(objects.len(), &read, take)
    }
}
