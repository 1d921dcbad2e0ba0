//! Rebuilding: an index from the tarballs alone, also while another one is in use.
//!
//! An index is derived and disposable. When it is lost, damaged or doubted, it is made again from
//! the tarballs, in one of four ways, from the fastest to the most thorough:
//!
//! 1. **By the newest checkpoint** ([`ScanMode::Checkpoint`]), and by tables behind it: it costs
//!    what is live, and not what ever was. A checkpoint that is damaged is gone past.
//! 2. **By tables** ([`ScanMode::Tables`]): the manifests say which tarballs are committed, and
//!    their tables of contents what is in them. It reads about a hundredth of the bytes. Damage is
//!    an error, because an index that silently lacks a part would let the evicter trust what is not
//!    there, and a recall miss what is.
//! 3. **By members** ([`ScanMode::Full`]): every frame is read, decrypted, decompressed and parsed.
//!    What is damaged is listed, and scanning goes on behind it; what the damaged frames held is
//!    taken from the table of contents if that can be read. So a rebuild says in passing whether
//!    all data is whole, and an index of a damaged archive knows all that is left of it. Another
//!    copy of the tarballs (the cloud's) can be added afterwards ([`Archive::add_to_index`]): where
//!    both have an entry they agree, and where one has none the other's counts.
//! 4. **Without manifests** ([`rebuild_without_manifests`]): every tarball in the store, each by
//!    what it says itself. That is the last resort. What is lost with the manifests is which
//!    tarballs were committed, and which histories were abandoned: a tarball of an attempt that a
//!    crash cut short, or of a writer that was replaced, counts like any other. The index then does
//!    not say that it includes any manifest.
//!
//! **While an index is in use** it is not touched. The new one is filled in a directory of its own,
//! from the archive as it was opened, while recalls go on with the old one. Snapshots may be
//! committed meanwhile, and go into the old index alone. So the new one [catches
//! up](Archive::catch_up) twice before it takes the old one's place: once without holding anything
//! up, and once more while the caller holds the old index's writer, which the next commit waits
//! for; then nothing can come between that and the exchange. The exchange refuses an index that
//! includes fewer manifests than the one that it replaces. It is one step for every reader: a
//! recall stays with the index that it began with, and what a fetcher keeps of tarballs is told
//! apart by the index's generation. A crash before the exchange leaves the old index and a
//! directory to be removed; after it, the new one. There is never none, and never a mixture of two.
//!
//! **Why the result is the same.** All of these ways feed the same code as a live snapshot does
//! ([`crate::derive::apply`]), in which the order of what comes does not matter. Tests compare the
//! dumps of all of them with the live index's, byte for byte.

use std::collections::HashSet;
use std::sync::Arc;

use tier_index::{Index, TarballId};
use tier_types::{ErrorKind, ObjectName, ObjectStore, PortError, SnapshotId};

use crate::damage::Damage;
use crate::derive::apply::{Apply, Input, ScanMode, listed, same_chunk_bytes, set_applied};
use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::names::{self, FilesystemId, ObjectKind};
use crate::format::tarball::row::TarballRow;
use crate::progress::Watch;
use crate::read::chain::Archive;
use crate::read::link::ChainLink;
use crate::read::tarball_reader::TarballReader;
use crate::read::tarball_source::TarballSource;

