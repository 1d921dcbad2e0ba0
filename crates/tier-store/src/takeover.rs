//! Taking an archive over: a follower, or a store that was fenced, becomes the writer.
//!
//! The order decides that nothing that counts is lost. First the next epoch is claimed: from then
//! on a snapshot of the former writer is safe for it only if its manifest was there before. *Then*
//! the newest manifest is looked for, which includes every such snapshot; the store is brought up
//! to it, and continues it. The token of the claim is written down here before the claim is made,
//! so that a takeover that was interrupted goes on with its own epoch.
//!
//! **What is here.** A follower has changed nothing, and is made anew from the archive if that has
//! gone on. A store that was the writer may hold what the archive lacks; the operator says whether
//! the history goes on from what is here ([`LocalState::Keep`]) or from the archive
//! ([`LocalState::Discard`]). Kept snapshots keep their numbers; one whose number another store has
//! used in the same epoch, as two copies of one store do, never counted as safe, and is persisted
//! again.
//!
//! **A store that is made anew** is built in a directory inside of it ([`Layout::rebuilt`]) and
//! takes the place of the old one when its settings, the last file, are there: entry by entry, the
//! settings last, so that a crash half way is finished when the store is opened next.

use std::fs;
use std::path::PathBuf;

use tier_agent::CloudPort;
use tier_persist::{Archive, Claims, Damage, UnreadManifest, WriterToken};
use tier_types::{Call, Epoch, ErrorKind, HasKind, ObjectStore, SnapshotId, Xid};

use crate::cloud::{Abilities, Ability};
use crate::config::Config;
use crate::dir::StoreDir;
use crate::kept::{check_can_go_on, first_conflict, forget, make_index_fit};
use crate::rebuilt::remove_tree;
use crate::restore::{Floors, RestoreTarget, Signers, choose_head, fill_store, newer, until};
use crate::{Layout, StoreError, durable, ownership};

/// What is done with what only this store has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LocalState {
    /// The history goes on from it.
    Keep,
    /// It is given up, and the store becomes what the archive has.
    Discard,
}

/// How to take over.
#[derive(Clone, Debug, Default)]
pub struct TakeoverOptions {
    /// Goes back to this snapshot, and not on from the newest one.
    pub at: Option<SnapshotId>,
    /// For a store that was the writer.
    pub local: Option<LocalState>,
    /// The fingerprint of another signer that is believed.
    pub signer: Option<String>,
    /// Also over a store that does not honour conditions, where another writer cannot be ruled out.
    pub force: bool,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Takeover {
    /// This store was the writer, and is.
    WasWriter(Epoch),
    /// This store has a new epoch.
    Done {
        /// Which one.
        epoch: Epoch,
        /// The snapshot that its history continues.
        continues: Option<SnapshotId>,
        /// Whether the filesystem was made anew.
        is_new: bool,
        /// What could not be read of the archive that it continues.
        damages: Vec<Damage>,
    },
}

/// Takes the archive of a store over. Before it is opened again, `target` must be dropped: it may
/// hold a filesystem that is still to be moved to its place.
pub fn takeover(
    dir: &StoreDir,
    options: &TakeoverOptions,
    target: &mut dyn RestoreTarget,
    progress: &mut dyn FnMut(u64),
) -> Result<Takeover, StoreError> {
    let port = dir.cloud.as_ref().ok_or_else(|| {
        StoreError::Unusable("this store has no cloud, and nothing to take over".into())
    })?;
    let cloud = port.store.as_ref();
    let claims = Claims::new(cloud, &dir.keys, dir.filesystem);
    // A crash came between the settings and the end of the last takeover, which is done.
    if dir.writer.is_some_and(|writer| {
        let own = (Epoch::new(dir.config.epoch), writer);
        read_pending(dir).is_ok_and(|pending| pending == Some(own))
    }) {
        forget_pending(dir)?;
    }
    let local = match (dir.writer, options.local) {
        // A follower has nothing of its own.
        (None, None | Some(LocalState::Discard)) => LocalState::Discard,
        (None, Some(LocalState::Keep)) => {
            let message = "a follower has nothing of its own that could be kept";
            return Err(StoreError::Unusable(message.into()));
        }
        (Some(_), Some(local)) => local,
        (Some(writer), None) => return is_writer(dir, claims, writer),
    };
    if local == LocalState::Keep && options.at.is_some() {
        let message = "what is here is kept as it is, and not as it was in a snapshot";
        return Err(StoreError::Unusable(message.into()));
    }
    if !options.force {
        check_conditions(dir, cloud)?;
    }
    let signers = Signers::new(&dir.keys, options.signer.as_deref());
    if local == LocalState::Keep {
        check_can_go_on(dir, target)?;
    }
    // All that can be known is found out before anything is claimed: a claim fences the writer. It
    // is looked at again afterwards.
    let look = || -> Result<Plan<'_>, StoreError> {
        match local {
            LocalState::Keep => plan_to_keep(dir, claims, cloud, &signers),
            LocalState::Discard => plan_to_adopt(dir, cloud, &signers, options),
        }
    };
    drop(look()?);
    let (epoch, writer) = claim(dir, claims, cloud, &signers)?;
    let owner = NewOwner { epoch, writer };
    // Only now: what the former writer may count as safe is in this list.
    let done = look().and_then(|plan| match plan {
        Plan::Keep { archive, n_kept, floors } => keep(dir, &archive, n_kept, owner, floors),
        Plan::Adopt { archive, floors, unread } => {
            let adopt = Adopt { archive, floors, unread, owner };
            adopt.carry_out(dir, cloud, target, progress)
        }
    });
    let done = done.inspect_err(|_| {
        tracing::error!(%epoch, "the epoch is claimed; repeat the takeover to go on with it");
    })?;
    tracing::info!(%epoch, ?done, "archive taken over");
    Ok(done)
}

