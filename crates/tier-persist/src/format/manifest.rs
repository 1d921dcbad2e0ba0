//! The manifest: the signed object that commits one step of the history
//! (`docs/formats/manifest.md`).
//!
//! A step exists when its manifest does. The manifest is written last, lists every object with its
//! length and digests, and names its parent with the parent's digest, so that the manifests are a
//! chain of which none can be exchanged without breaking what follows it. It can be checked by
//! itself up to its signature; whether it continues its parent is for the chain to check
//! ([`crate::read::chain`]).
//!
//! What it lists may be of kinds that this program does not know. They are kept as they are: copied
//! and verified with the others, and never deleted.

use serde::{Deserialize, Serialize};
use tier_types::{Epoch, Ino, ObjectName, SnapshotId, Timestamp, Xid, XidRange};

use crate::error::PersistError;
use crate::format::claim::WriterToken;
use crate::format::digest::{ContentDigest, sha256};
use crate::format::keys::Keys;
use crate::format::names::{self, FilesystemId, ObjectKind, PackedKind};
use crate::format::packed::PackedObject;
use crate::format::postcard;
use crate::format::signed::{self, Magic, SIGNED_BYTES_MAX, SignedContent};
use crate::format::signer::Signer;
use crate::format::tarball::row::{TarballObject, WireRoot};

const MAGIC: Magic = *b"TIERMAN1";

/// Points at a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ManifestRef {
    pub(crate) epoch: Epoch,
    pub(crate) snapshot: SnapshotId,
    /// SHA-256 of the object as it is stored.
    pub(crate) digest: [u8; 32],
}

/// What a step of the history is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum ManifestKind {
    /// What changed since its parent.
    Snapshot,
    /// Everything that is live, by itself.
    Checkpoint,
    /// The same data in other tarballs.
    Repack,
    /// Another signer or other recipients from here on.
    KeyChange,
}

/// One committed step of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    pub(crate) filesystem: FilesystemId,
    pub(crate) epoch: Epoch,
    pub(crate) snapshot: SnapshotId,
    pub(crate) kind: ManifestKind,
    /// Its transactions, if it brings any.
    pub(crate) range: Option<XidRange>,
    /// The last transaction of the history up to here.
    pub(crate) last_xid: Xid,
    /// What it holds of inodes changed in this transaction or later: the first of the snapshot with
    /// all its parts. Beside that it holds what was tried again, and what was lost before.
    pub(crate) holds_from: Xid,
    /// `None` if it is complete. Otherwise it is a part of a long snapshot, which holds inodes up
    /// to this one.
    pub(crate) covered: Option<Ino>,
    pub(crate) created: Timestamp,
    pub(crate) chunk_bytes: u32,
    pub(crate) parent: Option<ManifestRef>,
    /// What the first manifest of its epoch continues: said by each of them, in case others are
    /// lost.
    pub(crate) epoch_parent: Option<ManifestRef>,
    /// The store that wrote it.
    pub(crate) writer: WriterToken,
    /// Inodes that could not be read in full, and are to be tried again.
    pub(crate) failed: Vec<Ino>,
    pub(crate) n_inodes: u64,
    pub(crate) data_bytes: u64,
    pub(crate) tarballs: Vec<TarballObject>,
    pub(crate) packed: Vec<PackedObject>,
    /// Objects of other kinds.
    pub(crate) others: Vec<OtherObject>,
    pub(crate) signer: Signer,
}

/// An object of a kind that this version does not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OtherObject {
    /// What it is; a number that only a later version may know.
    pub(crate) kind: u32,
    pub(crate) name: ObjectName,
    pub(crate) content: ContentDigest,
    pub(crate) header: Vec<u8>,
    pub(crate) recipients: Vec<[u8; 8]>,
    /// What that kind says of it.
    pub(crate) about: Vec<u8>,
}

/// A manifest as it was read, with what only the object tells.
#[derive(Debug)]
pub(crate) struct OpenedManifest {
    pub(crate) manifest: Manifest,
    pub(crate) encrypted: bool,
}

// The kinds in a list of objects.
const TARBALL: u32 = 1;
const INODES: u32 = 2;
const STEPS: u32 = 3;
const SEGMENT: u32 = 4;

