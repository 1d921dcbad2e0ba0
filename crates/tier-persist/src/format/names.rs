//! Object names: filesystem, kind, epoch, snapshot and part of each object of an archive.
//!
//! `FILESYSTEM/claims/eEPOCH.claim`, `FILESYSTEM/manifests/eEPOCH-sSNAPSHOT.manifest` and
//! `FILESYSTEM/data/eEPOCH/sSNAPSHOT-pPART-TOKEN.tar.zst[.age]`, with other endings for what is no
//! tarball (`docs/formats/cloud.md`). Claims and manifests have prefixes of their own, so that they
//! are listed without the data, which are many more. Their names are known beforehand, and are
//! given once: what creates them learns whether something else did. The names of data have a random
//! token, so that no name is ever used for two contents, also by two attempts at one snapshot or by
//! two copies of one store. Numbers have leading zeros, so that a listing in order of names is one
//! in order of history as long as they fit.

use std::fmt;

use tier_index::TarballId;
use tier_types::{Epoch, ObjectName, SnapshotId};

use crate::error::PersistError;
use crate::format::keys::random_bytes;

/// The identity of a filesystem: 16 random bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilesystemId([u8; 16]);

impl FilesystemId {
    /// A new one.
    pub fn random() -> Result<Self, PersistError> {
        Ok(Self(random_bytes()?))
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// From its 32 digits.
    pub fn parse(text: &str) -> Option<Self> {
        // The parser of numbers would take a sign, too.
        let digits = text.len() == 32 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for FilesystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for FilesystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilesystemId({self})")
    }
}

/// What an object of the archive is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum ObjectKind {
    Claim(Epoch),
    Manifest { epoch: Epoch, snapshot: SnapshotId },
    Tarball(TarballName),
    Packed(PackedName),
}

/// What the name of a tarball says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TarballName {
    pub(crate) id: TarballId,
    /// One for all tarballs of an attempt at a snapshot.
    pub(crate) token: NameToken,
    pub(crate) encrypted: bool,
}

/// What the name of a packed object says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PackedName {
    /// The step that wrote it, and its number among those of its kind.
    pub(crate) id: TarballId,
    pub(crate) token: NameToken,
    pub(crate) kind: PackedKind,
    pub(crate) encrypted: bool,
}

/// What a packed object holds: one compressed value, read as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum PackedKind {
    /// Inodes of a checkpoint.
    Inodes,
    /// Steps of the history, of a checkpoint.
    Steps,
    /// A piece of a log segment.
    Segment,
}

impl PackedKind {
    const ALL: [Self; 3] = [Self::Inodes, Self::Steps, Self::Segment];

    fn ending(self) -> &'static str {
        match self {
            Self::Inodes => "inodes.zst",
            Self::Steps => "steps.zst",
            Self::Segment => "log.zst",
        }
    }
}

/// What makes the name of a data object unique.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct NameToken(pub(crate) [u8; 8]);

/// The prefix of all objects of a filesystem.
pub(crate) fn prefix(filesystem: FilesystemId) -> String {
    format!("{filesystem}/")
}

/// The prefix of the claims of a filesystem.
pub(crate) fn claims_prefix(filesystem: FilesystemId) -> String {
    format!("{filesystem}/claims/")
}

/// The prefix of the manifests of a filesystem.
pub(crate) fn manifests_prefix(filesystem: FilesystemId) -> String {
    format!("{filesystem}/manifests/")
}

/// The prefix of the tarballs of a filesystem.
pub(crate) fn data_prefix(filesystem: FilesystemId) -> String {
    format!("{filesystem}/data/")
}

/// The prefix of the tarballs of all attempts at a snapshot.
pub(crate) fn snapshot_prefix(
    filesystem: FilesystemId,
    epoch: Epoch,
    snapshot: SnapshotId,
) -> String {
    format!("{filesystem}/data/e{:08}/s{:010}-p", epoch.get(), snapshot.get())
}

/// What comes before the names of all data of a snapshot and of later ones.
pub(crate) fn before_data_of(
    filesystem: FilesystemId,
    epoch: Epoch,
    snapshot: SnapshotId,
) -> ObjectName {
    name(format!("{filesystem}/data/e{:08}/s{:010}", epoch.get(), snapshot.get()))
}

pub(crate) fn claim_name(filesystem: FilesystemId, epoch: Epoch) -> ObjectName {
    name(format!("{filesystem}/claims/e{:08}.claim", epoch.get()))
}

