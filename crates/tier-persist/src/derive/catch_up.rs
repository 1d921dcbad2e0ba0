//! Catching up: an index that is behind its archive, brought up to it.
//!
//! It is behind after a crash between a manifest and the index, and after a crash that took what
//! was applied and not yet flushed. The index says which manifest was the last that it has all of.
//! What is after that one has a name that is known: the next number of the writer's epoch. So a
//! store that was closed in order is opened with one question.
//!
//! An index without any manifest is filled from all of them. One that includes a manifest which the
//! archive does not have is of another history, or that manifest is lost; then nothing may be
//! applied.

use std::sync::Arc;

use tier_index::Index;
use tier_types::{Call, Epoch, ErrorKind, HasKind, ObjectStore, SnapshotId, with_causes};

use crate::derive::apply::{self, Apply, ScanMode, listed};
use crate::error::PersistError;
use crate::format::claim::WriterToken;
use crate::format::keys::Keys;
use crate::format::manifest::{Manifest, OpenedManifest};
use crate::format::names::{self, FilesystemId};
use crate::format::signed::SIGNED_BYTES_MAX;
use crate::progress::Watch;
use crate::read::chain::Archive;
use crate::read::copies::first_whole;
use crate::read::history::History;
use crate::read::link::ChainLink;
use crate::read::small::{is_of_the_object, read_small};
use crate::read::tarball_source::TarballSource;

/// Where an archive may go on behind its index.
#[derive(Clone, Copy, Debug)]
pub struct NextStep {
    /// The writer's epoch.
    pub epoch: Epoch,
    /// The number of its next snapshot.
    pub snapshot: SnapshotId,
    /// The writer; a follower has nothing that it could have written.
    pub writer: Option<WriterToken>,
}

impl Archive<'_> {
    /// Brings an index up to the newest snapshot: applies the manifests after the last one that it
    /// knows. An index of another history is an error.
    pub fn catch_up(&self, index: &Index) -> Result<(), PersistError> {
        // The writer is held from the look at what is applied to the end: no commit comes between.
        let mut writer = index.writer();
        let first = match index.applied()? {
            None => 0,
            Some(applied) => {
                // By digest: a manifest of the same number may be of another history.
                let is_known = |link: &Arc<ChainLink>| {
                    link.reference.digest == applied.manifest_digest
                        && link.reference.snapshot == applied.snapshot
                };
                let position = self.links().iter().position(is_known);
                let object = format!("the manifest of snapshot {}", applied.snapshot);
                let problem = "the index includes it, and it is not here";
                position.ok_or_else(|| PersistError::damaged(object, problem))? + 1
            }
        };
        let n_behind = self.links().len() - first;
        if n_behind > 0 {
            tracing::info!(n_behind, "bringing the index up to the manifests");
        }
        let watch = &mut Watch::default();
        self.apply_from(first, &mut writer, ScanMode::Checkpoint, watch).map(drop)
    }
}

impl History {
    /// The same, but no error if a tarball that the index lacks is in a cloud only, because its
    /// local copy was dropped, and the cloud cannot be read now. Whether the index is up to date.
    pub fn catch_up_if_within_reach(
        &self,
        stores: &[&dyn ObjectStore],
        keys: &Keys,
        filesystem: FilesystemId,
        next: NextStep,
    ) -> Result<bool, PersistError> {
        match self.catch_up(stores, keys, filesystem, next) {
            Err(error) if error.kind().may_pass() => {
                tracing::warn!(
                    error = with_causes(&error),
                    "the index lacks a snapshot whose tarballs are only in the cloud, which cannot \
                     be read now; nothing is lost: the index catches up when the cloud is back, and \
                     the next snapshot is taken then"
                );
                Ok(false)
            }
            caught_up => caught_up.map(|()| true),
        }
    }

    /// Brings the index up to what a crash kept from it: the manifests of the writer's epoch behind
    /// the last one that it includes. Of these stores the first is the archive's own, and says
    /// which there are; tarballs come from any that has them.
    pub fn catch_up(
        &self,
        stores: &[&dyn ObjectStore],
        keys: &Keys,
        filesystem: FilesystemId,
        mut next: NextStep,
    ) -> Result<(), PersistError> {
        let nowhere = || PersistError::Missing("a store for the archive".into());
        let store = *stores.first().ok_or_else(nowhere)?;
        if self.index().applied()?.is_none() {
            // The first one keeps the manifests, and may have dropped what another one has.
            let archive = Archive::open(store, keys, filesystem)?;
            return archive.with_tarballs_in(stores.to_vec()).catch_up(self.index());
        }
        if next.writer.is_none() {
            return Ok(());
        }
        let mut writer = self.index().writer();
        let mut is_behind = false;
        loop {
            let name = names::manifest_name(filesystem, next.epoch, next.snapshot);
            let read = |store: &dyn ObjectStore| -> Result<_, PersistError> {
                let bytes = read_small(&Call::bulk(), store, &name, SIGNED_BYTES_MAX)?;
                Ok((Manifest::from_object(&bytes, &name, keys)?, bytes))
            };
            let (opened, bytes) = match read(store) {
                Err(error) if error.kind() == ErrorKind::Missing => break,
                Err(error) if is_of_the_object(&error) => {
                    first_whole(stores, |store| read(*store))?
                }
                read => read?,
            };
            let OpenedManifest { manifest, encrypted, .. } = opened;
            if Some(manifest.writer) != next.writer || manifest.signer != keys.signer() {
                return Err(PersistError::damaged(name, "another store wrote it"));
            }
            let link = ChainLink::of(&manifest, &bytes, encrypted)?;
            if let Some(before) = self.chain()?.last() {
                link.check_continues(before, filesystem)?;
            }
            tracing::info!(snapshot = %next.snapshot, "a crash kept a snapshot from the index");
            let source = TarballSource { stores, keys, filesystem };
            let apply = Apply { source, mode: ScanMode::Tables };
            apply.tarballs(&mut writer, listed(&manifest), &mut Watch::default())?;
            apply::set_applied(&mut writer, &link)?;
            (is_behind, next.snapshot) = (true, next.snapshot.next());
        }
        if is_behind { Ok(writer.sync()?) } else { Ok(()) }
    }
}