/// What a takeover is going to do.
enum Plan<'a> {
    Keep { archive: Archive<'a>, n_kept: usize, floors: Floors },
    Adopt { archive: Archive<'a>, floors: Floors, unread: Vec<UnreadManifest> },
}

/// What makes a store the writer.
#[derive(Clone, Copy)]
struct NewOwner {
    epoch: Epoch,
    writer: WriterToken,
}

impl NewOwner {
    fn settings(self, config: &Config, floors: Floors) -> Config {
        assert!(self.epoch.get() > config.epoch, "epochs are claimed one after another");
        Config {
            epoch: self.epoch.get(),
            writer: Some(self.writer.to_string()),
            xid_floor: floors.xid.get(),
            snapshot_floor: floors.snapshot.get(),
            ..config.clone()
        }
    }
}

/// Without a word on what is here, only a store that was not fenced can be told what it is.
fn is_writer(
    dir: &StoreDir,
    claims: Claims<'_>,
    writer: WriterToken,
) -> Result<Takeover, StoreError> {
    let (call, epoch) = (Call::bulk(), Epoch::new(dir.config.epoch));
    if let Some(fenced) = claims.fenced(&call, epoch, Some(writer))? {
        return Err(StoreError::Unusable(fenced.to_string()));
    }
    let own = claims.of_epoch(&call, epoch)?.is_some_and(|claim| claim.writer == writer);
    if own && !pending(dir).exists() {
        return Ok(Takeover::WasWriter(epoch));
    }
    Err(StoreError::Unusable(
        "say whether the history is to go on from what is in this store (--keep-local) or from \
         what is in the archive (--discard-local)"
            .into(),
    ))
}

/// An error over a store that creates what is there already.
fn check_conditions(dir: &StoreDir, cloud: &dyn ObjectStore) -> Result<(), StoreError> {
    let abilities = Abilities::find_out(dir.filesystem, cloud)?;
    if let Some(place) = dir.cloud.as_ref().and_then(CloudPort::place) {
        abilities.remember(&dir.layout, &place)?;
    }
    if abilities.has(Ability::ConditionalCreation) {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "{} does not honour conditions: another store may take over at the same moment, and neither \
         would be told. If that can be ruled out, say --force",
        cloud.url()
    )))
}

