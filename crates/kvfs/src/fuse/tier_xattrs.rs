//! Extended attributes that say where a file's data is. They are not listed, so that no program
//! that copies attributes copies them.

use std::sync::Arc;

use tier_types::{FileKind, Ino, Persisted};

use crate::{FsError, Kvfs};

/// An attribute of the namespace `user.tier`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TierXattr {
    /// `hot`, `warm`, `cold`, or `mixed`.
    State,
    /// The snapshot that holds the inode as it is now; no value if none does.
    Snapshot,
    /// `1` if it, or a directory above it, is pinned.
    Pin,
    /// None of these.
    Unknown,
}

const PREFIX: &[u8] = b"user.tier.";

/// Which attribute a name stands for; `None` if it lies outside the namespace.
pub(super) fn parse(name: &[u8]) -> Option<TierXattr> {
    Some(match name.strip_prefix(PREFIX)? {
        b"state" => TierXattr::State,
        b"snapshot" => TierXattr::Snapshot,
        b"pin" => TierXattr::Pin,
        _ => TierXattr::Unknown,
    })
}

pub(super) struct TierXattrs {
    pub(super) archive: Arc<dyn Persisted>,
}

impl TierXattrs {
    pub(super) fn get(&self, fs: &Kvfs, ino: Ino, asked: TierXattr) -> Result<Vec<u8>, FsError> {
        let attr = fs.getattr(ino)?;
        match asked {
            TierXattr::State if matches!(attr.kind, FileKind::Regular) => {
                Ok(fs.heat(ino)?.to_string().into_bytes())
            }
            TierXattr::Snapshot => {
                let known = self.archive.snapshot_of(ino, attr.xid);
                match known.map_err(|source| FsError::Recall { ino, source })? {
                    Some(snapshot) => Ok(snapshot.to_string().into_bytes()),
                    None => Err(FsError::NoXattr),
                }
            }
            TierXattr::Pin if fs.is_pinned(ino)? => Ok(b"1".to_vec()),
            TierXattr::State | TierXattr::Pin | TierXattr::Unknown => Err(FsError::NoXattr),
        }
    }
}

/// Sets an attribute, or removes it.
pub(super) fn set(
    fs: &Kvfs,
    ino: Ino,
    asked: TierXattr,
    value: Option<&[u8]>,
) -> Result<(), FsError> {
    match (asked, value.map(<[u8]>::trim_ascii)) {
        (TierXattr::Pin, None | Some(b"0")) => fs.set_pin(ino, false),
        (TierXattr::Pin, Some(b"1")) => fs.set_pin(ino, true),
        (TierXattr::Pin, Some(_)) => Err(FsError::Invalid("a pin is 1 or 0")),
        (TierXattr::State | TierXattr::Snapshot | TierXattr::Unknown, _) => {
            Err(FsError::Invalid("this attribute cannot be set"))
        }
    }
}
