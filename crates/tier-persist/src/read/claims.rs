//! The right to write: the claims on an archive, and what fences a store.
//!
//! Epochs are claimed one after another, each by one object with a known name. A writer puts its
//! manifest and *then* looks whether the epoch after its own was claimed. If not, every later claim
//! comes after the manifest, and its store, which looks for the newest manifest after it has
//! claimed, finds it: the manifest is a part of the history, and stays it. If so, the manifest may
//! or may not have been found, and what it commits does not count as safe. So what is safe once is
//! safe for good, and evicting it needs no question.
//!
//! **What can be told of a claim.** One that these keys open and whose signature fits counts,
//! whatever signed it, and so does one that is encrypted for other keys: it may be that of a store
//! which was restored with a recovery key. What is no claim at all counts only if there is a
//! manifest of its epoch or a later one, for a claim that its disk has damaged is still a claim;
//! otherwise any object under that name would stop the writer.

use tier_types::{
    Call, Created, Epoch, ErrorKind, HasKind, ObjectName, ObjectStore, PortError, SnapshotId,
    with_causes,
};

use crate::error::PersistError;
use crate::format::claim::{CLAIM_BYTES_MAX, Claim, WriterToken};
use crate::format::keys::Keys;
use crate::format::manifest::Manifest;
use crate::format::names::{self, FilesystemId, ObjectKind};
use crate::format::signed::SIGNED_BYTES_MAX;
use crate::read::small::{is_of_the_object, read_small};

/// Nothing claims so many epochs: a name with a higher number is no claim's.
const EPOCH_MAX: Epoch = Epoch::new(1 << 40);

/// The claims on one filesystem's archive in one store.
#[derive(Clone, Copy)]
pub struct Claims<'a> {
    store: &'a dyn ObjectStore,
    keys: &'a Keys,
    filesystem: FilesystemId,
}

/// Why a store does not write to its archive any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fenced {
    /// A later epoch was claimed.
    ByClaim {
        /// Which one.
        epoch: Epoch,
        /// The claim, if these keys open it.
        claim: Option<Claim>,
    },
    /// A manifest of this store's own epoch is not its own.
    ByManifest {
        /// The epoch.
        epoch: Epoch,
        /// The snapshot.
        snapshot: SnapshotId,
    },
}

impl std::fmt::Display for Fenced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ByClaim { epoch, claim: Some(claim) } => {
                let (machine, signer) = (&claim.machine, claim.signer.fingerprint());
                write!(f, "the archive was taken over by {machine} (epoch {epoch}, key {signer})")?;
            }
            Self::ByClaim { epoch, claim: None } => {
                write!(f, "the archive was taken over by another store (epoch {epoch})")?;
            }
            Self::ByManifest { epoch, snapshot } => write!(
                f,
                "another store wrote snapshot {snapshot} of epoch {epoch} to the archive: this \
                 store is a copy of it, or was put back to an earlier state"
            )?,
        }
        write!(
            f,
            "; this store uploads nothing any more. To go on with what is in it: tier takeover \
             --keep-local; to take what is in the archive: tier takeover --discard-local"
        )
    }
}

/// What follows an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AfterEpoch {
    /// The first epoch that has no claim.
    pub free: Epoch,
    /// The last one that has.
    pub fenced: Option<Fenced>,
}

/// What a claimed name holds.
enum Claimed {
    Free,
    By(Claim),
    ByOtherKeys,
    Garbage,
}

impl std::fmt::Debug for Claims<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claims").field("filesystem", &self.filesystem).finish_non_exhaustive()
    }
}

impl<'a> Claims<'a> {
    /// The claims in this store.
    pub fn new(store: &'a dyn ObjectStore, keys: &'a Keys, filesystem: FilesystemId) -> Self {
        Self { store, keys, filesystem }
    }

    /// The claim of an epoch, if it has one that these keys open.
    pub fn of_epoch(&self, call: &Call<'_>, epoch: Epoch) -> Result<Option<Claim>, PersistError> {
        match self.claimed(call, epoch)? {
            Claimed::By(claim) => Ok(Some(claim)),
            Claimed::Free | Claimed::ByOtherKeys | Claimed::Garbage => Ok(None),
        }
    }

