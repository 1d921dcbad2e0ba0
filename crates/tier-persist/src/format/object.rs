//! One stored object, read by ranges of its plaintext.

use tier_types::{ObjectName, ObjectStore, to_u64};

use crate::error::PersistError;
use crate::format::age::{self, HEADER_BYTES_MAX, PayloadKey, SealedRange};
use crate::format::keys::Keys;
use crate::format::names;

/// An object with its key, if it is encrypted.
pub(crate) struct SealedObject<'a> {
    store: &'a dyn ObjectStore,
    name: ObjectName,
    envelope: Envelope,
    plain_bytes: u64,
}

/// How an object's plaintext is wrapped.
#[derive(Debug)]
pub(crate) enum Envelope {
    Plain,
    Age { header_bytes: u64, key: Box<PayloadKey> },
}

impl Envelope {
    /// From the header that a manifest keeps, empty for an object in clear.
    pub(crate) fn from_header(
        header: &[u8],
        keys: &Keys,
        object: &str,
    ) -> Result<Self, PersistError> {
        if header.is_empty() {
            return Ok(Self::Plain);
        }
        let key = age::open_header(header, keys, object)?;
        Ok(Self::Age { header_bytes: to_u64(header.len()), key: Box::new(key) })
    }

    /// Bytes of plaintext in an object of this length.
    pub(crate) fn plain_len(&self, object_bytes: u64) -> Option<u64> {
        match self {
            Self::Plain => Some(object_bytes),
            Self::Age { header_bytes, .. } => {
                age::plain_len(object_bytes.checked_sub(*header_bytes)?)
            }
        }
    }

    /// Reads `len` bytes of plaintext.
    pub(crate) fn read(
        &self,
        (store, name): (&dyn ObjectStore, &ObjectName),
        (offset, len): (u64, usize),
        plain_bytes: u64,
    ) -> Result<Vec<u8>, PersistError> {
        let beyond = || PersistError::damaged(name, "it is shorter than its index says");
        match self {
            Self::Plain => {
                offset.checked_add(to_u64(len)).filter(|&e| e <= plain_bytes).ok_or_else(beyond)?;
                let mut plain = vec![0; len];
                store.read_range(name, offset, &mut plain).map_err(PersistError::Store)?;
                Ok(plain)
            }
            Self::Age { header_bytes, key } => {
                let range = SealedRange::of(offset, len, plain_bytes).ok_or_else(beyond)?;
                let mut sealed = vec![0; range.len];
                store
                    .read_range(name, header_bytes + range.offset, &mut sealed)
                    .map_err(PersistError::Store)?;
                let mut plain =
                    key.open(sealed, range.first_chunk, range.last).ok_or_else(|| {
                        let at = header_bytes + range.offset;
                        PersistError::damaged(format!("{name} at offset {at}"), "decryption failed")
                    })?;
                plain.drain(..range.skip.min(plain.len()));
                plain.truncate(len);
                Ok(plain)
            }
        }
    }
}

impl<'a> SealedObject<'a> {
    /// Opens an object of this length whose header is known, empty for one in clear.
    pub(crate) fn with_header(
        store: &'a dyn ObjectStore,
        name: &ObjectName,
        header: &[u8],
        object_bytes: u64,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let envelope = Envelope::from_header(header, keys, name.as_str())?;
        let plain_bytes = envelope.plain_len(object_bytes);
        let plain_bytes =
            plain_bytes.ok_or_else(|| PersistError::damaged(name, "its length is wrong"))?;
        Ok(Self { store, name: name.clone(), envelope, plain_bytes })
    }

    /// Opens an object by its own header.
    pub(crate) fn open(
        store: &'a dyn ObjectStore,
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let (header, object_bytes) = read_header(store, name)?;
        Self::with_header(store, name, &header, object_bytes, keys)
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
    }

    pub(crate) fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, PersistError> {
        self.envelope.read((self.store, &self.name), (offset, len), self.plain_bytes)
    }
}

/// The age header at the start of an object, empty if there is none, and the object's length.
pub(crate) fn read_header(
    store: &dyn ObjectStore,
    name: &ObjectName,
) -> Result<(Vec<u8>, u64), PersistError> {
    let object_bytes = store.len_bytes(name).map_err(PersistError::Store)?;
    let start_bytes = object_bytes.min(to_u64(HEADER_BYTES_MAX));
    let mut start = vec![0; tier_types::to_usize(start_bytes)];
    store.read_range(name, 0, &mut start).map_err(PersistError::Store)?;
    let encrypted = names::is_encrypted(name);
    match age::header_len(&start) {
        Some(len) if len <= start.len() => start.truncate(len),
        None if !encrypted => start.clear(),
        _ => return Err(PersistError::damaged(name, "its age header cannot be read")),
    }
    Ok((start, object_bytes))
}
