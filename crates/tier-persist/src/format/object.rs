//! One stored object, read by ranges of its plaintext.
//!
//! An object is stored in clear or inside an age envelope. Either way a reader asks for bytes of
//! the plaintext, and the envelope says which stored bytes those are. That it knows the plaintext's
//! length from the start is what makes a truncated object an error instead of short data: the
//! length is the manifest's, or what the store says of an object whose manifest is lost, and a
//! range beyond it is refused before anything is read.

use tier_types::{ByteRange, Call, ObjectName, ObjectStore, to_u64, to_usize};

use crate::error::PersistError;
use crate::format::age::{self, HEADER_BYTES_MAX, PayloadKey, SealedRange};
use crate::format::keys::Keys;
use crate::format::names;

/// How an object's plaintext is wrapped, and how much of it there is.
#[derive(Debug)]
pub(crate) struct Envelope {
    wrapping: Wrapping,
    plain_bytes: u64,
}

#[derive(Debug)]
enum Wrapping {
    Clear,
    Age { header_bytes: u64, key: Box<PayloadKey> },
}

impl Envelope {
    /// For an object of this length with the header that a manifest keeps of it, which is empty for
    /// one in clear.
    pub(crate) fn of_object(
        name: &ObjectName,
        header: &[u8],
        object_bytes: u64,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        // What encrypts an object is its header and not its name: the manifest says which it has.
        if header.is_empty() {
            return Ok(Self { wrapping: Wrapping::Clear, plain_bytes: object_bytes });
        }
        let key = Box::new(age::open_header(header, keys, name.as_str())?);
        let header_bytes = to_u64(header.len());
        let plain_bytes = object_bytes
            .checked_sub(header_bytes)
            .and_then(age::plain_len)
            .ok_or_else(|| PersistError::damaged(name, "its length is wrong"))?;
        Ok(Self { wrapping: Wrapping::Age { header_bytes, key }, plain_bytes })
    }

    /// Bytes of plaintext in the object.
    pub(crate) fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Reads exactly these bytes of the plaintext.
    pub(crate) fn read(
        &self,
        call: &Call<'_>,
        store: &dyn ObjectStore,
        name: &ObjectName,
        range: ByteRange,
    ) -> Result<Vec<u8>, PersistError> {
        let beyond = || PersistError::damaged(name, "it is shorter than its index says");
        // Refused before anything of that length is allocated.
        range.end().filter(|&end| end <= self.plain_bytes).ok_or_else(beyond)?;
        let Wrapping::Age { header_bytes, key } = &self.wrapping else {
            let mut plain = vec![0; to_usize(range.len)];
            store.read_range(call, name, range.offset, &mut plain).map_err(PersistError::Store)?;
            return Ok(plain);
        };
        let sealed_range = SealedRange::of(range, self.plain_bytes).ok_or_else(beyond)?;
        // The sum fits: header and payload are parts of one object, whose length is a `u64`.
        let at = header_bytes + sealed_range.offset;
        let mut sealed = vec![0; sealed_range.len];
        store.read_range(call, name, at, &mut sealed).map_err(PersistError::Store)?;
        let SealedRange { first_chunk, last, skip, .. } = sealed_range;
        let mut plain = key.open(sealed, first_chunk, last).ok_or_else(|| {
            PersistError::damaged(format!("{name} at offset {at}"), "decryption failed")
        })?;
        // What opened has the length that was sealed, so that the range lies in it.
        assert!(skip + to_usize(range.len) <= plain.len(), "the sealed range covers the plain one");
        // The chunks around the range were read with it; they are cut off in place.
        plain.drain(..skip);
        plain.truncate(to_usize(range.len));
        Ok(plain)
    }
}

/// An object in a store, open for reading.
pub(crate) struct SealedObject<'a> {
    store: &'a dyn ObjectStore,
    name: ObjectName,
    envelope: Envelope,
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
        let envelope = Envelope::of_object(name, header, object_bytes, keys)?;
        Ok(Self { store, name: name.clone(), envelope })
    }

    /// Opens an object by its own header.
    pub(crate) fn open(
        store: &'a dyn ObjectStore,
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let ObjectHeader { header, object_bytes } = ObjectHeader::read(store, name)?;
        Self::with_header(store, name, &header, object_bytes, keys)
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
    }

    pub(crate) fn plain_bytes(&self) -> u64 {
        self.envelope.plain_bytes()
    }

    pub(crate) fn read(&self, range: ByteRange) -> Result<Vec<u8>, PersistError> {
        self.envelope.read(&Call::bulk(), self.store, &self.name, range)
    }
}

/// What a stored object says of itself, without a manifest.
pub(crate) struct ObjectHeader {
    /// The age header with the payload nonce; empty for an object in clear.
    pub(crate) header: Vec<u8>,
    pub(crate) object_bytes: u64,
}

impl ObjectHeader {
    pub(crate) fn read(store: &dyn ObjectStore, name: &ObjectName) -> Result<Self, PersistError> {
        let call = Call::bulk();
        let object_bytes = store.metadata(&call, name).map_err(PersistError::Store)?.len_bytes;
        // One read of what a header can have at most, instead of a search for its end.
        let start_bytes = object_bytes.min(to_u64(HEADER_BYTES_MAX));
        let mut header = vec![0; to_usize(start_bytes)];
        store.read_range(&call, name, 0, &mut header).map_err(PersistError::Store)?;
        match age::header_len(&header) {
            Some(len) if len <= header.len() => header.truncate(len),
            // Only an object that calls itself encrypted must have a header.
            None if !names::is_encrypted(name) => header.clear(),
            Some(_) | None => {
                return Err(PersistError::damaged(name, "its age header cannot be read"));
            }
        }
        Ok(Self { header, object_bytes })
    }
}

#[cfg(test)]
mod tests {
    use tier_testkit::MemoryStore;

    use super::*;

    #[test]
    fn a_range_is_read_whole_or_not_at_all() {
        let plain: Vec<u8> = (0..200_000).map(|n: u32| u8::try_from(n % 251).unwrap()).collect();
        let keys = Keys::generate().unwrap();
        let store = MemoryStore::default();
        let sealed = age::seal_all(&plain, &keys).unwrap();
        for (content, name) in [(&plain, "x.tar.zst"), (&sealed, "x.tar.zst.age")] {
            let name = ObjectName::new(name).unwrap();
            store.put(&Call::bulk(), &name, &content.as_slice()).unwrap();
            let object = SealedObject::open(&store, &name, &keys).unwrap();
            assert_eq!(object.plain_bytes(), 200_000);
            for (offset, len) in [(0, 0), (0, 200_000), (65_535, 2), (199_999, 1), (200_000, 0)] {
                let bytes = object.read(ByteRange { offset, len }).unwrap();
                assert!(bytes == plain[to_usize(offset)..to_usize(offset + len)]);
            }
            for (offset, len) in [(0, 200_001), (200_000, 1), (u64::MAX, 2)] {
                let error = object.read(ByteRange { offset, len }).unwrap_err();
                assert!(matches!(error, PersistError::Damaged { .. }), "{error}");
            }
        }
    }
}