/// Claims the next epoch, or finds that this store has done so before.
fn claim(
    dir: &StoreDir,
    claims: Claims<'_>,
    cloud: &dyn ObjectStore,
    signers: &Signers<'_>,
) -> Result<(Epoch, WriterToken), StoreError> {
    let call = Call::bulk();
    let pending_claim = read_pending(dir)?;
    if let Some((epoch, writer)) = pending_claim {
        let own = claims.of_epoch(&call, epoch)?.is_some_and(|claim| claim.writer == writer);
        if own && claims.fenced(&call, epoch, Some(writer))?.is_none() {
            tracing::info!(%epoch, "going on with a takeover that was interrupted");
            return Ok((epoch, writer));
        }
    }
    // Also of an epoch whose claim is lost, and that has manifests.
    let counts = |signer| signers.count(signer);
    let heads = Archive::heads(cloud, &dir.keys, dir.filesystem, &counts)?.heads;
    let counting = heads.iter().filter(|head| counts(head.signer));
    let written = counting.map(|head| head.summary.epoch).max();
    let known = claims.newest_epoch(&call)?.max(written);
    let newest = known.max(Some(Epoch::new(dir.config.epoch))).unwrap_or(Epoch::new(0));
    let epoch = claims.after(&call, newest)?.free;
    assert!(epoch > newest, "an epoch that was claimed is not claimed again");
    let writer = WriterToken::random()?;
    durable::replace(&pending(dir), format!("epoch {epoch}\nwriter {writer}\n").as_bytes())?;
    let claim = ownership::claim(&dir.keys, dir.filesystem, epoch, writer, dir.clock.as_ref());
    claims.create(&call, &claim).or_else(|error| {
        // Another store has it: nothing was begun here that would be gone on with, unless an
        // earlier takeover was interrupted.
        if error.kind() == ErrorKind::Conflict && pending_claim.is_none() {
            forget_pending(dir)?;
        }
        Err(StoreError::from(error))
    })?;
    Ok((epoch, writer))
}

fn pending(dir: &StoreDir) -> PathBuf {
    dir.layout.pending_claim()
}

fn read_pending(dir: &StoreDir) -> Result<Option<(Epoch, WriterToken)>, StoreError> {
    let path = pending(dir);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(StoreError::io("read", &path))?,
    };
    let parse = || {
        let (epoch, writer) = text.strip_prefix("epoch ")?.split_once("\nwriter ")?;
        let writer = WriterToken::parse(writer.strip_suffix('\n')?)?;
        Some((Epoch::new(epoch.parse().ok()?), writer))
    };
    // Another claim is made then.
    Ok(parse())
}

fn forget_pending(dir: &StoreDir) -> Result<(), StoreError> {
    let path = pending(dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", &path)(error))
        }
        _ => durable::sync_directory(dir.layout.root()),
    }
}

/// Looks at the history that a follower, or a store that gives up its own, goes on from.
fn plan_to_adopt<'a>(
    dir: &'a StoreDir,
    cloud: &'a dyn ObjectStore,
    signers: &Signers<'_>,
    options: &TakeoverOptions,
) -> Result<Plan<'a>, StoreError> {
    let counts = |signer| signers.count(signer);
    let heads = Archive::heads(cloud, &dir.keys, dir.filesystem, &counts)?;
    let head = choose_head(&heads.heads, signers, None)?;
    // Each epoch is claimed before anything of it is written: what is beyond the last claim is
    // none.
    let claims = Claims::new(cloud, &dir.keys, dir.filesystem);
    let claimed = claims.newest_epoch(&Call::bulk())?.max(Some(head.summary.epoch));
    let mut newer = newer(&heads, head);
    newer.retain(|manifest| Some(manifest.epoch) <= claimed);
    // What another signer wrote, or what cannot be read, may be what its store counts as safe.
    if options.at.is_none() && options.signer.is_none() && !newer.is_empty() {
        let mut text = String::from("there may be a newer history than the one that would go on:");
        for UnreadManifest { damage, .. } in &newer {
            text.push_str(&format!("\n  {}: {}", damage.object, damage.problem));
        }
        text.push_str(
            "\nIf it is to be left, name the snapshot to go on from (--at); if its signer is to be \
             believed, name that (--signer)",
        );
        return Err(StoreError::Unusable(text));
    }
    let (archive, unread) = Archive::open_past_holes(cloud, &dir.keys, dir.filesystem, head)?;
    let archive = until(archive, options.at)?;
    let here = Archive::newest(dir.local.as_ref(), &dir.keys, dir.filesystem).ok().flatten();
    let (xid, snapshot) =
        here.map_or((Xid::new(0), SnapshotId::new(0)), |newest| (newest.last_xid, newest.snapshot));
    let floors = Floors::behind(&heads, signers)
        .and_behind(xid, snapshot)
        .and_behind(Xid::new(dir.config.xid_floor), SnapshotId::new(dir.config.snapshot_floor));
    Ok(Plan::Adopt { archive, floors, unread })
}