pub(crate) fn manifest_name(
    filesystem: FilesystemId,
    epoch: Epoch,
    snapshot: SnapshotId,
) -> ObjectName {
    let (epoch, snapshot) = (epoch.get(), snapshot.get());
    name(format!("{filesystem}/manifests/e{epoch:08}-s{snapshot:010}.manifest"))
}

pub(crate) fn tarball_name(filesystem: FilesystemId, tarball: TarballName) -> ObjectName {
    let TarballName { id, token, encrypted } = tarball;
    data_name(filesystem, id, token, "tar.zst", encrypted)
}

pub(crate) fn packed_name(filesystem: FilesystemId, packed: PackedName) -> ObjectName {
    let PackedName { id, token, kind, encrypted } = packed;
    data_name(filesystem, id, token, kind.ending(), encrypted)
}

fn data_name(
    filesystem: FilesystemId,
    id: TarballId,
    token: NameToken,
    ending: &str,
    encrypted: bool,
) -> ObjectName {
    let TarballId { epoch, snapshot, part } = id;
    let prefix = snapshot_prefix(filesystem, epoch, snapshot);
    let token = u64::from_be_bytes(token.0);
    let age = if encrypted { ".age" } else { "" };
    name(format!("{prefix}{part:06}-{token:016x}.{ending}{age}"))
}

/// The step that wrote an object of data.
pub(crate) fn step_of_data(name: &ObjectName) -> Option<(Epoch, SnapshotId)> {
    let id = match parse(name)?.1 {
        ObjectKind::Tarball(tarball) => tarball.id,
        ObjectKind::Packed(packed) => packed.id,
        ObjectKind::Claim(_) | ObjectKind::Manifest { .. } => return None,
    };
    Some((id.epoch, id.snapshot))
}

/// Whether the name is that of an encrypted object of data.
pub(crate) fn is_encrypted(name: &ObjectName) -> bool {
    name.as_str().rsplit('.').next() == Some("age")
}

/// What this name says; `None` if it is not a name of the archive's own.
pub(crate) fn parse(name: &ObjectName) -> Option<(FilesystemId, ObjectKind)> {
    let (filesystem, rest) = name.as_str().split_once('/')?;
    let filesystem = FilesystemId::parse(filesystem)?;
    let (kind, rest) = rest.split_once('/')?;
    // At the first dot: a tarball's ending has more of them, and the numbers have none.
    let (stem, ending) = rest.split_once('.')?;
    let kind = match (kind, ending) {
        ("claims", "claim") => ObjectKind::Claim(Epoch::new(number(stem, 'e')?)),
        ("manifests", "manifest") => {
            let (epoch, snapshot) = stem.split_once('-')?;
            let (epoch, snapshot) = (number(epoch, 'e')?, number(snapshot, 's')?);
            let (epoch, snapshot) = (Epoch::new(epoch), SnapshotId::new(snapshot));
            ObjectKind::Manifest { epoch, snapshot }
        }
        ("data", ending) => parse_data(stem, ending)?,
        _ => return None,
    };
    // Two names must never be taken for one object's: zeros in front are as they are written here.
    (object_name(filesystem, kind) == *name).then_some((filesystem, kind))
}

fn object_name(filesystem: FilesystemId, kind: ObjectKind) -> ObjectName {
    match kind {
        ObjectKind::Claim(epoch) => claim_name(filesystem, epoch),
        ObjectKind::Manifest { epoch, snapshot } => manifest_name(filesystem, epoch, snapshot),
        ObjectKind::Tarball(tarball) => tarball_name(filesystem, tarball),
        ObjectKind::Packed(packed) => packed_name(filesystem, packed),
    }
}

/// `eEPOCH/sSNAPSHOT-pPART-TOKEN` and an ending.
fn parse_data(stem: &str, ending: &str) -> Option<ObjectKind> {
    let (epoch, rest) = stem.split_once('/')?;
    let mut parts = rest.split('-');
    let (snapshot, part, token) = (parts.next()?, parts.next()?, parts.next()?);
    let id = TarballId {
        epoch: Epoch::new(number(epoch, 'e')?),
        snapshot: SnapshotId::new(number(snapshot, 's')?),
        part: u32::try_from(number(part, 'p')?).ok()?,
    };
    let token = NameToken(u64::from_str_radix(token, 16).ok()?.to_be_bytes());
    parts.next().is_none().then_some(())?;
    let (plain_ending, encrypted) = match ending.strip_suffix(".age") {
        Some(plain) => (plain, true),
        None => (ending, false),
    };
    if plain_ending == "tar.zst" {
        return Some(ObjectKind::Tarball(TarballName { id, token, encrypted }));
    }
    let kind = PackedKind::ALL.into_iter().find(|kind| kind.ending() == plain_ending)?;
    Some(ObjectKind::Packed(PackedName { id, token, kind, encrypted }))
}