impl Archive<'_> {
    /// Fills an empty index from all snapshots; `watch` hears the length of each tarball. A full
    /// scan goes past what is damaged or missing, and returns it; by tables, damage is an error.
    pub fn rebuild_index(
        &self,
        index: &Index,
        mode: ScanMode,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        tracing::info!(n_snapshots = self.links().len(), ?mode, "rebuilding the index");
        self.apply_from(0, &mut index.writer(), mode, watch)
    }

    /// Says of each step in an index that was filled from several copies whether not all of it
    /// could be read: that is so where there is damage left.
    pub fn mark_doubtful(&self, index: &Index, left: &[Damage]) -> Result<(), PersistError> {
        let names = left.iter().filter_map(|damage| ObjectName::new(damage.object.as_str()));
        let damaged: HashSet<_> = names.filter_map(|name| names::step_of_data(&name)).collect();
        let mut writer = index.writer();
        for link in self.links() {
            let number = (link.summary.epoch, link.summary.snapshot);
            let is_doubtful = link.is_doubtful || damaged.contains(&number);
            set_applied(&mut writer, &ChainLink { is_doubtful, ..ChainLink::clone(link) })?;
        }
        Ok(writer.flush()?)
    }

    /// The steps of which not all could be read when the history was restored, by the digests of
    /// their manifests: only an index knows them.
    pub fn doubtful_steps(&self) -> HashSet<[u8; 32]> {
        let doubtful = self.links().iter().filter(|link| link.is_doubtful);
        doubtful.map(|link| link.reference.digest).collect()
    }

    /// The same history, with these steps as doubtful.
    #[must_use]
    pub fn with_doubtful_steps(mut self, steps: &HashSet<[u8; 32]>) -> Self {
        for link in self.links_mut() {
            if steps.contains(&link.reference.digest) && !link.is_doubtful {
                *link = Arc::new(ChainLink { is_doubtful: true, ..ChainLink::clone(link) });
            }
        }
        self
    }

    /// Takes the contents of a snapshot's tarballs into the index again, but for those that are
    /// lost: copies have some again that were.
    pub fn take_in_again(
        &self,
        index: &Index,
        snapshot: SnapshotId,
        is_lost: &dyn Fn(&ObjectName) -> bool,
    ) -> Result<(), PersistError> {
        let link = self.link(snapshot)?;
        let (epoch, filesystem) = (link.summary.epoch, self.filesystem());
        let apply = Apply { source: self.tarballs(), mode: ScanMode::Tables };
        let mut writer = index.writer();
        if let Some(manifest) = self.manifest_past_damage(link, &mut Vec::new())? {
            let left = manifest.tarballs.iter().filter(|t| !is_lost(&t.object_name(filesystem)));
            let left: Vec<_> = left.map(Input::Listed).collect();
            apply.tarballs(&mut writer, left, &mut Watch::default())?;
        } else {
            let rows = index.tarball_rows(&TarballId::of_snapshot(epoch, snapshot), usize::MAX)?;
            let rows = rows.iter().filter_map(|(_, bytes)| TarballRow::from_bytes(bytes));
            for row in rows.filter(|row| !is_lost(&row.object_name(filesystem))) {
                let input = Input::Recovered(&row);
                let damages = self.scan_copies(&mut writer, input, &mut Watch::default())?;
                if let Some(Damage { object, problem, .. }) = damages.into_iter().next() {
                    let problem = format!("{object}: {problem}");
                    return Err(PersistError::Store(PortError::new(ErrorKind::Damaged, problem)));
                }
            }
        }
        Ok(writer.flush()?)
    }

    /// Adds what can be read of all members to an index that was filled from another copy of these
    /// tarballs, and returns what is damaged in this one. What the index says it includes stays.
    pub fn add_to_index(
        &self,
        index: &Index,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Damage>, PersistError> {
        let mut writer = index.writer();
        let mut damages = Vec::new();
        let apply = Apply { source: self.tarballs(), mode: ScanMode::Full };
        // No manifest is recorded as applied: the index that is added to says what it includes.
        for link in self.links().iter().filter(|link| !link.is_lost()) {
            same_chunk_bytes(writer.chunk_bytes(), link.chunk_bytes)?;
            if let Some(manifest) = self.manifest_past_damage(link, &mut damages)? {
                damages.extend(apply.tarballs(&mut writer, listed(&manifest), watch)?);
            }
        }
        writer.flush()?;
        Ok(damages)
    }
}

/// The emergency: fills an empty index from tarballs alone, because the manifests are lost.
/// Returns how many tarballs there were, and what is damaged.
pub fn rebuild_without_manifests(
    index: &Index,
    store: &dyn ObjectStore,
    keys: &Keys,
    filesystem: FilesystemId,
    watch: &mut Watch<'_>,
) -> Result<(u64, Vec<Damage>), PersistError> {
    let (mut n_tarballs, mut damages) = (0, Vec::new());
    let mut writer = index.writer();
    let source = TarballSource { stores: &[store], keys, filesystem };
    let apply = Apply { source, mode: ScanMode::Full };
    let names = store.names(&watch.call(), &names::data_prefix(filesystem));
    let mut numbers = FreeNumbers::default();
    // The order of names does not matter: the index settles everything by xid.
    for name in names.map_err(PersistError::Store)? {
        if let Some((_, ObjectKind::Tarball(tarball))) = names::parse(&name) {
            // Also if it cannot be read: the caller compares what is damaged with all that there
            // were.
            n_tarballs += 1;
            let id = numbers.take(tarball.id)?;
            match TarballReader::recovered_row(store, &name, tarball, id, keys) {
                Ok(row) => {
                    let input = [Input::Recovered(&row)];
                    damages.extend(apply.tarballs(&mut writer, input, watch)?);
                }
                Err(error) => damages.push(Damage::of(&name, error)?),
            }
        }
    }
    // No manifest is noted as applied: which tarballs were committed is what was lost with them.
    writer.flush()?;
    Ok((n_tarballs, damages))
}

/// Keys of the index for tarballs of which several may have one number: of an attempt that was cut
/// short and of the one that was committed, or of two copies of a store.
#[derive(Default)]
struct FreeNumbers(HashSet<TarballId>);

impl FreeNumbers {
    /// This number if it is free, or the next part that is.
    fn take(&mut self, mut id: TarballId) -> Result<TarballId, PersistError> {
        while !self.0.insert(id) {
            let problem = "there are too many tarballs of this number";
            let next = id.part.checked_add(1);
            id.part = next.ok_or_else(|| PersistError::damaged(id, problem))?;
        }
        Ok(id)
    }
}