/// A store that becomes what the archive has.
struct Adopt<'a> {
    archive: Archive<'a>,
    floors: Floors,
    unread: Vec<UnreadManifest>,
    owner: NewOwner,
}

impl Adopt<'_> {
    fn carry_out(
        self,
        dir: &StoreDir,
        cloud: &dyn ObjectStore,
        target: &mut dyn RestoreTarget,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Takeover, StoreError> {
        let Self { archive, floors, unread, owner } = self;
        let config = owner.settings(&dir.config, floors);
        assert!(floors.xid.get() >= dir.config.xid_floor, "a floor is never lowered");
        let continues = archive.snapshots().next_back().map(|last| last.snapshot);
        let mut damages: Vec<_> = unread.into_iter().map(|manifest| manifest.damage).collect();
        // A follower that is up to date stays as it is, if its filesystem gives out no number
        // twice.
        let here = Archive::open(dir.local.as_ref(), &dir.keys, dir.filesystem);
        let is_here = dir.writer.is_none()
            && dir.config.xid_floor == floors.xid.get()
            && here.is_ok_and(|here| here.newest_digest() == archive.newest_digest());
        if is_here {
            config.write(&dir.layout)?;
            forget_pending(dir)?;
        } else {
            let rebuilt = Layout::new(&dir.layout.rebuilt());
            remove_tree(rebuilt.root())?;
            durable::make_directory(rebuilt.root())?;
            let report = fill_store(&rebuilt, &archive, cloud, &config, target, progress)?;
            damages.extend(report.damages);
            // From here on the new one is whole, and takes its place now or when the store is
            // opened.
            config.write(&rebuilt)?;
        }
        Ok(Takeover::Done { epoch: owner.epoch, continues, is_new: !is_here, damages })
    }
}

/// Looks at what is here and how much of it can be uploaded.
fn plan_to_keep<'a>(
    dir: &'a StoreDir,
    claims: Claims<'_>,
    cloud: &dyn ObjectStore,
    signers: &Signers<'_>,
) -> Result<Plan<'a>, StoreError> {
    let archive = Archive::open(dir.local.as_ref(), &dir.keys, dir.filesystem)?;
    let n_kept = first_conflict(dir, &archive, claims, cloud)?;
    // Numbers that either history has used are used up. Transactions of this filesystem go on.
    let heads = Archive::heads(cloud, &dir.keys, dir.filesystem, &|signer| signers.count(signer))?;
    let last = archive.snapshots().next_back().map(|last| last.snapshot).max(heads.last_snapshot);
    let snapshot = last.unwrap_or(SnapshotId::new(0));
    let floors = Floors { xid: Xid::new(dir.config.xid_floor), snapshot };
    Ok(Plan::Keep { archive, n_kept, floors })
}

/// The history goes on from what is here.
fn keep(
    dir: &StoreDir,
    archive: &Archive<'_>,
    n_kept: usize,
    owner: NewOwner,
    floors: Floors,
) -> Result<Takeover, StoreError> {
    let snapshots: Vec<_> = archive.snapshots().cloned().collect();
    let (kept, dropped) = snapshots.split_at(n_kept);
    assert!(kept.iter().all(|s| s.snapshot <= floors.snapshot), "no number is used twice");
    let continues = kept.last().map(|last| last.snapshot);
    // First the index, which may not come about: by then nothing is forgotten.
    let damages = make_index_fit(dir, continues)?;
    forget(dir, archive, dropped)?;
    owner.settings(&dir.config, floors).write(&dir.layout)?;
    forget_pending(dir)?;
    Ok(Takeover::Done { epoch: owner.epoch, continues, is_new: false, damages })
}