/// The number behind a letter.
fn number(text: &str, letter: char) -> Option<u64> {
    text.strip_prefix(letter)?.parse().ok()
}

/// Names made here have no way to be wrong: digits, letters and dots only.
#[expect(clippy::expect_used, reason = "checked by the tests below for the extremes")]
fn name(text: String) -> ObjectName {
    ObjectName::new(text).expect("a name of digits and letters is valid")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(filesystem: FilesystemId, id: TarballId, token: [u8; 8]) {
        let TarballId { epoch, snapshot, .. } = id;
        let claim = claim_name(filesystem, epoch);
        assert_eq!(parse(&claim), Some((filesystem, ObjectKind::Claim(epoch))));
        assert!(claim.as_str().starts_with(&claims_prefix(filesystem)));
        let manifest = manifest_name(filesystem, epoch, snapshot);
        let kind = ObjectKind::Manifest { epoch, snapshot };
        assert_eq!(parse(&manifest), Some((filesystem, kind)));
        assert!(manifest.as_str().starts_with(&manifests_prefix(filesystem)));
        for encrypted in [false, true] {
            let tarball = TarballName { id, token: NameToken(token), encrypted };
            let name = tarball_name(filesystem, tarball);
            assert_eq!(parse(&name), Some((filesystem, ObjectKind::Tarball(tarball))));
            assert_eq!(is_encrypted(&name), encrypted);
            assert!(name.as_str().starts_with(&data_prefix(filesystem)));
            assert!(name.as_str().starts_with(&snapshot_prefix(filesystem, epoch, snapshot)));
            assert_eq!(step_of_data(&name), Some((epoch, snapshot)));
            for kind in PackedKind::ALL {
                let packed = PackedName { id, token: NameToken(token), kind, encrypted };
                let name = packed_name(filesystem, packed);
                assert_eq!(parse(&name), Some((filesystem, ObjectKind::Packed(packed))));
                assert_eq!(is_encrypted(&name), encrypted);
                assert_eq!(step_of_data(&name), Some((epoch, snapshot)));
            }
        }
        assert_eq!(step_of_data(&manifest), None);
    }

    #[test]
    fn the_extremes_have_names() {
        for number in [0, 1, u64::MAX] {
            let (epoch, snapshot) = (Epoch::new(number), SnapshotId::new(number));
            let id = TarballId { epoch, snapshot, part: 0 };
            check(FilesystemId::from_bytes([0xab; 16]), id, [0; 8]);
            let id = TarballId { part: u32::MAX, ..id };
            check(FilesystemId::from_bytes([0; 16]), id, [0xff; 8]);
        }
    }

    proptest! {
        #[test]
        fn names_say_what_the_object_is(
            filesystem: [u8; 16],
            epoch: u64,
            snapshot: u64,
            part: u32,
            token: [u8; 8],
        ) {
            let id =
                TarballId { epoch: Epoch::new(epoch), snapshot: SnapshotId::new(snapshot), part };
            check(FilesystemId::from_bytes(filesystem), id, token);
        }

        #[test]
        fn other_names_are_not_taken_for_objects(text in "[a-z0-9./-]{1,60}") {
            if let Some(name) = ObjectName::new(text) {
                prop_assert_eq!(parse(&name), None);
            }
        }
    }

    #[test]
    fn data_of_a_snapshot_comes_behind_all_of_earlier_ones() {
        let filesystem = FilesystemId::from_bytes([7; 16]);
        let (epoch, token) = (Epoch::new(2), NameToken([9; 8]));
        let name_of = |snapshot, part| {
            let id = TarballId { epoch, snapshot: SnapshotId::new(snapshot), part };
            tarball_name(filesystem, TarballName { id, token, encrypted: true })
        };
        let before = before_data_of(filesystem, epoch, SnapshotId::new(10));
        assert!(name_of(9, u32::MAX) < before && before < name_of(10, 0));
    }
}
