//! The manifest: the object that commits a snapshot (`docs/formats/manifest.md`).

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use tier_types::{
    Epoch, Ino, ObjectName, ObjectStore, SnapshotId, Timestamp, Xid, XidRange, to_u64, to_usize,
};

use crate::error::PersistError;
use crate::format::age;
use crate::format::keys::Keys;
use crate::format::names::{self, FilesystemId};
use crate::format::tarball::row::{TarballRow, WireRow};

const MAGIC: &[u8; 8] = b"TIERMAN1";
const SIGNATURE_BYTES: usize = 64;
const COMPRESSION_LEVEL: i32 = 3;
/// Neither an object nor its content is larger.
const BYTES_MAX: u64 = 1 << 30;

/// Points at a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ManifestRef {
    pub(crate) epoch: Epoch,
    pub(crate) snapshot: SnapshotId,
    /// SHA-256 of the object as it is stored.
    pub(crate) digest: [u8; 32],
}

/// One committed snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    pub(crate) filesystem: FilesystemId,
    pub(crate) epoch: Epoch,
    pub(crate) snapshot: SnapshotId,
    pub(crate) range: XidRange,
    pub(crate) created: Timestamp,
    pub(crate) chunk_bytes: u32,
    pub(crate) parent: Option<ManifestRef>,
    /// Inodes that could not be persisted.
    pub(crate) failed: Vec<Ino>,
    pub(crate) n_inodes: u64,
    pub(crate) data_bytes: u64,
    pub(crate) tarballs: Vec<TarballRow>,
    /// The Ed25519 public key that signed it.
    pub(crate) signer: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct WireManifest {
    filesystem: [u8; 16],
    epoch: u64,
    snapshot: u64,
    start: u64,
    end: u64,
    created: (i64, u32),
    chunk_bytes: u32,
    parent: Option<(u64, u64, [u8; 32])>,
    failed: Vec<u64>,
    n_inodes: u64,
    data_bytes: u64,
    tarballs: Vec<WireRow>,
    signer: Vec<u8>,
}

impl Manifest {
    pub(crate) fn name(&self) -> ObjectName {
        names::manifest_name(self.filesystem, self.epoch, self.snapshot)
    }

    /// The object's bytes: signed, compressed, and encrypted if these keys encrypt.
    pub(crate) fn to_object(&self, keys: &Keys) -> Result<Vec<u8>, PersistError> {
        let failed = |source| PersistError::Io {
            operation: "compress",
            object: self.name().to_string(),
            source,
        };
        let content = postcard::to_allocvec(&self.to_wire()).unwrap_or_default();
        let compressed = zstd::bulk::compress(&content, COMPRESSION_LEVEL).map_err(failed)?;
        let mut plain = Vec::with_capacity(compressed.len() + 128);
        plain.extend(MAGIC);
        plain.extend(to_u64(content.len()).to_le_bytes());
        plain.extend(compressed);
        let signature = keys.sign(&plain);
        plain.extend(signature);
        if keys.encrypts() { age::seal_all(&plain, keys) } else { Ok(plain) }
    }

    /// Checks everything that the manifest alone can tell.
    pub(crate) fn from_object(
        bytes: &[u8],
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let damaged = |problem| PersistError::damaged(name, problem);
        let opened;
        let plain = if bytes.starts_with(MAGIC) {
            bytes
        } else {
            opened = age::open_all(bytes, keys, name.as_str())?;
            &opened
        };
        let signed = plain.split_last_chunk::<SIGNATURE_BYTES>();
        let (signed, signature) = signed.ok_or_else(|| damaged("it is too short"))?;
        let rest = signed.strip_prefix(MAGIC).ok_or_else(|| damaged("it is not a manifest"))?;
        let (len, compressed) =
            rest.split_first_chunk::<8>().ok_or_else(|| damaged("it is too short"))?;
        let len = u64::from_le_bytes(*len);
        if len > BYTES_MAX {
            return Err(damaged("it is larger than any may be"));
        }
        let content = decompress(compressed, len).ok_or_else(|| damaged("decompression failed"))?;
        let manifest = Self::from_content(&content);
        let manifest = manifest.ok_or_else(|| damaged("its content cannot be read"))?;
        UnparsedPublicKey::new(&ED25519, &manifest.signer)
            .verify(signed, signature)
            .map_err(|_| damaged("its signature is wrong"))?;
        if manifest.name() != *name {
            return Err(damaged("it is another snapshot's manifest"));
        }
        Ok(manifest)
    }

