//! One step of the history: what is known of a manifest without reading it again.
//!
//! The index keeps the bytes of each step beside the contents, so that a store is opened without
//! reading its manifests, and knows the digest of each if one is lost.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tier_types::{
    Call, Epoch, Ino, ObjectName, ObjectStore, SnapshotId, Timestamp, Xid, XidRange, to_u64,
};

use crate::error::PersistError;
use crate::format::digest::ContentDigest;
use crate::format::keys::Keys;
use crate::format::manifest::{Manifest, ManifestKind, ManifestRef, OpenedManifest, WireRef};
use crate::format::names::{self, FilesystemId, PackedKind};
use crate::format::packed::PackedObject;
use crate::format::postcard;
use crate::format::signed::SIGNED_BYTES_MAX;
use crate::format::signer::{SIGNER_BYTES, Signer};
use crate::read::small::read_small;

/// What a committed snapshot is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotSummary {
    /// The epoch of its writer: that writer's term over the archive.
    pub epoch: Epoch,
    /// Its number.
    pub snapshot: SnapshotId,
    /// Its transactions; `None` if it brings none, as a checkpoint, or what begins an epoch.
    pub range: Option<XidRange>,
    /// The last transaction of the history up to it.
    pub last_xid: Xid,
    /// `None` if it is complete. Otherwise it is a part of a long snapshot, of which this part and
    /// those before it hold the inodes up to this one.
    pub covered: Option<Ino>,
    /// When it was committed.
    pub created: Timestamp,
    /// Inodes that changed.
    pub n_inodes: u64,
    /// File data, before compression.
    pub data_bytes: u64,
    /// Tarballs.
    pub n_tarballs: u64,
    /// Length of the tarballs.
    pub tarball_bytes: u64,
    /// What it is.
    pub kind: StepKind,
    /// What must be read to know what it holds: of a snapshot the tables of contents, of a
    /// checkpoint its objects; in bytes.
    pub table_bytes: u64,
    /// Inodes that could not be read in full, to be tried again with the next snapshot.
    pub failed: Vec<Ino>,
    /// Its manifest could not be read when the history was: what it held is not in the index, and
    /// nothing more is known of it.
    pub is_lost: bool,
}

/// What a step of the history is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StepKind {
    /// What changed since the step before.
    Snapshot,
    /// All that is live, by itself: nothing has changed since the step before.
    Checkpoint,
}

/// An object of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredObject {
    /// Its name.
    pub name: ObjectName,
    /// What its bytes must be.
    pub content: ContentDigest,
}

/// Steps of a history, oldest first. They are shared, because a copy is made when one is added
/// while the others are in use.
pub(crate) type Chain = Vec<Arc<ChainLink>>;

/// A manifest of the history, without what it lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChainLink {
    pub(crate) reference: ManifestRef,
    pub(crate) content: ContentDigest,
    pub(crate) summary: SnapshotSummary,
    pub(crate) chunk_bytes: u32,
    pub(crate) parent: Option<ManifestRef>,
    /// What the first step of its epoch continues.
    pub(crate) epoch_parent: Option<ManifestRef>,
    pub(crate) signer: Signer,
    pub(crate) encrypted: bool,
    /// As its manifest says; the first transaction of all if that is lost.
    pub(crate) holds_from: Xid,
    /// Not all of it could be read when this history was restored: what nothing is known of may
    /// have been data.
    pub(crate) is_doubtful: bool,
}

/// A step with its manifest.
pub(crate) struct ReadStep {
    pub(crate) link: ChainLink,
    pub(crate) manifest: Manifest,
}

impl ChainLink {
    /// Reads a manifest.
    pub(crate) fn read(
        store: &dyn ObjectStore,
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        Ok(Self::read_step(store, name, keys)?.link)
    }

