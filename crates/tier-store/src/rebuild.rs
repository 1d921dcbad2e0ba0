//! Regenerating a store's index from its tarballs, here or in the cloud.
//!
//! The manifests here say which tarballs count; a tarball itself comes from any copy that has it
//! undamaged. A cloud may hold later manifests, of a history that a restore has left behind, so
//! that the cloud's count only where there are none here any more, and only if they end with the
//! newest snapshot that this store knows of (from its status logs or its old index). Without any
//! manifests a full scan takes every tarball that the keys open.
//!
//! The new index is made beside the one in use and takes its place by a rename when it is whole
//! ([`index_dirs`]). Where the store is open, three steps keep readers and the agent from noticing:
//! the long fill runs while snapshots go on; a first catch-up brings in what they added; then the
//! writer of the index is held, so that no snapshot comes between, a second catch-up closes the
//! gap, and all readers change over at once. Damage, or fewer snapshots than the index in use has,
//! leaves that one where it is.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tier_index::{Index, IndexError};
use tier_persist::{
    Archive, Damage, History, PersistError, ScanMode, Watch, rebuild_without_manifests,
};
use tier_status::SnapshotStatus;
use tier_types::{HasKind, ObjectStore, SnapshotId};

use crate::StoreError;
use crate::dir::StoreDir;
use crate::index_dirs::{self, NewIndex};
use crate::store::{OpenMode, Store};
use crate::wiring::{look_into_index, open_index, status_book};

/// Where contents come from, and how they are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RebuildOptions {
    /// By the newest checkpoint, by tables of contents, or by reading everything.
    pub mode: ScanMode,
    /// Prefers the cloud's copies.
    pub from_cloud: bool,
}

/// What an index was filled from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filled {
    /// Tarballs.
    pub n_tarballs: u64,
    /// What is damaged in all copies.
    pub damages: Vec<Damage>,
}

/// An index that was made to be looked at.
#[derive(Debug)]
pub struct FreshIndex<'a> {
    /// The index.
    pub index: &'a Index,
    /// What it was filled from.
    pub filled: Filled,
    /// A directory for what else is needed, which goes with the index.
    pub directory: &'a Path,
}

/// Makes a new index of a store that is not open, from what is left of manifests and tarballs. It
/// takes the place of the old one even if damage was found; what it lacks is then in the answer.
///
/// The directory is given up: an open [`Store`] lends its own, and could not lose its index to
/// this.
#[expect(clippy::needless_pass_by_value, reason = "a store that is open cannot give it up")]
pub fn rebuild(
    dir: StoreDir,
    options: RebuildOptions,
    watch: &mut Watch<'_>,
) -> Result<Filled, StoreError> {
    rebuild_index_of(&dir, options, watch)
}

/// Makes a new index of a store that is not open, from exactly this archive. What no copy has whole
/// is gone past, and returned.
pub(crate) fn rebuild_index_from(
    dir: &StoreDir,
    archive: Archive<'_>,
) -> Result<Vec<Damage>, StoreError> {
    let options = RebuildOptions { mode: ScanMode::Full, from_cloud: false };
    let new = NewIndex::new(&dir.layout)?;
    let index = open_index(&new.index_path(), &dir.config)?;
    let archive = archive.with_doubtful_steps(&doubtful_steps(dir));
    let archive = archive.with_tarballs_in(copies(dir, options)?);
    let watch = &mut Watch::default();
    let damages = match archive.rebuild_index(&index, ScanMode::Checkpoint, watch) {
        Err(error) if error.kind().is_of_object() => {
            tracing::warn!("{error}; reading all that is left");
            fill_by(archive, copies(dir, options)?, &index, options.mode, watch)?.damages
        }
        rebuilt => rebuilt?,
    };
    drop(index);
    new.publish()?;
    index_dirs::settle(&dir.layout)?;
    Ok(damages)
}

/// The same, where the caller sees to it that no store is open.
fn rebuild_index_of(
    dir: &StoreDir,
    options: RebuildOptions,
    watch: &mut Watch<'_>,
) -> Result<Filled, StoreError> {
    let new = NewIndex::new(&dir.layout)?;
    let index = open_index(&new.index_path(), &dir.config)?;
    let filled = fill_from_what_is_left(dir, &index, options, watch)?;
    // Closed before the rename: an open database goes on to make files below the path by which it
    // was opened.
    drop(index);
    new.publish()?;
    index_dirs::settle(&dir.layout)?;
    Ok(filled)
}