#[derive(Serialize, Deserialize)]
struct WireManifest {
    filesystem: [u8; 16],
    epoch: u64,
    snapshot: u64,
    kind: ManifestKind,
    range: Option<WireRange>,
    last_xid: u64,
    holds_from: u64,
    covered: Option<u64>,
    created: WireTime,
    chunk_bytes: u32,
    parent: Option<WireRef>,
    epoch_parent: Option<WireRef>,
    writer: [u8; 16],
    failed: Vec<u64>,
    n_inodes: u64,
    data_bytes: u64,
    objects: Vec<WireObject>,
}

#[derive(Serialize, Deserialize)]
struct WireRange {
    start: u64,
    end: u64,
}

#[derive(Serialize, Deserialize)]
struct WireTime {
    seconds: i64,
    nanos: u32,
}

/// A [`ManifestRef`] as bytes.
#[derive(Serialize, Deserialize)]
pub(crate) struct WireRef {
    epoch: u64,
    snapshot: u64,
    digest: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct WireObject {
    kind: u32,
    /// Without the filesystem in front.
    name: String,
    len_bytes: u64,
    sha256: [u8; 32],
    crc32c: u32,
    header: Vec<u8>,
    recipients: Vec<[u8; 8]>,
    about: Vec<u8>,
}

/// What is said of a tarball beyond what is said of every object.
#[derive(Serialize, Deserialize)]
struct WireTarball {
    n_members: u64,
    root: WireRoot,
    table_bytes: u64,
}

impl Manifest {
    pub(crate) fn name(&self) -> ObjectName {
        names::manifest_name(self.filesystem, self.epoch, self.snapshot)
    }

    /// The object's bytes: compressed, signed, and encrypted if these keys encrypt.
    pub(crate) fn to_object(&self, keys: &Keys) -> Result<Vec<u8>, PersistError> {
        assert_eq!(self.signer, keys.signer(), "a manifest names the key that signs it");
        signed::seal(MAGIC, &postcard::to_bytes(&self.to_wire()), &self.name(), keys)
    }

