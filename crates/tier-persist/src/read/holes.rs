//! A history with holes: manifests that are lost cost what they held and no more.
//!
//! A manifest names its parent by digest, so that the one before a lost one is not vouched for by
//! anything but its own signature. It must be of the same epoch, by the same signer, and end before
//! the hole does; numbers have no gaps within an epoch, so that those between the two are lost as
//! well. What an epoch continues each of its manifests says, by digest: nothing is guessed across
//! an epoch, because there may be several histories.

use std::collections::BTreeMap;
use std::sync::Arc;

use tier_types::{Epoch, ObjectName, ObjectStore, SnapshotId};

use crate::damage::Damage;
use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::manifest::ManifestRef;
use crate::format::names::FilesystemId;
use crate::read::chain::{Archive, Head, UnreadManifest, manifest_names};
use crate::read::link::{ChainLink, ReadStep, StepKind};
use crate::read::small::is_of_the_object;
use crate::read::tarball_source::TarballSource;

type Number = (Epoch, SnapshotId);

/// Of a manifest whose digest nothing names: no object has it.
const UNKNOWN: ManifestRef =
    ManifestRef { epoch: Epoch::new(0), snapshot: SnapshotId::new(0), digest: [0; 32] };

impl<'a> Archive<'a> {
    /// The history from a manifest on, with holes for the manifests that cannot be read. They are
    /// returned as damage.
    pub fn open_past_holes(
        store: &'a dyn ObjectStore,
        keys: &'a Keys,
        filesystem: FilesystemId,
        head: &Head,
    ) -> Result<(Self, Vec<UnreadManifest>), PersistError> {
        let names = manifest_names(store, filesystem)?.into_iter().collect();
        let (chain, damages) = (Vec::new(), Vec::new());
        let mut walk = Walk { store, keys, filesystem, names, chain, damages };
        let (epoch, snapshot) = (head.summary.epoch, head.summary.snapshot);
        let mut next = Some(ManifestRef { epoch, snapshot, digest: head.digest });
        while let Some(reference) = next {
            next = walk.step(reference)?;
        }
        let Walk { mut chain, damages, .. } = walk;
        chain.reverse();
        for (before, after) in chain.iter().zip(chain.iter().skip(1)) {
            after.check_continues(before, filesystem)?;
        }
        let chain = Arc::new(chain.into_iter().map(Arc::new).collect());
        Ok((Self::over(chain, vec![store], keys, filesystem)?, damages))
    }
}

/// Steps are found from the newest one back.
struct Walk<'a> {
    store: &'a dyn ObjectStore,
    keys: &'a Keys,
    filesystem: FilesystemId,
    /// Manifests that were not looked at yet.
    names: BTreeMap<Number, ObjectName>,
    chain: Vec<ChainLink>,
    damages: Vec<UnreadManifest>,
}

impl Walk<'_> {
    /// Adds the step that the one after it names, and returns the one before.
    fn step(&mut self, reference: ManifestRef) -> Result<Option<ManifestRef>, PersistError> {
        let number = (reference.epoch, reference.snapshot);
        let problem = match self.names.remove(&number) {
            None => "it is missing".to_string(),
            Some(name) => match ChainLink::read_step(self.store, &name, self.keys) {
                Ok(step) if step.link.reference == reference => return self.add(step),
                Ok(_) => "it was replaced".to_string(),
                Err(error) if is_of_the_object(&error) => error.to_string(),
                Err(error) => return Err(error),
            },
        };
        let Some(after) = self.chain.last() else {
            let object = format!("the manifest of snapshot {}", reference.snapshot);
            return Err(PersistError::Missing(object));
        };
        let (lost, parent) = (ChainLink::lost(reference, after), after.epoch_parent);
        let object = format!("the manifest of snapshot {} (epoch {})", number.1, number.0);
        tracing::warn!(object, problem, "going past a manifest");
        let damage = Damage { object, problem, missing: true };
        self.damages.push(UnreadManifest {
            epoch: reference.epoch,
            snapshot: reference.snapshot,
            damage,
        });
        let before = self.find_before(&lost)?;
        self.chain.push(lost);
        match before {
            Some(before) => {
                self.push_lost_between(before);
                Ok(Some(before))
            }
            // The first one of its epoch: every other one says what that continues.
            None => Ok(parent),
        }
    }

    /// Adds a step, and all before it if it is a checkpoint; returns the one before otherwise.
    fn add(&mut self, step: ReadStep) -> Result<Option<ManifestRef>, PersistError> {
        let ReadStep { link, manifest } = step;
        let (parent, kind) = (link.parent, link.summary.kind);
        self.chain.push(link);
        if kind == StepKind::Checkpoint {
            let (stores, keys, filesystem) = (&[self.store][..], self.keys, self.filesystem);
            let source = TarballSource { stores, keys, filesystem };
            if let Some(before) = source.links_before(&manifest)? {
                self.chain.extend(before.into_iter().rev());
                return Ok(None);
            }
        }
        Ok(parent)
    }

    /// Within an epoch numbers have no gaps: those between two are lost as well.
    fn push_lost_between(&mut self, before: ManifestRef) {
        while let Some(last) = self.chain.last() {
            let snapshot = SnapshotId::new(last.summary.snapshot.get().saturating_sub(1));
            if snapshot <= before.snapshot {
                return;
            }
            let reference = ManifestRef { snapshot, ..UNKNOWN };
            let reference = ManifestRef { epoch: before.epoch, ..reference };
            let lost = ChainLink::lost(reference, last);
            let object = format!("the manifest of snapshot {snapshot} (epoch {})", before.epoch);
            let damage = Damage { object, problem: "it is missing".into(), missing: true };
            self.damages.push(UnreadManifest { epoch: before.epoch, snapshot, damage });
            self.chain.push(lost);
        }
    }

    /// The step before a hole.
    fn find_before(&mut self, lost: &ChainLink) -> Result<Option<ManifestRef>, PersistError> {
        let number = (lost.summary.epoch, lost.summary.snapshot);
        // Never across an epoch: there may be several histories.
        let first = (lost.summary.epoch, SnapshotId::new(0));
        let older = self.names.range(first..number).map(|(number, _)| *number).rev();
        for number in older.collect::<Vec<_>>() {
            let Some(name) = self.names.get(&number) else { continue };
            match ChainLink::read(self.store, name, self.keys) {
                Ok(link)
                    if link.signer == lost.signer
                        && link.summary.last_xid <= lost.summary.last_xid =>
                {
                    return Ok(Some(link.reference));
                }
                // Of another history, or one that cannot be read either.
                Ok(_) => {}
                Err(error) if is_of_the_object(&error) => {
                    let (object, problem) = (name.to_string(), error.to_string());
                    let damage = Damage { object, problem, missing: false };
                    self.damages.push(UnreadManifest {
                        epoch: number.0,
                        snapshot: number.1,
                        damage,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
