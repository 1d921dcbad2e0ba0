//! Extended attributes that say where a file's data is. They are not listed, so that no program
//! that copies attributes copies them.

use std::sync::Arc;

use tier_types::{FileKind, Ino, Persisted};

use crate::{FsError, Kvfs};

/// An attribute of the namespace `user.tier`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TierXattr {
    /// `hot`, `warm`, `cold`, `mixed`, or `lost` if some of it is.
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

#[cfg(test)]
mod tests {
    use tier_types::{ChunkRange, LogReader, PortError, SnapshotId, Xid};

    use super::*;
    use crate::testing::{filesystem, name, node};

    /// An archive whose snapshot 3 holds everything up to a transaction.
    struct Until(Xid);

    impl Persisted for Until {
        fn first_persisted(
            &self,
            _: Ino,
            chunks: ChunkRange,
            xid: Xid,
        ) -> Result<Option<ChunkRange>, PortError> {
            Ok((xid <= self.0).then_some(chunks))
        }

        fn snapshot_of(&self, _: Ino, xid: Xid) -> Result<Option<SnapshotId>, PortError> {
            Ok((xid <= self.0).then_some(SnapshotId::new(3)))
        }
    }

    #[test]
    fn only_names_of_the_namespace_are_taken() {
        assert_eq!(parse(b"user.tier.state"), Some(TierXattr::State));
        assert_eq!(parse(b"user.tier.snapshot"), Some(TierXattr::Snapshot));
        assert_eq!(parse(b"user.tier.pin"), Some(TierXattr::Pin));
        assert_eq!(parse(b"user.tier.other"), Some(TierXattr::Unknown));
        assert_eq!(parse(b"user.tier"), None);
        assert_eq!(parse(b"user.other"), None);
    }

    #[test]
    fn they_tell_where_the_data_is() {
        let (_dir, fs) = filesystem();
        let f = fs.create_node(Ino::ROOT, &name("f"), &node(FileKind::Regular)).unwrap().ino;
        let xattrs = TierXattrs { archive: Arc::new(Until(fs.last_xid())) };
        let get = |ino, asked| xattrs.get(&fs, ino, asked);
        assert_eq!(get(f, TierXattr::State).unwrap(), b"hot");
        assert_eq!(get(f, TierXattr::Snapshot).unwrap(), b"3");
        fs.write(f, 0, b"newer").unwrap();
        assert!(matches!(get(f, TierXattr::Snapshot), Err(FsError::NoXattr)));
        assert!(matches!(get(Ino::ROOT, TierXattr::State), Err(FsError::NoXattr)));
        assert!(matches!(get(f, TierXattr::Unknown), Err(FsError::NoXattr)));
        assert!(matches!(get(Ino::new(99), TierXattr::State), Err(FsError::NotFound)));
    }

    #[test]
    fn a_pin_can_be_set_and_nothing_else() {
        let (_dir, fs) = filesystem();
        let xattrs = TierXattrs { archive: Arc::new(Until(Xid::new(0))) };
        let pin = || xattrs.get(&fs, Ino::ROOT, TierXattr::Pin);
        let set_pin = |value| set(&fs, Ino::ROOT, TierXattr::Pin, value);
        assert!(matches!(pin(), Err(FsError::NoXattr)));
        set_pin(Some(b"1\n")).unwrap();
        assert_eq!(pin().unwrap(), b"1");
        set_pin(Some(b"0")).unwrap();
        assert!(pin().is_err());
        set_pin(Some(b"1")).unwrap();
        set_pin(None).unwrap();
        assert!(pin().is_err());
        assert!(matches!(set_pin(Some(b"yes")), Err(FsError::Invalid(_))));
        for asked in [TierXattr::State, TierXattr::Snapshot, TierXattr::Unknown] {
            assert!(matches!(set(&fs, Ino::ROOT, asked, Some(b"1")), Err(FsError::Invalid(_))));
        }
    }
}