    /// Reads a manifest, and keeps it.
    pub(crate) fn read_step(
        store: &dyn ObjectStore,
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<ReadStep, PersistError> {
        let bytes = read_small(&Call::bulk(), store, name, SIGNED_BYTES_MAX)?;
        let OpenedManifest { manifest, encrypted, .. } = Manifest::from_object(&bytes, name, keys)?;
        let link = Self::of(&manifest, &bytes, encrypted)?;
        Ok(ReadStep { link, manifest })
    }

    /// What is kept of a manifest whose object has these bytes.
    pub(crate) fn of(
        manifest: &Manifest,
        object: &[u8],
        encrypted: bool,
    ) -> Result<Self, PersistError> {
        let kind = match manifest.kind {
            ManifestKind::Snapshot => StepKind::Snapshot,
            ManifestKind::Checkpoint => StepKind::Checkpoint,
            ManifestKind::Repack | ManifestKind::KeyChange => {
                let problem = "it is of a kind that this version of tier does not know";
                return Err(PersistError::damaged(manifest.name(), problem));
            }
        };
        // The lengths are the manifest's word: they need not have a sum.
        let lengths = manifest.tarballs.iter().map(|tarball| tarball.content.len_bytes);
        let tarball_bytes = lengths.fold(0, u64::saturating_add);
        let tables = manifest.tarballs.iter().map(|tarball| tarball.table_bytes);
        let is_read = |object: &&PackedObject| object.name.kind != PackedKind::Segment;
        let packed = manifest.packed.iter().filter(is_read).map(|object| object.content.len_bytes);
        let table_bytes = tables.chain(packed).fold(0, u64::saturating_add);
        let summary = SnapshotSummary {
            epoch: manifest.epoch,
            snapshot: manifest.snapshot,
            range: manifest.range,
            last_xid: manifest.last_xid,
            covered: manifest.covered,
            created: manifest.created,
            n_inodes: manifest.n_inodes,
            data_bytes: manifest.data_bytes,
            n_tarballs: to_u64(manifest.tarballs.len()),
            tarball_bytes,
            kind,
            table_bytes,
            failed: manifest.failed.clone(),
            is_lost: false,
        };
        Ok(Self {
            reference: manifest.reference(object),
            content: ContentDigest::of(object),
            summary,
            chunk_bytes: manifest.chunk_bytes,
            parent: manifest.parent,
            epoch_parent: manifest.epoch_parent,
            signer: manifest.signer,
            encrypted,
            holds_from: manifest.holds_from,
            is_doubtful: false,
        })
    }

    /// The step before `after`, of which the manifest is lost.
    pub(crate) fn lost(reference: ManifestRef, after: &Self) -> Self {
        // It ended where the next one begins, if that brings transactions.
        let start = after.summary.range.map(|range| range.start().get());
        let last = start.map_or(after.summary.last_xid.get(), |start| start.saturating_sub(1));
        let summary = SnapshotSummary {
            epoch: reference.epoch,
            snapshot: reference.snapshot,
            range: None,
            last_xid: Xid::new(last),
            covered: None,
            created: after.summary.created,
            n_inodes: 0,
            data_bytes: 0,
            n_tarballs: 0,
            tarball_bytes: 0,
            kind: StepKind::Snapshot,
            table_bytes: 0,
            failed: Vec::new(),
            is_lost: true,
        };
        let content = ContentDigest { len_bytes: 0, sha256: reference.digest, crc32c: 0 };
        Self {
            reference,
            content,
            summary,
            chunk_bytes: after.chunk_bytes,
            parent: None,
            epoch_parent: after.epoch_parent,
            signer: after.signer,
            encrypted: after.encrypted,
            holds_from: Xid::new(0),
            is_doubtful: true,
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.summary.is_lost
    }

    pub(crate) fn name(&self, filesystem: FilesystemId) -> ObjectName {
        names::manifest_name(filesystem, self.summary.epoch, self.summary.snapshot)
    }

    pub(crate) fn object(&self, filesystem: FilesystemId) -> StoredObject {
        StoredObject { name: self.name(filesystem), content: self.content }
    }

    /// An error if this does not continue the step before it. A new epoch may begin behind
    /// transactions that were never archived, and has another signer if the operator said so;
    /// within an epoch there is neither.
    pub(crate) fn check_continues(
        &self,
        before: &Self,
        filesystem: FilesystemId,
    ) -> Result<(), PersistError> {
        let is_known = !self.is_lost() && !before.is_lost();
        let is_same_epoch = is_known && self.summary.epoch == before.summary.epoch;
        let last = before.summary.last_xid;
        // What brings no transactions begins where its parent ends.
        let start = self.summary.range.map_or(last.next(), XidRange::start);
        let problem =
            if !self.is_lost() && !before.is_lost() && self.parent != Some(before.reference) {
                "its parent is not the one that is there"
            } else if self.summary.snapshot <= before.summary.snapshot {
                "its number is not above its parent's"
            } else if (is_known && start <= last) || self.summary.last_xid < last {
                "its transactions begin before the end of its parent's"
            } else if is_same_epoch && start > last.next() {
                "transactions between its parent and itself are missing"
            } else if is_same_epoch && self.signer != before.signer {
                "it is signed by another key"
            } else if self.chunk_bytes != before.chunk_bytes {
                "its chunk size is another"
            } else if before.encrypted && !self.encrypted {
                "it is in clear, and what it continues is encrypted"
            } else {
                return Ok(());
            };
        Err(PersistError::BrokenChain { name: self.name(filesystem).to_string(), problem })
    }

    /// The bytes that the index keeps.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        postcard::append(&WireLink::from(self), &mut out);
        out
    }

    /// From the bytes that the index keeps; `None` if they are none, or of another version.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, bytes) = bytes.split_first()?;
        (*version == VERSION).then_some(())?;
        postcard::parse::<WireLink>(bytes)?.into_link()
    }
}

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct WireLink {
    reference: WireRef,
    len_bytes: u64,
    crc32c: u32,
    /// First transaction, if there is any.
    start: Option<u64>,
    last_xid: u64,
    covered: Option<u64>,
    seconds: i64,
    nanos: u32,
    n_inodes: u64,
    data_bytes: u64,
    n_tarballs: u64,
    tarball_bytes: u64,
    failed: Vec<u64>,
    chunk_bytes: u32,
    parent: Option<WireRef>,
    epoch_parent: Option<WireRef>,
    signer: [u8; SIGNER_BYTES],
    encrypted: bool,
    kind: StepKind,
    table_bytes: u64,
    holds_from: u64,
    is_lost: bool,
    is_doubtful: bool,
}

