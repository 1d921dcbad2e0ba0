//! Filling an empty index from a store's tarballs, here or in the cloud.
//!
//! The manifests here say which tarballs these are. A cloud may hold later ones, of a history that a
//! restore has left behind; its manifests count only where there are none here any more.

use anyhow::{Context, Result, bail};
use tier_agent::StatusBook;
use tier_index::Index;
use tier_persist::{Archive, Damage, PersistError, ScanMode, Watch, rebuild_without_manifests};
use tier_status::{SnapshotStatus, Stage};
use tier_types::{ErrorKind, HasKind, ObjectStore, SnapshotId};

use crate::console::DamageFound;
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

/// Fills an empty index with what the manifests here commit.
pub(crate) fn fill(base: &Base, index: &Index, how: How, watch: &mut Watch<'_>) -> Result<Filled> {
    let archive = Archive::open(&base.local, &base.keys, base.filesystem)?;
    fill_from(archive, copies(base, how)?, (index, how.mode), watch)
}

/// The same where the manifests here may be lost: then by the cloud's, and with a full scan even
/// without any. `newest` says the newest snapshot that there was, as far as that is known.
pub(crate) fn fill_from_what_is_left(
    (base, newest): (&Base, &dyn Fn() -> Option<SnapshotId>),
    index: &Index,
    how: How,
    watch: &mut Watch<'_>,
) -> Result<Filled> {
    let unusable = match Archive::open(&base.local, &base.keys, base.filesystem) {
        Ok(archive) => {
            let last = archive.snapshots().next_back().map(|last| last.snapshot);
            if last.is_some() && last >= newest_committed(base) {
                return fill_from(archive, copies(base, how)?, (index, how.mode), watch);
            }
            None
        }
        Err(error) if is_damage(&error) => Some(error),
        Err(error) => return Err(error.into()),
    };
    let newest = newest();
    if let Some(archive) = cloud_archive(base) {
        let theirs = archive.snapshots().next_back().map(|last| last.snapshot);
        if theirs.is_some() && (newest.is_none() || theirs == newest) {
            tracing::warn!("the manifests here are not whole; going by the cloud's");
            return fill_from(archive, copies(base, how)?, (index, how.mode), watch);
        }
    }
    let by_tables = how.mode == ScanMode::Tables;
    match (unusable, newest) {
        // Tarballs may be what an interrupted first snapshot left: the status log says so. Where
        // even those are lost nobody knows.
        (None, None) if by_tables || has_status_logs(base) => {
            return Ok(Filled { n_tarballs: 0, damages: Vec::new() });
        }
        (Some(error), _) if by_tables => return Err(error.into()),
        (None, Some(newest)) if by_tables => bail!(DamageFound(format!(
            "the manifest of snapshot {newest} is missing here, and the cloud does not end with it; \
             copy it back, or see --full-scan"
        ))),
        _ => {}
    }
    tracing::warn!("there are no manifests that can be used; scanning all tarballs");
    let source = *copies(base, how)?.first().context("no tarballs")?;
    let (keys, filesystem) = (&base.keys, base.filesystem);
    let (n_tarballs, damages) = rebuild_without_manifests(index, source, keys, filesystem, watch)?;
    Ok(Filled { n_tarballs, damages })
}

/// None if there is no cloud, or none that can be used.
fn cloud_archive(base: &Base) -> Option<Archive<'_>> {
    let opened = Archive::open(base.cloud.as_deref()?, &base.keys, base.filesystem);
    opened.inspect_err(|error| tracing::warn!("the cloud's manifests cannot be used: {error}")).ok()
}

/// The stores that may have a tarball, in the order in which they are asked.
fn copies(base: &Base, how: How) -> Result<Vec<&dyn ObjectStore>> {
    let local: &dyn ObjectStore = &base.local;
    Ok(match (base.cloud.as_deref(), how.from_cloud) {
        (None, true) => bail!("this store has no cloud"),
        (None, false) => vec![local],
        (Some(cloud), false) => vec![local, cloud],
        (Some(cloud), true) => vec![cloud, local],
    })
}

fn fill_from<'a>(
    archive: Archive<'a>,
    copies: Vec<&'a dyn ObjectStore>,
    (index, mode): (&Index, ScanMode),
    watch: &mut Watch<'_>,
) -> Result<Filled> {
    let n_tarballs = archive.snapshots().map(|summary| summary.n_tarballs).sum();
    let others: Vec<_> = copies.iter().rev().copied().collect();
    let has_others = others.len() > 1;
    let archive = archive.with_tarballs_in(copies);
    let filled = archive.rebuild_index(index, mode, watch);
    let archive = archive.with_tarballs_in(others);
    let damages = match filled {
        Err(error) if has_others && is_damage(&error) => {
            tracing::warn!("{error}; reading the other copy");
            archive.rebuild_index(index, mode, watch)?
        }
        Ok(damages) if has_others && !damages.is_empty() => {
            let n = damages.len();
            tracing::warn!("{n} places of tarballs are damaged; reading the other copies as well");
            match archive.add_to_index(index, watch) {
                Ok(theirs) => {
                    let also = |one: &Damage| theirs.iter().any(|other| other.object == one.object);
                    damages.into_iter().filter(also).collect()
                }
                Err(PersistError::Cancelled) => return Err(PersistError::Cancelled.into()),
                Err(error) => {
                    tracing::warn!("the other copies cannot be read: {error}");
                    damages
                }
            }
        }
        other => other?,
    };
    Ok(Filled { n_tarballs, damages })
}

fn is_damage(error: &PersistError) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing)
}

/// The newest snapshot that a status log says was committed.
pub(crate) fn newest_committed(base: &Base) -> Option<SnapshotId> {
    let committed = |status: &SnapshotStatus| status.stage >= Stage::Committed;
    let statuses = statuses(base);
    statuses.iter().filter(|status| committed(status)).map(|s| s.header.snapshot).max()
}

fn has_status_logs(base: &Base) -> bool {
    !statuses(base).is_empty()
}

/// Nothing if they cannot be read.
fn statuses(base: &Base) -> Vec<SnapshotStatus> {
    let book = StatusBook::open(&base.path.join("status"), clock());
    book.and_then(|book| book.all()).unwrap_or_default()
}

/// The newest snapshot that an index has.
pub(crate) fn newest(index: &Index) -> Option<SnapshotId> {
    index.applied().ok().flatten().map(|applied| applied.snapshot)
}