    /// Checks everything that the manifest alone can tell.
    pub(crate) fn from_object(
        bytes: &[u8],
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<OpenedManifest, PersistError> {
        let SignedContent { content, signer, encrypted } =
            signed::open(MAGIC, SIGNED_BYTES_MAX, bytes, name, keys)?;
        let manifest = Self::from_content(&content, signer)
            .ok_or_else(|| PersistError::damaged(name, "its content cannot be read"))?;
        // Otherwise a store could answer with an older one.
        if manifest.name() != *name {
            return Err(PersistError::damaged(name, "it is another snapshot's manifest"));
        }
        Ok(OpenedManifest { manifest, encrypted })
    }

    /// The manifest that was serialised as these bytes.
    pub(crate) fn from_content(content: &[u8], signer: Signer) -> Option<Self> {
        Self::from_wire(postcard::parse(content)?, signer)
    }

    /// Points at this manifest, stored as these bytes.
    pub(crate) fn reference(&self, object: &[u8]) -> ManifestRef {
        ManifestRef { epoch: self.epoch, snapshot: self.snapshot, digest: sha256(object) }
    }

    fn to_wire(&self) -> WireManifest {
        let tarballs = self.tarballs.iter().map(|t| WireObject::of_tarball(t, self.filesystem));
        let packed = self.packed.iter().map(|p| WireObject::of_packed(p, self.filesystem));
        let others = self.others.iter().map(|o| WireObject::of_other(o, self.filesystem));
        let range = self
            .range
            .map(|range| WireRange { start: range.start().get(), end: range.end().get() });
        WireManifest {
            filesystem: self.filesystem.to_bytes(),
            epoch: self.epoch.get(),
            snapshot: self.snapshot.get(),
            kind: self.kind,
            range,
            last_xid: self.last_xid.get(),
            holds_from: self.holds_from.get(),
            covered: self.covered.map(Ino::get),
            created: WireTime { seconds: self.created.seconds, nanos: self.created.nanos },
            chunk_bytes: self.chunk_bytes,
            parent: self.parent.as_ref().map(WireRef::from),
            epoch_parent: self.epoch_parent.as_ref().map(WireRef::from),
            writer: self.writer.to_bytes(),
            failed: self.failed.iter().map(|ino| ino.get()).collect(),
            n_inodes: self.n_inodes,
            data_bytes: self.data_bytes,
            objects: tarballs.chain(packed).chain(others).collect(),
        }
    }

    fn from_wire(wire: WireManifest, signer: Signer) -> Option<Self> {
        let WireTime { seconds, nanos } = wire.created;
        // Values that would break arithmetic further up are refused here, once.
        (wire.chunk_bytes > 0 && nanos < 1_000_000_000).then_some(())?;
        let filesystem = FilesystemId::from_bytes(wire.filesystem);
        let (mut tarballs, mut packed, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for object in wire.objects {
            match object.kind {
                TARBALL => tarballs.push(object.into_tarball(filesystem)?),
                INODES | STEPS | SEGMENT => packed.push(object.into_packed(filesystem)?),
                _ => others.push(object.into_other(filesystem)?),
            }
        }
        let range = match wire.range {
            Some(WireRange { start, end }) => Some(XidRange::new(Xid::new(start), Xid::new(end))?),
            None => None,
        };
        let last_xid = Xid::new(wire.last_xid);
        range.is_none_or(|range| range.last() == last_xid).then_some(())?;
        Some(Self {
            filesystem,
            epoch: Epoch::new(wire.epoch),
            snapshot: SnapshotId::new(wire.snapshot),
            kind: wire.kind,
            range,
            last_xid,
            holds_from: Xid::new(wire.holds_from),
            covered: wire.covered.map(Ino::new),
            created: Timestamp { seconds, nanos },
            chunk_bytes: wire.chunk_bytes,
            parent: wire.parent.map(ManifestRef::from),
            epoch_parent: wire.epoch_parent.map(ManifestRef::from),
            writer: WriterToken::from_bytes(wire.writer),
            failed: wire.failed.into_iter().map(Ino::new).collect(),
            n_inodes: wire.n_inodes,
            data_bytes: wire.data_bytes,
            tarballs,
            packed,
            others,
            signer,
        })
    }
}

impl WireObject {
    fn of_tarball(tarball: &TarballObject, filesystem: FilesystemId) -> Self {
        let root = WireRoot::from(&tarball.root);
        let TarballObject { n_members, table_bytes, .. } = *tarball;
        let about = postcard::to_bytes(&WireTarball { n_members, root, table_bytes });
        let TarballObject { content, header, recipients, .. } = tarball.clone();
        let name = tarball.object_name(filesystem);
        let kind = TARBALL;
        let object = OtherObject { kind, name, content, header, recipients, about };
        Self::of_other(&object, filesystem)
    }

    fn of_packed(packed: &PackedObject, filesystem: FilesystemId) -> Self {
        let PackedObject { content, recipients, about, .. } = packed.clone();
        let (name, about) = (packed.object_name(filesystem), postcard::to_bytes(&about));
        let kind = kind_of(packed.name.kind);
        let object = OtherObject { kind, name, content, header: Vec::new(), recipients, about };
        Self::of_other(&object, filesystem)
    }

    fn into_packed(self, filesystem: FilesystemId) -> Option<PackedObject> {
        let OtherObject { kind, name, content, recipients, about, .. } =
            self.into_other(filesystem)?;
        let Some((_, ObjectKind::Packed(name))) = names::parse(&name) else { return None };
        let packed = PackedObject { name, content, recipients, about: postcard::parse(&about)? };
        (kind == kind_of(name.kind) && packed.has_sound_lengths()).then_some(packed)
    }

    #[expect(clippy::expect_used, reason = "names of this archive have its prefix")]
    fn of_other(object: &OtherObject, filesystem: FilesystemId) -> Self {
        let OtherObject { kind, name, content, header, recipients, about } = object.clone();
        let relative = name.as_str().strip_prefix(&names::prefix(filesystem));
        let name = relative.expect("an object of this filesystem's archive").to_owned();
        let ContentDigest { len_bytes, sha256, crc32c } = content;
        Self { kind, name, len_bytes, sha256, crc32c, header, recipients, about }
    }

    fn into_other(self, filesystem: FilesystemId) -> Option<OtherObject> {
        let Self { kind, name, len_bytes, sha256, crc32c, header, recipients, about } = self;
        let name = ObjectName::new(format!("{}{name}", names::prefix(filesystem)))?;
        let content = ContentDigest { len_bytes, sha256, crc32c };
        Some(OtherObject { kind, name, content, header, recipients, about })
    }

    fn into_tarball(self, filesystem: FilesystemId) -> Option<TarballObject> {
        let OtherObject { name, content, header, recipients, about, .. } =
            self.into_other(filesystem)?;
        let Some((_, ObjectKind::Tarball(name))) = names::parse(&name) else { return None };
        let WireTarball { n_members, root, table_bytes } = postcard::parse(&about)?;
        let root = root.into();
        Some(TarballObject { name, content, header, recipients, n_members, root, table_bytes })
    }
}

fn kind_of(kind: PackedKind) -> u32 {
    match kind {
        PackedKind::Inodes => INODES,
        PackedKind::Steps => STEPS,
        PackedKind::Segment => SEGMENT,
    }
}

impl From<&ManifestRef> for WireRef {
    fn from(reference: &ManifestRef) -> Self {
        let ManifestRef { epoch, snapshot, digest } = *reference;
        Self { epoch: epoch.get(), snapshot: snapshot.get(), digest }
    }
}

impl From<WireRef> for ManifestRef {
    fn from(wire: WireRef) -> Self {
        let (epoch, snapshot) = (Epoch::new(wire.epoch), SnapshotId::new(wire.snapshot));
        Self { epoch, snapshot, digest: wire.digest }
    }
}

#[cfg(test)]
mod tests {
    use tier_index::TarballId;

    use super::*;
    use crate::format::names::{NameToken, PackedName, TarballName};
    use crate::format::packed::PackedAbout;
    use crate::format::tarball::row::FrameRow;

    fn sample(keys: &Keys) -> Manifest {
        let (epoch, snapshot) = (Epoch::new(1), SnapshotId::new(2));
        let filesystem = FilesystemId::from_bytes([0x5a; 16]);
        let content = ContentDigest::of(b"tarball");
        let id = TarballId { epoch, snapshot, part: 0 };
        let tarball = TarballObject {
            name: TarballName { id, token: NameToken([3; 8]), encrypted: true },
            content,
            header: vec![1, 2, 3],
            recipients: vec![[8; 8]],
            n_members: 4,
            root: FrameRow { offset: 9, compressed: 5, decompressed: 6, digest: [7; 16] },
            table_bytes: 11,
        };
        let packed = |kind| PackedObject {
            name: PackedName { id, token: NameToken([3; 8]), kind, encrypted: true },
            content,
            recipients: vec![[8; 8]],
            about: PackedAbout {
                first: 1,
                last: 2,
                content_bytes: 3,
                n_records: 4,
                rows_digest: [5; 16],
            },
        };
        let unknown = OtherObject {
            kind: 77,
            name: ObjectName::new(format!("{filesystem}/later/thing")).unwrap(),
            content,
            header: Vec::new(),
            recipients: Vec::new(),
            about: vec![9],
        };
        Manifest {
            filesystem,
            epoch,
            snapshot,
            kind: ManifestKind::Snapshot,
            range: XidRange::new(Xid::new(3), Xid::new(9)),
            last_xid: Xid::new(8),
            holds_from: Xid::new(2),
            covered: None,
            created: Timestamp { seconds: -1, nanos: 5 },
            chunk_bytes: 512,
            parent: Some(ManifestRef { epoch, snapshot: SnapshotId::new(1), digest: [7; 32] }),
            epoch_parent: Some(ManifestRef { epoch, snapshot, digest: [9; 32] }),
            writer: WriterToken::from_bytes([6; 16]),
            failed: vec![Ino::new(5)],
            n_inodes: 4,
            data_bytes: 1000,
            tarballs: vec![tarball],
            packed: vec![
                packed(PackedKind::Inodes),
                packed(PackedKind::Steps),
                packed(PackedKind::Segment),
            ],
            others: vec![unknown],
            signer: keys.signer(),
        }
    }

    #[test]
    fn every_kind_survives_a_round_trip_with_objects_that_are_not_known() {
        let keys = Keys::generate().unwrap();
        let snapshot = sample(&keys);
        let part = Manifest { covered: Some(Ino::new(44)), ..snapshot.clone() };
        let of_kind = |kind| Manifest { kind, range: None, ..snapshot.clone() };
        let checkpoint = of_kind(ManifestKind::Checkpoint);
        let (repack, keys_changed) =
            (of_kind(ManifestKind::Repack), of_kind(ManifestKind::KeyChange));
        for manifest in [snapshot.clone(), part, checkpoint, repack, keys_changed] {
            let object = manifest.to_object(&keys).unwrap();
            let opened = Manifest::from_object(&object, &manifest.name(), &keys).unwrap();
            assert_eq!(opened.manifest, manifest);
        }
    }

    #[test]
    fn another_name_is_refused() {
        let keys = Keys::generate().unwrap().without_encryption();
        let object = sample(&keys).to_object(&keys).unwrap();
        let other =
            names::manifest_name(sample(&keys).filesystem, Epoch::new(1), SnapshotId::new(3));
        Manifest::from_object(&object, &other, &keys).unwrap_err();
    }
}
