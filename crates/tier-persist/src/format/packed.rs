//! Packed objects: one value, compressed and encrypted, that is read and written as a whole
//! (`docs/formats/manifest.md`).
//!
//! A manifest that is signed says how long the object is, what its digest must be, and how long its
//! content is. So a reader allocates no more than that, and decompresses nothing that it was not
//! told to expect. Any of them opens with `age -d | zstd -d`.

use serde::{Deserialize, Serialize};
use tier_types::{ObjectName, to_u64};

use crate::error::PersistError;
use crate::format::age;
use crate::format::digest::ContentDigest;
use crate::format::keys::Keys;
use crate::format::names::{self, FilesystemId, PackedName};

/// No content is longer.
const CONTENT_BYTES_MAX: u64 = 256 << 20;
/// What does not compress grows a little, and encryption adds a header and tags.
const OBJECT_BYTES_MAX: u64 = CONTENT_BYTES_MAX + (1 << 20);

/// A packed object, as its manifest says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PackedObject {
    pub(crate) name: PackedName,
    pub(crate) content: ContentDigest,
    /// Short names of the recipients that it is encrypted for.
    pub(crate) recipients: Vec<[u8; 8]>,
    pub(crate) about: PackedAbout,
}

/// What a manifest says of a packed object beyond what it says of every object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct PackedAbout {
    /// The first inode, step or transaction in it.
    pub(crate) first: u64,
    /// The last one.
    pub(crate) last: u64,
    /// Bytes of its content.
    pub(crate) content_bytes: u64,
    /// Of a checkpoint: records in it.
    pub(crate) n_records: u64,
    /// First half of the SHA-256 of what the index says of them.
    pub(crate) rows_digest: [u8; 16],
}

impl PackedObject {
    pub(crate) fn object_name(&self, filesystem: FilesystemId) -> ObjectName {
        names::packed_name(filesystem, self.name)
    }

    /// Whether anything of these lengths is read at all: to be asked before it is allocated.
    pub(crate) fn has_sound_lengths(&self) -> bool {
        self.content.len_bytes <= OBJECT_BYTES_MAX && self.about.content_bytes <= CONTENT_BYTES_MAX
    }
}

/// The bytes of an object with this content.
pub(crate) fn pack(
    content: &[u8],
    level: i32,
    name: &ObjectName,
    keys: &Keys,
) -> Result<Vec<u8>, PersistError> {
    // Refused here and not by every reader: what is written can be read.
    if to_u64(content.len()) > CONTENT_BYTES_MAX {
        return Err(PersistError::damaged(name, "it would be larger than any may be"));
    }
    let failed =
        |source| PersistError::Io { operation: "compress", object: name.to_string(), source };
    let compressed = zstd::bulk::compress(content, level).map_err(failed)?;
    if keys.encrypts() { age::seal_all(&compressed, keys) } else { Ok(compressed) }
}

/// The content of an object whose bytes were compared with its digest.
pub(crate) fn unpack(
    bytes: &[u8],
    object: &PackedObject,
    name: &ObjectName,
    keys: &Keys,
) -> Result<Vec<u8>, PersistError> {
    assert!(object.has_sound_lengths(), "the lengths were looked at before it was read");
    let opened;
    let compressed = if object.name.encrypted {
        opened = age::open_all(bytes, keys, name.as_str())?;
        &opened
    } else {
        bytes
    };
    let content_bytes = tier_types::to_usize(object.about.content_bytes);
    // The length is a limit for the decompressor, and must be reached.
    zstd::bulk::decompress(compressed, content_bytes)
        .ok()
        .filter(|content| content.len() == content_bytes)
        .ok_or_else(|| PersistError::damaged(name, "decompression failed"))
}
