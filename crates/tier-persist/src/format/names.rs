//! Object names: filesystem, epoch, snapshot and part of each object of an archive.
//!
//! `FILESYSTEM/eEPOCH/sSNAPSHOT.manifest` and `FILESYSTEM/eEPOCH/sSNAPSHOT-pPART.tar.zst[.age]`.
//! The epoch is a writer's term over the archive: a writer that was replaced goes on under its own
//! epoch, so that it can never overwrite an object of the writer that came after it. Numbers have
//! leading zeros, so that a listing in order of names is one in order of history as long as they
//! fit.

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
    Manifest { epoch: Epoch, snapshot: SnapshotId },
    Tarball(TarballId),
}

/// The prefix of all objects of a filesystem.
pub(crate) fn prefix(filesystem: FilesystemId) -> String {
    format!("{filesystem}/")
}

pub(crate) fn manifest_name(
    filesystem: FilesystemId,
    epoch: Epoch,
    snapshot: SnapshotId,
) -> ObjectName {
    name(format!("{filesystem}/e{:08}/s{:010}.manifest", epoch.get(), snapshot.get()))
}

pub(crate) fn tarball_name(filesystem: FilesystemId, id: TarballId, encrypted: bool) -> ObjectName {
    let ending = if encrypted { "tar.zst.age" } else { "tar.zst" };
    let TarballId { epoch, snapshot, part } = id;
    let (epoch, snapshot) = (epoch.get(), snapshot.get());
    name(format!("{filesystem}/e{epoch:08}/s{snapshot:010}-p{part:06}.{ending}"))
}

/// Whether the name is that of an encrypted tarball.
pub(crate) fn is_encrypted(name: &ObjectName) -> bool {
    name.as_str().rsplit('.').next() == Some("age")
}

/// What this name says; `None` if it is not a name of the archive's own.
pub(crate) fn parse(name: &ObjectName) -> Option<(FilesystemId, ObjectKind)> {
    let mut parts = name.as_str().split('/');
    let filesystem = FilesystemId::parse(parts.next()?)?;
    let epoch = Epoch::new(parts.next()?.strip_prefix('e')?.parse().ok()?);
    // At the first dot: a tarball's ending has more of them, and the numbers have none.
    let (stem, ending) = parts.next()?.split_once('.')?;
    let stem = stem.strip_prefix('s')?;
    // Numbers are taken with any number of leading zeros: those that do not fit have more digits.
    let kind = match ending {
        "manifest" => ObjectKind::Manifest { epoch, snapshot: SnapshotId::new(stem.parse().ok()?) },
        "tar.zst" | "tar.zst.age" => {
            let (snapshot, part) = stem.split_once("-p")?;
            let snapshot = SnapshotId::new(snapshot.parse().ok()?);
            ObjectKind::Tarball(TarballId { epoch, snapshot, part: part.parse().ok()? })
        }
        _ => return None,
    };
    // Something below an object's name is another object.
    parts.next().is_none().then_some((filesystem, kind))
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

    fn check(filesystem: FilesystemId, id: TarballId) {
        let TarballId { epoch, snapshot, .. } = id;
        let manifest = manifest_name(filesystem, epoch, snapshot);
        let kind = ObjectKind::Manifest { epoch, snapshot };
        assert_eq!(parse(&manifest), Some((filesystem, kind)));
        for encrypted in [false, true] {
            let tarball = tarball_name(filesystem, id, encrypted);
            assert_eq!(parse(&tarball), Some((filesystem, ObjectKind::Tarball(id))));
            assert_eq!(is_encrypted(&tarball), encrypted);
            assert!(tarball.as_str().starts_with(&prefix(filesystem)));
        }
    }

    #[test]
    fn the_extremes_have_names() {
        for number in [0, 1, u64::MAX] {
            let (epoch, snapshot) = (Epoch::new(number), SnapshotId::new(number));
            check(FilesystemId::from_bytes([0xab; 16]), TarballId { epoch, snapshot, part: 0 });
            let part = u32::MAX;
            check(FilesystemId::from_bytes([0; 16]), TarballId { epoch, snapshot, part });
        }
    }

    proptest! {
        #[test]
        fn names_say_what_the_object_is(
            filesystem: [u8; 16],
            epoch: u64,
            snapshot: u64,
            part: u32,
        ) {
            let id =
                TarballId { epoch: Epoch::new(epoch), snapshot: SnapshotId::new(snapshot), part };
            check(FilesystemId::from_bytes(filesystem), id);
        }

        #[test]
        fn other_names_are_not_taken_for_objects(text in "[a-z0-9./-]{1,60}") {
            if let Some(name) = ObjectName::new(text) {
                prop_assert_eq!(parse(&name), None);
            }
        }
    }
}