    /// What follows an epoch: one request, as long as nothing does.
    pub fn after(&self, call: &Call<'_>, epoch: Epoch) -> Result<AfterEpoch, PersistError> {
        let mut after = AfterEpoch { free: epoch.next(), fenced: None };
        loop {
            let epoch = after.free;
            let claim = match self.claimed(call, epoch)? {
                Claimed::Free => return Ok(after),
                Claimed::By(claim) => Some(Some(claim)),
                Claimed::ByOtherKeys => Some(None),
                Claimed::Garbage => self.last_written(call, epoch)?.map(|_| None),
            };
            after.fenced = claim.map(|claim| Fenced::ByClaim { epoch, claim }).or(after.fenced);
            after.free = epoch.next();
            if after.free > EPOCH_MAX {
                let problem = "no epoch is left after it";
                return Err(PersistError::damaged(
                    names::claim_name(self.filesystem, epoch),
                    problem,
                ));
            }
        }
    }

    /// What keeps the writer of an epoch from writing, by all that can be found out: another
    /// store's claim on that epoch, a later claim, or a manifest of a later epoch whose claim is
    /// lost. It lists what came later.
    pub fn fenced(
        &self,
        call: &Call<'_>,
        epoch: Epoch,
        writer: Option<WriterToken>,
    ) -> Result<Option<Fenced>, PersistError> {
        if let Some(claim) = self.of_epoch(call, epoch)?
            && writer.is_some_and(|writer| claim.writer != writer)
        {
            return Ok(Some(Fenced::ByClaim { epoch, claim: Some(claim) }));
        }
        if let Some(fenced) = self.after(call, epoch)?.fenced {
            return Ok(Some(fenced));
        }
        // Each epoch is claimed before anything of it is written.
        let written = self.last_written(call, epoch.next())?;
        Ok(written.map(|epoch| Fenced::ByClaim { epoch, claim: None }))
    }

    /// Whether nothing has the name of this epoch's claim.
    pub fn is_free(&self, call: &Call<'_>, epoch: Epoch) -> Result<bool, PersistError> {
        Ok(matches!(self.claimed(call, epoch)?, Claimed::Free))
    }

    /// The last epoch that counts: the highest one that has a claim, or a manifest.
    pub fn newest_epoch(&self, call: &Call<'_>) -> Result<Option<Epoch>, PersistError> {
        let mut epochs = Vec::new();
        for name in self.names(call, &names::claims_prefix(self.filesystem))? {
            if let Some((_, ObjectKind::Claim(epoch))) = names::parse(&name)
                && epoch <= EPOCH_MAX
            {
                epochs.push(epoch);
            }
        }
        epochs.sort_unstable();
        let written = self.last_written(call, Epoch::new(0))?;
        // From the last one back: what is no claim is gone past.
        while let Some(epoch) = epochs.pop().filter(|epoch| Some(*epoch) > written) {
            match self.claimed(call, epoch)? {
                Claimed::By(_) | Claimed::ByOtherKeys => return Ok(Some(epoch)),
                Claimed::Free => {}
                Claimed::Garbage => {
                    tracing::warn!(%epoch, "an object that is no claim has the name of one");
                }
            }
        }
        Ok(written)
    }

    /// Claims an epoch. An error of kind `Conflict` says that another store has it; one that has it
    /// already under the same token has it still.
    pub fn create(&self, call: &Call<'_>, claim: &Claim) -> Result<(), PersistError> {
        let bytes = claim.to_object(self.keys)?;
        let created = self.store.create(call, &claim.name(), &bytes.as_slice());
        // Also of a creation: what counts is what the store says from now on.
        let is_new = created.map_err(PersistError::Store)? == Created::New;
        match self.claimed(call, claim.epoch)? {
            Claimed::By(found) if found.writer == claim.writer => {
                tracing::info!(epoch = %claim.epoch, is_new, "epoch claimed");
                Ok(())
            }
            Claimed::By(found) => Err(PersistError::Claimed {
                epoch: claim.epoch,
                by: format!("{} (key {})", found.machine, found.signer.fingerprint()),
            }),
            // A store may show late what it has: whose it is can be told by the next attempt.
            Claimed::Free => {
                let problem = format!("{} is not there yet: try again", claim.name());
                Err(PersistError::Store(PortError::new(ErrorKind::Away, problem)))
            }
            Claimed::ByOtherKeys | Claimed::Garbage => {
                Err(PersistError::Claimed { epoch: claim.epoch, by: "another store".into() })
            }
        }
    }

