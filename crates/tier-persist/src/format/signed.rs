//! Signed objects: the envelope that claims and manifests have in common
//! (`docs/formats/manifest.md`).
//!
//! The signer's key and the lengths stand in front of the content. A reader checks the signature
//! over all of it before it decompresses or decodes anything: no byte of an object that was not
//! signed reaches a decompressor. The key is the object's own; it proves that one writer made it
//! and not which. Which signers count is for the caller to say.

use ring::signature::{ED25519, UnparsedPublicKey};
use tier_types::{ObjectName, to_u64};

use crate::error::PersistError;
use crate::format::age;
use crate::format::keys::Keys;
use crate::format::signer::{SIGNER_BYTES, Signer};

/// What the object is, and the version of its format.
pub(crate) type Magic = [u8; 8];

const SIGNATURE_BYTES: usize = 64;
const COMPRESSION_LEVEL: i32 = 3;
/// Neither an object nor its content is larger.
pub(crate) const SIGNED_BYTES_MAX: u64 = 1 << 30;

/// What a signed object holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SignedContent {
    pub(crate) content: Vec<u8>,
    pub(crate) signer: Signer,
    /// Whether the object was encrypted.
    pub(crate) encrypted: bool,
}

/// The object's bytes: compressed, signed, and encrypted if these keys encrypt.
pub(crate) fn seal(
    magic: Magic,
    content: &[u8],
    name: &ObjectName,
    keys: &Keys,
) -> Result<Vec<u8>, PersistError> {
    let failed =
        |source| PersistError::Io { operation: "compress", object: name.to_string(), source };
    let compressed = zstd::bulk::compress(content, COMPRESSION_LEVEL).map_err(failed)?;
    // Refused here and not by every reader: what is written can be read.
    if to_u64(content.len()) > SIGNED_BYTES_MAX {
        let problem = "it would be larger than any may be";
        return Err(PersistError::damaged(name, problem));
    }
    let mut plain = Vec::with_capacity(compressed.len() + 128);
    plain.extend(magic);
    plain.extend(keys.signer().to_bytes());
    plain.extend(to_u64(content.len()).to_le_bytes());
    plain.extend(to_u64(compressed.len()).to_le_bytes());
    plain.extend(compressed);
    // The signature is inside the encryption: without the key nothing can be told of the writer.
    let signature = keys.sign(&plain);
    plain.extend(signature);
    if keys.encrypts() { age::seal_all(&plain, keys) } else { Ok(plain) }
}

/// Opens an object whose content has at most `content_bytes_max` bytes, and checks its signature.
pub(crate) fn open(
    magic: Magic,
    content_bytes_max: u64,
    bytes: &[u8],
    name: &ObjectName,
    keys: &Keys,
) -> Result<SignedContent, PersistError> {
    let damaged = |problem| PersistError::damaged(name, problem);
    let short = || damaged("it is too short");
    // Whether it is encrypted shows in the object itself, so that a store may hold both.
    let opened;
    let encrypted = !bytes.starts_with(&magic);
    let plain = if encrypted {
        opened = age::open_all(bytes, keys, name.as_str())?;
        &opened
    } else {
        bytes
    };
    let (signed, signature) = plain.split_last_chunk::<SIGNATURE_BYTES>().ok_or_else(short)?;
    let rest = signed.strip_prefix(&magic).ok_or_else(|| damaged("it is something else"))?;
    let (signer, rest) = rest.split_first_chunk::<SIGNER_BYTES>().ok_or_else(short)?;
    let (content_bytes, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (stored_bytes, compressed) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    if u64::from_le_bytes(*stored_bytes) != to_u64(compressed.len()) {
        return Err(damaged("its length is wrong"));
    }
    UnparsedPublicKey::new(&ED25519, signer)
        .verify(signed, signature)
        .map_err(|_| damaged("its signature is wrong"))?;
    // Bounded before it is decompressed: also a signer may have been wrong.
    let content_bytes = u64::from_le_bytes(*content_bytes);
    if content_bytes > content_bytes_max {
        return Err(damaged("it is larger than any may be"));
    }
    let content =
        decompress(compressed, content_bytes).ok_or_else(|| damaged("decompression failed"))?;
    Ok(SignedContent { content, signer: Signer::from_bytes(*signer), encrypted })
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

    const MAGIC: Magic = *b"TIERTST1";

    #[test]
    fn an_object_survives_a_round_trip_and_no_flipped_bit_of_it_does() {
        let name = ObjectName::new("object").unwrap();
        for keys in [Keys::generate().unwrap(), Keys::generate().unwrap().without_encryption()] {
            let object = seal(MAGIC, b"content", &name, &keys).unwrap();
            let opened = open(MAGIC, SIGNED_BYTES_MAX, &object, &name, &keys).unwrap();
            let SignedContent { content, signer, encrypted } = opened;
            assert_eq!(content, b"content");
            assert_eq!((signer, encrypted), (keys.signer(), keys.encrypts()));
            for at in 0..object.len() {
                let mut flipped = object.clone();
                flipped[at] ^= 1;
                open(MAGIC, SIGNED_BYTES_MAX, &flipped, &name, &keys).unwrap_err();
                open(MAGIC, SIGNED_BYTES_MAX, &object[..at], &name, &keys).unwrap_err();
            }
            open(*b"TIERTST2", SIGNED_BYTES_MAX, &object, &name, &keys).unwrap_err();
        }
    }

    #[test]
    fn nothing_is_decompressed_before_the_signature_was_checked() {
        let name = ObjectName::new("object").unwrap();
        let keys = Keys::generate().unwrap().without_encryption();
        let mut object = seal(MAGIC, &[0; 1000], &name, &keys).unwrap();
        // No decompressor would take what is there now; the signature is what is complained of.
        let content_at = 8 + SIGNER_BYTES + 16;
        object[content_at..content_at + 8].fill(0xff);
        let error = open(MAGIC, SIGNED_BYTES_MAX, &object, &name, &keys).unwrap_err();
        assert!(error.to_string().contains("signature"), "{error}");
        let object = seal(MAGIC, &[0; 1000], &name, &keys).unwrap();
        let error = open(MAGIC, 999, &object, &name, &keys).unwrap_err();
        assert!(error.to_string().contains("larger than any"), "{error}");
    }
}