impl Store {
    /// Makes a new index while the store is in use. `Filled::damages` that are not empty say that
    /// the index in use stayed.
    pub fn rebuild_in_use(
        &self,
        options: RebuildOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Filled, StoreError> {
        let dir = self.dir();
        // Better to fail now than after a long scan: the manifests must be whole.
        self.archive()?;
        let new = NewIndex::new(&dir.layout)?;
        let index = open_index(&new.index_path(), &dir.config)?;
        let filled = self.fill_index(&index, options, watch)?;
        if !filled.damages.is_empty() {
            return Ok(filled);
        }
        // First what came meanwhile, so that the rest, for which the next snapshot waits, is
        // little.
        self.archive()?.catch_up(&index)?;
        watch.check_stop()?;
        let writer = self.index().writer();
        self.archive()?.catch_up(&index)?;
        // By now the new index has every manifest that is here. If it still ends earlier, manifests
        // are lost, and the index in use knows what they committed.
        if newest(&index) < newest(self.index()) {
            return Err(IndexError::Behind.into());
        }
        drop(index);
        let place = new.publish()?;
        let index = open_index(&place, &dir.config);
        let replaced = index.and_then(|index| Ok(writer.replace_by(index)?));
        // The next opening goes on with the one that is in use now.
        replaced.inspect_err(|_| index_dirs::remove(&place))?;
        Ok(filled)
    }

    /// Fills an index beside the one in use, brings it up to the newest manifest, and shows it to
    /// `look`; it goes afterwards.
    pub fn with_fresh_index<T>(
        &self,
        options: RebuildOptions,
        watch: &mut Watch<'_>,
        look: impl FnOnce(&FreshIndex<'_>) -> T,
    ) -> Result<T, StoreError> {
        let dir = self.dir();
        let new = NewIndex::new(&dir.layout)?;
        let index = open_index(&new.index_path(), &dir.config)?;
        let filled = self.fill_index(&index, options, watch)?;
        self.archive()?.catch_up(&index)?;
        Ok(look(&FreshIndex { index: &index, filled, directory: new.directory() }))
    }

    /// Fills an empty index with what the manifests here commit. One that is lost here is read from
    /// another copy: the index in use knows its digest.
    fn fill_index(
        &self,
        index: &Index,
        options: RebuildOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Filled, StoreError> {
        let dir = self.dir();
        let archive = match Archive::open(dir.local.as_ref(), &dir.keys, dir.filesystem) {
            Err(error) if error.kind().is_of_object() => {
                tracing::warn!("the manifests here are not whole: {error}");
                self.archive()?
            }
            archive => archive?,
        };
        let archive = match self.mode() {
            // A commit may be between its manifest and the index in use: the new index then has it
            // after the old one.
            OpenMode::Current => archive.until(newest(self.index()).unwrap_or(SnapshotId::new(0))),
            OpenMode::IndexMayLag => archive,
        };
        let doubtful = self.archive().map(|known| known.doubtful_steps());
        let doubtful = doubtful.unwrap_or_else(|error| {
            tracing::warn!("the index in use cannot tell what it was made of: {error}");
            HashSet::new()
        });
        let archive = archive.with_doubtful_steps(&doubtful);
        fill_by(archive, copies(dir, options)?, index, options.mode, watch)
    }
}

/// The steps of which the old index says that not all could be read when the history was restored.
fn doubtful_steps(dir: &StoreDir) -> HashSet<[u8; 32]> {
    let read = || -> Result<_, StoreError> {
        let path = index_dirs::current(&dir.layout)?;
        if !path.exists() {
            return Ok(HashSet::new());
        }
        let history = History::new(Arc::new(look_into_index(&path, &dir.config)?));
        let archive = history.archive(vec![dir.local.as_ref()], &dir.keys, dir.filesystem)?;
        Ok(archive.doubtful_steps())
    };
    // Whatever is wrong with the old index is no reason not to make a new one.
    read().unwrap_or_else(|error| {
        tracing::warn!("the old index cannot tell what it was made of: {error}");
        HashSet::new()
    })
}

/// The same where the manifests here may be lost: then by the cloud's, and with a full scan even
/// without any.
fn fill_from_what_is_left(
    dir: &StoreDir,
    index: &Index,
    options: RebuildOptions,
    watch: &mut Watch<'_>,
) -> Result<Filled, StoreError> {
    let unusable = match Archive::open(dir.local.as_ref(), &dir.keys, dir.filesystem) {
        Ok(archive) => {
            let last = archive.snapshots().next_back().map(|last| last.snapshot);
            if last.is_some() && last >= newest_committed(dir) {
                let archive = archive.with_doubtful_steps(&doubtful_steps(dir));
                return fill_by(archive, copies(dir, options)?, index, options.mode, watch);
            }
            None
        }
        Err(error) if error.kind().is_of_object() => Some(error),
        Err(error) => return Err(error.into()),
    };
    let newest = newest_known(dir);
    if let Some(archive) = cloud_archive(dir) {
        let theirs = archive.snapshots().next_back().map(|last| last.snapshot);
        if theirs.is_some() && (newest.is_none() || theirs == newest) {
            tracing::warn!("the manifests here are not whole; going by the cloud's");
            let archive = archive.with_doubtful_steps(&doubtful_steps(dir));
            return fill_by(archive, copies(dir, options)?, index, options.mode, watch);
        }
    }
    let by_tables = options.mode != ScanMode::Full;
    match (unusable, newest) {
        // Tarballs may be what an interrupted first snapshot left: the status log says so. Where
        // even those are lost there is no way to tell.
        (None, None) if by_tables || has_status_logs(dir) => return Ok(Filled::default()),
        (Some(error), _) if by_tables => return Err(error.into()),
        (None, Some(newest)) if by_tables => {
            return Err(StoreError::Damaged(format!(
                "the manifest of snapshot {newest} is missing here, and the cloud does not end with \
                 it; copy it back, or see --full-scan"
            )));
        }
        _ => {}
    }
    tracing::warn!("there are no manifests that can be used; scanning all tarballs");
    let copies = copies(dir, options)?;
    let source = copies.first().ok_or_else(|| StoreError::Damaged("no tarballs".into()))?;
    let (keys, filesystem) = (&dir.keys, dir.filesystem);
    let (n_tarballs, damages) = rebuild_without_manifests(index, *source, keys, filesystem, watch)?;
    Ok(Filled { n_tarballs, damages })
}

/// The manifests of the cloud; `None` if there is none, or none that can be used.
fn cloud_archive(dir: &StoreDir) -> Option<Archive<'_>> {
    let opened = Archive::open(dir.cloud.as_ref()?.store.as_ref(), &dir.keys, dir.filesystem);
    // Of another signer it may be any history.
    let is_own = |archive: &Archive<'_>| archive.signer() == Some(dir.keys.signer());
    let opened = opened.inspect_err(|error| {
        tracing::warn!("the cloud's manifests cannot be used: {error}");
    });
    opened.ok().filter(is_own)
}

/// The stores that may have a tarball, in the order in which they are asked.
fn copies(dir: &StoreDir, options: RebuildOptions) -> Result<Vec<&dyn ObjectStore>, StoreError> {
    let local: &dyn ObjectStore = dir.local.as_ref();
    let cloud = dir.cloud.as_ref().map(|cloud| cloud.store.as_ref());
    let mut copies = match (cloud, options.from_cloud) {
        (None, true) => return Err(StoreError::Unusable("this store has no cloud".into())),
        (None, false) => vec![local],
        (Some(cloud), false) => vec![local, cloud],
        (Some(cloud), true) => vec![cloud, local],
    };
    copies.extend(dir.former_clouds.iter().map(AsRef::as_ref));
    Ok(copies)
}

fn fill_by<'a>(
    archive: Archive<'a>,
    copies: Vec<&'a dyn ObjectStore>,
    index: &Index,
    mode: ScanMode,
    watch: &mut Watch<'_>,
) -> Result<Filled, StoreError> {
    assert!(!copies.is_empty(), "tarballs are looked for somewhere");
    let n_tarballs = archive.snapshots().map(|summary| summary.n_tarballs).sum();
    let others: Vec<_> = copies.iter().rev().copied().collect();
    let has_others = others.len() > 1;
    let first_copy = archive.with_tarballs_in(copies);
    let filled = first_copy.rebuild_index(index, mode, watch);
    let archive = first_copy.with_tarballs_in(others);
    let damages = match filled {
        Err(error) if has_others && error.kind().is_of_object() => {
            tracing::warn!("{error}; reading the other copy");
            archive.rebuild_index(index, mode, watch)?
        }
        Ok(damages) if has_others && !damages.is_empty() => {
            let n = damages.len();
            tracing::warn!("{n} places of tarballs are damaged; reading the other copies as well");
            match archive.add_to_index(index, watch) {
                Ok(theirs) => {
                    // What one copy lacks the other one has added by now: only what is damaged in
                    // both is still missing.
                    let also = |one: &Damage| theirs.iter().any(|other| other.object == one.object);
                    let left: Vec<_> = damages.into_iter().filter(also).collect();
                    archive.mark_doubtful(index, &left)?;
                    left
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

/// The newest snapshot that this store knows of: from its old index, as far as that can be read,
/// and from its status logs.
fn newest_known(dir: &StoreDir) -> Option<SnapshotId> {
    // Whatever is wrong with the old index is no reason not to make a new one.
    let old = index_dirs::current(&dir.layout)
        .ok()
        .filter(|path| path.exists())
        .and_then(|path| look_into_index(&path, &dir.config).ok());
    old.as_ref().and_then(newest).max(newest_committed(dir))
}

/// The newest snapshot that a status log says was committed.
fn newest_committed(dir: &StoreDir) -> Option<SnapshotId> {
    let committed = SnapshotStatus::is_committed;
    let statuses = statuses(dir);
    statuses.iter().filter(|status| committed(status)).map(|s| s.header.snapshot).max()
}

fn has_status_logs(dir: &StoreDir) -> bool {
    !statuses(dir).is_empty()
}

/// The status logs; none if they cannot be read, because a rebuild is what helps then.
fn statuses(dir: &StoreDir) -> Vec<SnapshotStatus> {
    let read = status_book(dir).and_then(|book| Ok(book.all()?));
    read.unwrap_or_else(|error| {
        tracing::warn!("the status logs cannot be read: {error}");
        Vec::new()
    })
}

/// The newest snapshot that an index has.
fn newest(index: &Index) -> Option<SnapshotId> {
    index.applied().ok().flatten().map(|applied| applied.snapshot)
}
