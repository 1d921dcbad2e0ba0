//! The manifest: the signed object that commits a snapshot (`docs/formats/manifest.md`).
//!
//! A snapshot exists when its manifest does. The manifest is written last, lists every tarball with
//! its length, digest and frames, and names its parent with the parent's digest, so that the
//! manifests are a chain of which none can be exchanged without breaking what follows it. It can be
//! checked by itself up to its signature; whether it continues its parent is for the chain to
//! check ([`crate::read::chain`]).

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use tier_types::{Epoch, Ino, ObjectName, SnapshotId, Timestamp, Xid, XidRange, to_u64};

use crate::error::PersistError;
use crate::format::digest::sha256;
use crate::format::keys::Keys;
use crate::format::names::{self, FilesystemId};
use crate::format::tarball::row::{TarballRow, WireRow};
use crate::format::{age, postcard};

const MAGIC: &[u8; 8] = b"TIERMAN1";
const SIGNATURE_BYTES: usize = 64;
const COMPRESSION_LEVEL: i32 = 3;
/// Neither an object nor its content is larger.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 30;

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
    /// Inodes that could not be read in full, and are to be tried again.
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
    created: WireTime,
    chunk_bytes: u32,
    parent: Option<WireRef>,
    failed: Vec<u64>,
    n_inodes: u64,
    data_bytes: u64,
    tarballs: Vec<WireRow>,
    signer: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct WireTime {
    seconds: i64,
    nanos: u32,
}

#[derive(Serialize, Deserialize)]
struct WireRef {
    epoch: u64,
    snapshot: u64,
    digest: [u8; 32],
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
        let content = postcard::to_bytes(&self.to_wire());
        let compressed = zstd::bulk::compress(&content, COMPRESSION_LEVEL).map_err(failed)?;
        let mut plain = Vec::with_capacity(compressed.len() + 128);
        plain.extend(MAGIC);
        plain.extend(to_u64(content.len()).to_le_bytes());
        plain.extend(compressed);
        // The signature is inside the encryption: without the key nothing can be told of the
        // writer.
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
        // Whether it is encrypted shows in the object itself, so that a store may hold both.
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
        // Bounded before it is decompressed: a small object could come to any length.
        let len = u64::from_le_bytes(*len);
        if len > MANIFEST_BYTES_MAX {
            return Err(damaged("it is larger than any may be"));
        }
        // Before the signature is checked, because its key is in here: so the length has a bound,
        // and decoding trusts nothing.
        let content = decompress(compressed, len).ok_or_else(|| damaged("decompression failed"))?;
        let manifest =
            Self::from_content(&content).ok_or_else(|| damaged("its content cannot be read"))?;
        // The key is the manifest's own: it proves that one writer made it, and not yet which. The
        // chain compares signers, and the caller its own key.
        UnparsedPublicKey::new(&ED25519, &manifest.signer)
            .verify(signed, signature)
            .map_err(|_| damaged("its signature is wrong"))?;
        // Otherwise a store could answer with an older one.
        if manifest.name() != *name {
            return Err(damaged("it is another snapshot's manifest"));
        }
        Ok(manifest)
    }

    /// The manifest that was serialised as these bytes.
    pub(crate) fn from_content(content: &[u8]) -> Option<Self> {
        Self::from_wire(postcard::parse(content)?)
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
            created: WireTime { seconds: self.created.seconds, nanos: self.created.nanos },
            chunk_bytes: self.chunk_bytes,
            parent: self.parent.as_ref().map(WireRef::from),
            failed: self.failed.iter().map(|ino| ino.get()).collect(),
            n_inodes: self.n_inodes,
            data_bytes: self.data_bytes,
            tarballs: self.tarballs.iter().map(WireRow::from).collect(),
            signer: self.signer.clone(),
        }
    }

    fn from_wire(wire: WireManifest) -> Option<Self> {
        let WireTime { seconds, nanos } = wire.created;
        // Values that would break arithmetic further up are refused here, once.
        (wire.chunk_bytes > 0 && nanos < 1_000_000_000).then_some(())?;
        Some(Self {
            filesystem: FilesystemId::from_bytes(wire.filesystem),
            epoch: Epoch::new(wire.epoch),
            snapshot: SnapshotId::new(wire.snapshot),
            range: XidRange::new(Xid::new(wire.start), Xid::new(wire.end))?,
            created: Timestamp { seconds, nanos },
            chunk_bytes: wire.chunk_bytes,
            parent: wire.parent.map(ManifestRef::from),
            failed: wire.failed.into_iter().map(Ino::new).collect(),
            n_inodes: wire.n_inodes,
            data_bytes: wire.data_bytes,
            tarballs: wire.tarballs.into_iter().map(TarballRow::from).collect(),
            signer: wire.signer,
        })
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

/// Exactly `len` bytes, growing with what is really there.
fn decompress(compressed: &[u8], len: u64) -> Option<Vec<u8>> {
    use std::io::Read;

    // Not as much as it says, but as much as comes: the length may be a lie of a gigabyte.
    let mut content = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(compressed).ok()?;
    // One byte more than it should be, so that content which is too long is refused and not cut.
    decoder.take(len.saturating_add(1)).read_to_end(&mut content).ok()?;
    (to_u64(content.len()) == len).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(keys: &Keys) -> Manifest {
        let digest = [7; 32];
        Manifest {
            filesystem: FilesystemId::from_bytes([0x5a; 16]),
            epoch: Epoch::new(1),
            snapshot: SnapshotId::new(2),
            range: XidRange::new(Xid::new(3), Xid::new(9)).unwrap(),
            created: Timestamp { seconds: -1, nanos: 5 },
            chunk_bytes: 512,
            parent: Some(ManifestRef {
                epoch: Epoch::new(1),
                snapshot: SnapshotId::new(1),
                digest,
            }),
            failed: vec![Ino::new(5)],
            n_inodes: 4,
            data_bytes: 1000,
            tarballs: Vec::new(),
            signer: keys.signer_public().to_vec(),
        }
    }

    #[test]
    fn a_manifest_survives_a_round_trip_and_no_flipped_bit_of_it_does() {
        for keys in [Keys::generate().unwrap(), Keys::generate().unwrap().without_encryption()] {
            let manifest = sample(&keys);
            let object = manifest.to_object(&keys).unwrap();
            let read = |bytes: &[u8]| Manifest::from_object(bytes, &manifest.name(), &keys);
            assert_eq!(read(&object).unwrap(), manifest);
            for at in 0..object.len() {
                let mut flipped = object.clone();
                flipped[at] ^= 1;
                read(&flipped).unwrap_err();
                read(&object[..at]).unwrap_err();
            }
        }
    }

    #[test]
    fn another_signer_or_name_is_refused() {
        let keys = Keys::generate().unwrap().without_encryption();
        let forged = sample(&Keys::generate().unwrap()).to_object(&keys).unwrap();
        let name = sample(&keys).name();
        let error = Manifest::from_object(&forged, &name, &keys).unwrap_err();
        assert!(error.to_string().contains("signature"), "{error}");
        let object = sample(&keys).to_object(&keys).unwrap();
        let other =
            names::manifest_name(sample(&keys).filesystem, Epoch::new(1), SnapshotId::new(3));
        Manifest::from_object(&object, &other, &keys).unwrap_err();
    }
}