    /// The manifest that was serialised as these bytes.
    pub(crate) fn from_content(content: &[u8]) -> Option<Self> {
        Self::from_wire(postcard::from_bytes(content).ok()?)
    }

    /// Reads a manifest and its digest from a store.
    pub(crate) fn read(
        store: &dyn ObjectStore,
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<(Self, ManifestRef), PersistError> {
        let len = store.len_bytes(name).map_err(PersistError::Store)?;
        if len > BYTES_MAX {
            return Err(PersistError::damaged(name, "it is larger than any may be"));
        }
        let mut bytes = vec![0; to_usize(len)];
        store.read_range(name, 0, &mut bytes).map_err(PersistError::Store)?;
        let manifest = Self::from_object(&bytes, name, keys)?;
        let reference = manifest.reference(&bytes);
        Ok((manifest, reference))
    }

    /// Points at this manifest, stored as these bytes.
    pub(crate) fn reference(&self, object: &[u8]) -> ManifestRef {
        ManifestRef { epoch: self.epoch, snapshot: self.snapshot, digest: sha256(object) }
    }

    fn to_wire(&self) -> WireManifest {
        WireManifest {
            filesystem: self.filesystem.to_bytes(),
            epoch: self.epoch.get(),
            snapshot: self.snapshot.get(),
            start: self.range.start().get(),
            end: self.range.end().get(),
            created: (self.created.seconds, self.created.nanos),
            chunk_bytes: self.chunk_bytes,
            parent: self.parent.map(|p| (p.epoch.get(), p.snapshot.get(), p.digest)),
            failed: self.failed.iter().map(|ino| ino.get()).collect(),
            n_inodes: self.n_inodes,
            data_bytes: self.data_bytes,
            tarballs: self.tarballs.iter().map(WireRow::from).collect(),
            signer: self.signer.clone(),
        }
    }

    fn from_wire(wire: WireManifest) -> Option<Self> {
        let (seconds, nanos) = wire.created;
        let parent = wire.parent.map(|(epoch, snapshot, digest)| ManifestRef {
            epoch: Epoch::new(epoch),
            snapshot: SnapshotId::new(snapshot),
            digest,
        });
        (wire.chunk_bytes > 0 && nanos < 1_000_000_000).then_some(())?;
        Some(Self {
            filesystem: FilesystemId::from_bytes(wire.filesystem),
            epoch: Epoch::new(wire.epoch),
            snapshot: SnapshotId::new(wire.snapshot),
            range: XidRange::new(Xid::new(wire.start), Xid::new(wire.end))?,
            created: Timestamp { seconds, nanos },
            chunk_bytes: wire.chunk_bytes,
            parent,
            failed: wire.failed.into_iter().map(Ino::new).collect(),
            n_inodes: wire.n_inodes,
            data_bytes: wire.data_bytes,
            tarballs: wire.tarballs.into_iter().map(TarballRow::from).collect(),
            signer: wire.signer,
        })
    }
}

/// SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Exactly `len` bytes, growing with what is really there.
fn decompress(compressed: &[u8], len: u64) -> Option<Vec<u8>> {
    use std::io::Read;

    let mut content = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(compressed).ok()?;
    decoder.take(len.saturating_add(1)).read_to_end(&mut content).ok()?;
    (to_u64(content.len()) == len).then_some(content)
}
