//! Filling an empty index from a store's tarballs, here or in the cloud.

use std::collections::HashSet;

use anyhow::{Context, Result};
use tier_agent::StatusBook;
use tier_index::Index;
use tier_persist::{Archive, Damage, PersistError, ScanMode, Watch, rebuild_without_manifests};
use tier_status::Stage;
use tier_types::{ErrorKind, ObjectStore, SnapshotId};

use crate::store::{Base, clock};

/// Where contents come from, and how.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) mode: ScanMode,
    pub(crate) from_cloud: bool,
}

/// What an index was filled from.
pub(crate) struct Filled {
    pub(crate) n_tarballs: u64,
    /// What is damaged in all copies.
    pub(crate) damages: Vec<Damage>,
}

/// The newest snapshot that there was.
pub(crate) type NewestBefore<'a> = &'a dyn Fn() -> Option<SnapshotId>;

/// Fills an empty index, which must have the newest snapshot that there was. Without that question
/// the caller brings it up to the manifests that are here, and nothing that they do not commit gets
/// into it: a snapshot may be on its way.
pub(crate) fn fill(
    (base, newest_before): (&Base, Option<NewestBefore<'_>>),
    index: &Index,
    how: How,
    watch: &mut Watch<'_>,
) -> Result<Filled> {
    let cloud = || base.cloud.as_deref().context("this store has no cloud");
    let local: &dyn ObjectStore = &base.local;
    let other_copy = !how.from_cloud && base.cloud.is_some();
    let source = if how.from_cloud { cloud()? } else { local };
    let scan_all = newest_before.is_some() && how.mode == ScanMode::Full && may_be_committed(base);
    let from = |source| Source { base, objects: source, mode: how.mode, scan_all };
    match from(source).fill(index, watch) {
        // A restored store has its tarballs in the cloud only.
        Err(error) if other_copy && crate::exit::code(&error) == crate::exit::DAMAGED => {
            tracing::warn!("local tarballs are incomplete ({error:#}); reading the cloud's");
            let filled = from(cloud()?).fill(index, watch)?;
            if newest_before.is_some_and(|newest_before| newest(index) < newest_before()) {
                return Err(error.context("the cloud has not all of these snapshots"));
            }
            Ok(filled)
        }
        Ok(Filled { n_tarballs, damages }) if other_copy && !damages.is_empty() => {
            let n = damages.len();
            tracing::warn!("{n} places of local tarballs are damaged; reading the cloud's as well");
            let left = match made_up_for((base, cloud()?), index, &damages, watch) {
                Ok(left) => left,
                Err(error) if is_cancelled(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!("the cloud's cannot be read: {error:#}");
                    damages
                }
            };
            Ok(Filled { n_tarballs, damages: left })
        }
        other => other,
    }
}

fn is_cancelled(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(PersistError::Cancelled))
}

/// The newest snapshot that a status log says was committed.
pub(crate) fn newest_committed(base: &Base) -> Option<SnapshotId> {
    let book = StatusBook::open(&base.path.join("status"), clock()).ok()?;
    let statuses = book.all().ok()?;
    let committed = statuses.iter().filter(|status| status.stage >= Stage::Committed);
    committed.map(|status| status.header.snapshot).max()
}

/// The newest snapshot that an index has.
pub(crate) fn newest(index: &Index) -> Option<SnapshotId> {
    index.applied().ok().flatten().map(|applied| applied.snapshot)
}

/// Adds what another copy has, and returns the damages for which that did not make up.
fn made_up_for(
    (base, cloud): (&Base, &dyn ObjectStore),
    index: &Index,
    damages: &[Damage],
    watch: &mut Watch<'_>,
) -> Result<Vec<Damage>> {
    let archive = Archive::open(cloud, &base.keys, base.filesystem)?;
    let theirs = archive.add_to_index(index, watch)?;
    let mut there = HashSet::new();
    let snapshots: Vec<_> = archive.snapshots().map(|summary| summary.snapshot).collect();
    for snapshot in snapshots {
        there.extend(archive.objects(snapshot)?.into_iter().map(|o| o.name.to_string()));
    }
    let whole = |object: &str| {
        there.contains(object) && !theirs.iter().any(|damage| damage.object == object)
    };
    Ok(damages.iter().filter(|damage| !whole(&damage.object)).cloned().collect())
}

/// Whether tarballs that no manifest commits may once have been committed. Where every status log
/// says that they were not, they are leftovers.
fn may_be_committed(base: &Base) -> bool {
    let book = StatusBook::open(&base.path.join("status"), clock());
    let statuses = book.and_then(|book| book.all()).unwrap_or_default();
    statuses.is_empty() || statuses.iter().any(|status| status.stage >= Stage::Committed)
}

/// Tarballs in one store.
struct Source<'a> {
    base: &'a Base,
    objects: &'a dyn ObjectStore,
    mode: ScanMode,
    /// Go by the tarballs alone where the manifests are lost.
    scan_all: bool,
}

impl Source<'_> {
    fn fill(&self, index: &Index, watch: &mut Watch<'_>) -> Result<Filled> {
        let Self { base, objects, mode, scan_all } = *self;
        match Archive::open(objects, &base.keys, base.filesystem) {
            Ok(archive) => {
                let n_tarballs: u64 = archive.snapshots().map(|summary| summary.n_tarballs).sum();
                if n_tarballs == 0 && scan_all {
                    return self.fill_without_manifests(index, watch);
                }
                Ok(Filled { n_tarballs, damages: archive.rebuild_index(index, mode, watch)? })
            }
            Err(error)
                if scan_all && matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing) =>
            {
                tracing::warn!("the manifests cannot be used ({error}); scanning all tarballs");
                self.fill_without_manifests(index, watch)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn fill_without_manifests(&self, index: &Index, watch: &mut Watch<'_>) -> Result<Filled> {
        let Base { keys, filesystem, .. } = self.base;
        let rebuilt = rebuild_without_manifests(index, self.objects, keys, *filesystem, watch)?;
        let (n_tarballs, damages) = rebuilt;
        Ok(Filled { n_tarballs, damages })
    }
}
