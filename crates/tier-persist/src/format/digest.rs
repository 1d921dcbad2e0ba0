//! Digests of objects and frames: SHA-256, which vouches for bytes, and CRC-32C, which object
//! stores compute themselves.

use ring::digest::{Context, SHA256, digest};
use tier_types::to_u64;

/// Bytes of a whole digest.
const SHA256_BYTES: usize = 32;
/// Bytes that are kept of a frame's digest: 128 bits are enough to tell one frame from
/// every other, and a snapshot has many frames.
const FRAME_DIGEST_BYTES: usize = 16;

/// The SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; SHA256_BYTES] {
    whole(digest(&SHA256, bytes))
}

/// The first half of the SHA-256 of a compressed frame.
#[expect(clippy::expect_used, reason = "16 is less than 32")]
pub(crate) fn frame_digest(compressed: &[u8]) -> [u8; FRAME_DIGEST_BYTES] {
    *sha256(compressed).first_chunk().expect("a digest has a first half")
}

/// What the bytes of an object are known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ContentDigest {
    /// Their number.
    pub len_bytes: u64,
    /// Their SHA-256.
    pub sha256: [u8; SHA256_BYTES],
    /// Their CRC-32C, which object stores can tell without sending the bytes.
    pub crc32c: u32,
}

impl ContentDigest {
    /// Of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut stream = ContentStream::default();
        stream.update(bytes);
        stream.finish()
    }
}

/// A [`ContentDigest`] of bytes that come piece by piece.
#[derive(Default)]
pub(crate) struct ContentStream {
    sha256: Sha256Stream,
    crc32c: u32,
    len_bytes: u64,
}

impl ContentStream {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.len_bytes += to_u64(bytes.len());
    }

    pub(crate) fn finish(self) -> ContentDigest {
        let Self { sha256, crc32c, len_bytes } = self;
        ContentDigest { len_bytes, sha256: sha256.finish(), crc32c }
    }
}

/// A SHA-256 of bytes that come piece by piece.
pub(crate) struct Sha256Stream(Context);

impl Default for Sha256Stream {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Sha256Stream {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> [u8; SHA256_BYTES] {
        whole(self.0.finish())
    }
}

#[expect(clippy::expect_used, reason = "the algorithm's output length is fixed")]
fn whole(digest: ring::digest::Digest) -> [u8; SHA256_BYTES] {
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut stream = Sha256Stream::default();
        bytes.chunks(7).for_each(|piece| stream.update(piece));
        let whole = sha256(&bytes);
        assert_eq!(stream.finish(), whole);
        assert_eq!(frame_digest(&bytes), whole[..16]);
        let mut stream = ContentStream::default();
        bytes.chunks(7).for_each(|piece| stream.update(piece));
        let content = ContentDigest { len_bytes: 256, sha256: whole, crc32c: 0x9c44_184b };
        assert_eq!((stream.finish(), ContentDigest::of(&bytes)), (content, content));
    }
}