    /// Whether a stored object is a manifest at all, by whatever store.
    pub fn is_manifest(&self, call: &Call<'_>, name: &ObjectName) -> Result<bool, PersistError> {
        let bytes = read_small(call, self.store, name, SIGNED_BYTES_MAX);
        match bytes.and_then(|bytes| Manifest::from_object(&bytes, name, self.keys)) {
            Ok(_) => Ok(true),
            // What is encrypted for other keys may be one.
            Err(error) if error.kind() == ErrorKind::WrongKey => Ok(true),
            Err(error) if is_of_the_object(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn claimed(&self, call: &Call<'_>, epoch: Epoch) -> Result<Claimed, PersistError> {
        let name = names::claim_name(self.filesystem, epoch);
        let read = read_small(call, self.store, &name, CLAIM_BYTES_MAX);
        let opened = read.and_then(|bytes| Claim::from_object(&bytes, &name, self.keys));
        match opened {
            Ok(claim) => Ok(Claimed::By(claim)),
            Err(error) => match error.kind() {
                ErrorKind::Missing => Ok(Claimed::Free),
                ErrorKind::WrongKey => Ok(Claimed::ByOtherKeys),
                ErrorKind::Damaged => {
                    tracing::debug!(%name, error = with_causes(&error), "this is no claim");
                    Ok(Claimed::Garbage)
                }
                ErrorKind::Busy
                | ErrorKind::Away
                | ErrorKind::Throttled { .. }
                | ErrorKind::Frozen { .. }
                | ErrorKind::Denied
                | ErrorKind::Conflict
                | ErrorKind::NoSpace
                | ErrorKind::Cancelled
                | ErrorKind::Failed => Err(error),
            },
        }
    }

    /// The last epoch, of this one and later ones, of which a manifest can be read.
    fn last_written(&self, call: &Call<'_>, first: Epoch) -> Result<Option<Epoch>, PersistError> {
        // No snapshot has this number, so that all of the epoch come after it.
        let before = names::manifest_name(self.filesystem, first, SnapshotId::new(0));
        let prefix = names::manifests_prefix(self.filesystem);
        let later = self.store.names_after(call, &prefix, Some(&before));
        // In the order of their epochs, as far as these have as many digits.
        for name in later.map_err(PersistError::Store)?.iter().rev() {
            if let Some((_, ObjectKind::Manifest { epoch, .. })) = names::parse(name)
                && (first..=EPOCH_MAX).contains(&epoch)
                && self.is_manifest(call, name)?
            {
                return Ok(Some(epoch));
            }
        }
        Ok(None)
    }

    fn names(&self, call: &Call<'_>, prefix: &str) -> Result<Vec<ObjectName>, PersistError> {
        self.store.names(call, prefix).map_err(PersistError::Store)
    }
}

#[cfg(test)]
mod tests {
    use tier_testkit::MemoryStore;
    use tier_types::{StoreLayer, Timestamp};

    use super::*;
    use crate::format::claim::WriterToken;

    const CALL: Call<'static> = Call::bulk();
    const FILESYSTEM: FilesystemId = FilesystemId::from_bytes([1; 16]);

    fn claim(keys: &Keys, epoch: u64, machine: &str) -> Claim {
        Claim {
            filesystem: FILESYSTEM,
            epoch: Epoch::new(epoch),
            writer: WriterToken::random().unwrap(),
            machine: machine.into(),
            created: Timestamp { seconds: 0, nanos: 0 },
            signer: keys.signer(),
        }
    }

    fn garbage(store: &MemoryStore, epoch: u64) -> ObjectName {
        let name = names::claim_name(FILESYSTEM, Epoch::new(epoch));
        store.put(&CALL, &name, &&b"garbage"[..]).unwrap();
        name
    }

    #[test]
    fn an_epoch_has_one_owner_also_if_an_acknowledgement_was_lost() {
        let (store, keys) = (MemoryStore::default(), Keys::generate().unwrap());
        let claims = Claims::new(&store, &keys, FILESYSTEM);
        assert_eq!(claims.newest_epoch(&CALL).unwrap(), None);
        let first = claim(&keys, 1, "one");
        claims.create(&CALL, &first).unwrap();
        claims.create(&CALL, &first).unwrap();
        let error = claims.create(&CALL, &claim(&keys, 1, "two")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("one"), "{error}");
        assert_eq!(claims.of_epoch(&CALL, Epoch::new(1)).unwrap(), Some(first));
        assert_eq!(claims.newest_epoch(&CALL).unwrap(), Some(Epoch::new(1)));
    }

    /// Shows nothing of what it has.
    struct Late(MemoryStore);

    impl StoreLayer for Late {
        fn inner(&self) -> &dyn ObjectStore {
            &self.0
        }

        fn stream(
            &self,
            _: &Call<'_>,
            name: &ObjectName,
            _: u64,
            _: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
        ) -> Result<(), PortError> {
            Err(PortError::new(ErrorKind::Missing, name.to_string()))
        }
    }

    #[test]
    fn a_claim_that_a_store_does_not_show_yet_is_no_other_stores() {
        let keys = Keys::generate().unwrap();
        let late = Late(MemoryStore::default());
        let own = claim(&keys, 1, "one");
        let error = Claims::new(&late, &keys, FILESYSTEM).create(&CALL, &own).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Away, "{error}");
        Claims::new(&late.0, &keys, FILESYSTEM).create(&CALL, &own).unwrap();
    }

    #[test]
    fn another_claim_on_the_own_epoch_fences() {
        let (store, keys) = (MemoryStore::default(), Keys::generate().unwrap());
        let claims = Claims::new(&store, &keys, FILESYSTEM);
        let (epoch, first) = (Epoch::new(1), claim(&keys, 1, "one"));
        claims.create(&CALL, &first).unwrap();
        assert_eq!(claims.fenced(&CALL, epoch, Some(first.writer)).unwrap(), None);
        let other = claim(&keys, 1, "two").writer;
        let expected = Fenced::ByClaim { epoch, claim: Some(first) };
        assert_eq!(claims.fenced(&CALL, epoch, Some(other)).unwrap(), Some(expected));
    }

    #[test]
    fn a_later_claim_fences_whatever_its_keys_are() {
        let (store, keys) = (MemoryStore::default(), Keys::generate().unwrap());
        let claims = Claims::new(&store, &keys, FILESYSTEM);
        claims.create(&CALL, &claim(&keys, 1, "one")).unwrap();
        let nothing = AfterEpoch { free: Epoch::new(2), fenced: None };
        assert_eq!(claims.after(&CALL, Epoch::new(1)).unwrap(), nothing);
        let others = Keys::generate().unwrap();
        let second = claim(&others, 2, "two");
        Claims::new(&store, &others, FILESYSTEM).create(&CALL, &second).unwrap();
        let after = claims.after(&CALL, Epoch::new(1)).unwrap();
        let fenced = Fenced::ByClaim { epoch: Epoch::new(2), claim: None };
        assert_eq!(after, AfterEpoch { free: Epoch::new(3), fenced: Some(fenced) });
        let third = claim(&keys, 3, "three");
        claims.create(&CALL, &third).unwrap();
        let fenced = claims.after(&CALL, Epoch::new(1)).unwrap().fenced.unwrap();
        assert!(fenced.to_string().contains("three (epoch 3"), "{fenced}");
    }

    #[test]
    fn garbage_under_the_name_of_a_claim_stops_nothing_and_is_not_claimed() {
        let (store, keys) = (MemoryStore::default(), Keys::generate().unwrap());
        let claims = Claims::new(&store, &keys, FILESYSTEM);
        claims.create(&CALL, &claim(&keys, 1, "one")).unwrap();
        garbage(&store, 2);
        garbage(&store, 99);
        let after = claims.after(&CALL, Epoch::new(1)).unwrap();
        assert_eq!(after, AfterEpoch { free: Epoch::new(3), fenced: None });
        assert_eq!(claims.newest_epoch(&CALL).unwrap(), Some(Epoch::new(1)));
        let error = claims.create(&CALL, &claim(&keys, 2, "two")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
}