impl From<&ChainLink> for WireLink {
    fn from(link: &ChainLink) -> Self {
        let ChainLink { reference, content, summary, chunk_bytes, parent, signer, .. } = link;
        let ChainLink { encrypted, .. } = link;
        Self {
            reference: WireRef::from(reference),
            len_bytes: content.len_bytes,
            crc32c: content.crc32c,
            start: summary.range.map(|range| range.start().get()),
            last_xid: summary.last_xid.get(),
            covered: summary.covered.map(Ino::get),
            seconds: summary.created.seconds,
            nanos: summary.created.nanos,
            n_inodes: summary.n_inodes,
            data_bytes: summary.data_bytes,
            n_tarballs: summary.n_tarballs,
            tarball_bytes: summary.tarball_bytes,
            failed: summary.failed.iter().map(|ino| ino.get()).collect(),
            chunk_bytes: *chunk_bytes,
            parent: parent.as_ref().map(WireRef::from),
            epoch_parent: link.epoch_parent.as_ref().map(WireRef::from),
            signer: signer.to_bytes(),
            encrypted: *encrypted,
            kind: summary.kind,
            table_bytes: summary.table_bytes,
            holds_from: link.holds_from.get(),
            is_lost: summary.is_lost,
            is_doubtful: link.is_doubtful,
        }
    }
}

impl WireLink {
    fn into_link(self) -> Option<ChainLink> {
        let reference = ManifestRef::from(self.reference);
        let last_xid = Xid::new(self.last_xid);
        let range = match self.start {
            Some(start) => Some(XidRange::new(Xid::new(start), last_xid.next())?),
            None => None,
        };
        let (len_bytes, crc32c) = (self.len_bytes, self.crc32c);
        Some(ChainLink {
            reference,
            content: ContentDigest { len_bytes, sha256: reference.digest, crc32c },
            summary: SnapshotSummary {
                epoch: reference.epoch,
                snapshot: reference.snapshot,
                range,
                last_xid,
                covered: self.covered.map(Ino::new),
                created: Timestamp { seconds: self.seconds, nanos: self.nanos },
                n_inodes: self.n_inodes,
                data_bytes: self.data_bytes,
                n_tarballs: self.n_tarballs,
                tarball_bytes: self.tarball_bytes,
                kind: self.kind,
                table_bytes: self.table_bytes,
                failed: self.failed.into_iter().map(Ino::new).collect(),
                is_lost: self.is_lost,
            },
            chunk_bytes: self.chunk_bytes,
            parent: self.parent.map(ManifestRef::from),
            epoch_parent: self.epoch_parent.map(ManifestRef::from),
            signer: Signer::from_bytes(self.signer),
            encrypted: self.encrypted,
            holds_from: Xid::new(self.holds_from),
            is_doubtful: self.is_doubtful,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_survives_as_bytes_and_another_version_is_none() {
        let reference =
            ManifestRef { epoch: Epoch::new(2), snapshot: SnapshotId::new(9), digest: [4; 32] };
        let range = XidRange::new(Xid::new(5), Xid::new(8));
        for range in [None, range] {
            let link = ChainLink {
                reference,
                content: ContentDigest { len_bytes: 7, sha256: [4; 32], crc32c: 3 },
                summary: SnapshotSummary {
                    epoch: reference.epoch,
                    snapshot: reference.snapshot,
                    range,
                    last_xid: Xid::new(7),
                    covered: range.map(|_| Ino::new(3)),
                    created: Timestamp { seconds: -1, nanos: 2 },
                    n_inodes: 3,
                    data_bytes: 4,
                    n_tarballs: 5,
                    tarball_bytes: 6,
                    kind: if range.is_none() { StepKind::Checkpoint } else { StepKind::Snapshot },
                    table_bytes: 9,
                    failed: vec![Ino::new(8)],
                    is_lost: range.is_none(),
                },
                chunk_bytes: 512,
                parent: Some(reference),
                epoch_parent: range.map(|_| reference),
                signer: Signer::from_bytes([6; SIGNER_BYTES]),
                encrypted: true,
                holds_from: Xid::new(4),
                is_doubtful: range.is_some(),
            };
            let mut bytes = link.to_bytes();
            assert_eq!(ChainLink::from_bytes(&bytes), Some(link));
            bytes[0] += 1;
            assert_eq!(ChainLink::from_bytes(&bytes), None);
            assert_eq!(ChainLink::from_bytes(&bytes[..10]), None);
        }
    }
}
