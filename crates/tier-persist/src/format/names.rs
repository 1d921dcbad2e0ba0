//! Names of objects: filesystem, epoch, snapshot and part, so that a stale writer can never
//! overwrite a live one's.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use tier_index::TarballId;
use tier_types::{Epoch, ObjectName, SnapshotId};

use crate::error::PersistError;

/// Which filesystem: 16 random bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilesystemId([u8; 16]);

impl FilesystemId {
    /// A new one.
    pub fn random() -> Result<Self, PersistError> {
        let mut bytes = [0; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| PersistError::BadKey("the system has no random bytes".into()))?;
        Ok(Self(bytes))
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

/// What this name says; `None` if it is not one of ours.
pub(crate) fn parse(name: &ObjectName) -> Option<(FilesystemId, ObjectKind)> {
    let mut parts = name.as_str().split('/');
    let filesystem = FilesystemId::parse(parts.next()?)?;
    let epoch = Epoch::new(parts.next()?.strip_prefix('e')?.parse().ok()?);
    let (stem, ending) = parts.next()?.split_once('.')?;
    let stem = stem.strip_prefix('s')?;
    let kind = match ending {
        "manifest" => ObjectKind::Manifest { epoch, snapshot: SnapshotId::new(stem.parse().ok()?) },
        "tar.zst" | "tar.zst.age" => {
            let (snapshot, part) = stem.split_once("-p")?;
            let snapshot = SnapshotId::new(snapshot.parse().ok()?);
            ObjectKind::Tarball(TarballId { epoch, snapshot, part: part.parse().ok()? })
        }
        _ => return None,
    };
    parts.next().is_none().then_some((filesystem, kind))
}

/// Names made here have no way to be wrong: digits, letters and dots only.
fn name(text: String) -> ObjectName {
    #[expect(clippy::expect_used, reason = "checked by the test below for the extremes")]
    ObjectName::new(text).expect("a name of digits and letters is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_the_object_is() {
        for number in [0, 1, u64::MAX] {
            let filesystem = FilesystemId::from_bytes([0xab; 16]);
            let (epoch, snapshot) = (Epoch::new(number), SnapshotId::new(number));
            let manifest = manifest_name(filesystem, epoch, snapshot);
            let kind = ObjectKind::Manifest { epoch, snapshot };
            assert_eq!(parse(&manifest), Some((filesystem, kind)));
            let id = TarballId { epoch, snapshot, part: u32::MAX };
            let tarball = tarball_name(filesystem, id, true);
            assert_eq!(parse(&tarball), Some((filesystem, ObjectKind::Tarball(id))));
        }
    }
}
