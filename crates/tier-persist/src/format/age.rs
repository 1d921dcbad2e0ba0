//! The age v1 payload (<https://c2sp.org/age>), sealed and opened by ranges: the only file that
//! names a cipher.
//!
//! Header and key wrapping are the `age` crate's, which has no way to give out the file key; so a
//! recipient and an identity that delegate to the real ones remember it as it passes by. The
//! payload is cut into chunks of 64 KiB, each sealed with ChaCha20-Poly1305 under a nonce of an
//! 11-byte big-endian counter and a last-chunk flag. That is why any range can be opened by itself,
//! why chunks can be sealed on several threads in any order, and why a payload that was cut short,
//! or whose chunks were exchanged, does not open.

use std::collections::HashSet;
use std::fmt;

use age::secrecy::ExposeSecret;
use age::{DecryptError, Decryptor, EncryptError, Encryptor, Identity, Recipient};
use age_core::format::{FileKey, Stanza};
use parking_lot::Mutex;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use tier_types::{ByteRange, to_u64, to_usize};

use crate::error::PersistError;
use crate::format::keys::Keys;

/// Plaintext bytes of every chunk but the last.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
pub(crate) const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 16;
/// A longer header is refused; one recipient takes about 100 bytes.
pub(crate) const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The key of one object's payload.
pub(crate) struct PayloadKey(LessSafeKey);

impl fmt::Debug for PayloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadKey")
    }
}

/// A fresh header for these keys' recipients, with the payload nonce, and the key it wraps.
pub(crate) fn new_header(keys: &Keys) -> Result<(Vec<u8>, PayloadKey), PersistError> {
    let failed = || PersistError::BadKey("these recipients cannot be encrypted for".into());
    // All recipients wrap the same file key: whichever is asked last, it is the one.
    let seen = Mutex::new(None);
    let recipients: Vec<_> =
        keys.recipients().iter().map(|inner| Observed { inner, seen: &seen }).collect();
    let encryptor = Encryptor::with_recipients(recipients.iter().map(|r| -> &dyn Recipient { r }));
    let mut header = Vec::new();
    let writer = encryptor.map_err(|_| failed())?.wrap_output(&mut header);
    // Nothing is written through it: the payload is sealed here. Its header and nonce are in
    // `header`.
    drop(writer.map_err(|_| failed())?);
    let file_key = seen.into_inner().ok_or_else(failed)?;
    let key = payload_key(&file_key, &header).ok_or_else(failed)?;
    Ok((header, key))
}

/// The payload key of an object with this header (as from [`new_header`]).
pub(crate) fn open_header(
    header: &[u8],
    keys: &Keys,
    object: &str,
) -> Result<PayloadKey, PersistError> {
    let damaged = || PersistError::damaged(object, "its age header cannot be read");
    let seen = Mutex::new(None);
    let identity = Observed { inner: keys.identity(), seen: &seen };
    let decryptor = Decryptor::new(header).map_err(|_| damaged())?;
    let opened = decryptor.decrypt(std::iter::once(&identity).map(|i| -> &dyn Identity { i }));
    if let Err(why) = opened {
        // Another identity may open it: that is for the caller to say, and no damage.
        let wrong_key = matches!(why, DecryptError::NoMatchingKeys);
        let object = object.to_string();
        return Err(if wrong_key { PersistError::WrongKey { object } } else { damaged() });
    }
    // A header that opened without its key having passed by is none that this program can use.
    let file_key = seen.into_inner().ok_or_else(damaged)?;
    payload_key(&file_key, header).ok_or_else(damaged)
}

/// How long the header and the nonce at the start of an object are; `None` if there is no header.
pub(crate) fn header_len(start: &[u8]) -> Option<usize> {
    if !start.starts_with(b"age-encryption.org/v1\n") {
        return None;
    }
    // The header is lines of text, of which the last one holds its checksum; the payload's nonce
    // follows the line.
    let mac_line = start.windows(5).position(|window| window == b"\n--- ")? + 1;
    let mac_end = start.get(mac_line..)?.iter().position(|&byte| byte == b'\n')?;
    Some(mac_line + mac_end + 1 + NONCE_BYTES)
}

/// Length of the payload for this many bytes of plaintext.
pub(crate) fn sealed_len(plain_bytes: u64) -> u64 {
    plain_bytes + n_chunks(plain_bytes) * to_u64(TAG_BYTES)
}

/// Bytes of plaintext in a payload of this length; `None` if no payload has it.
pub(crate) fn plain_len(payload_bytes: u64) -> Option<u64> {
    let sealed_chunk = to_u64(CHUNK_BYTES + TAG_BYTES);
    let n_chunks = payload_bytes.div_ceil(sealed_chunk);
    let plain = payload_bytes.checked_sub(n_chunks * to_u64(TAG_BYTES))?;
    // A last chunk of a tag and nothing else is only right for an empty payload.
    (sealed_len(plain) == payload_bytes).then_some(plain)
}

fn n_chunks(plain_bytes: u64) -> u64 {
    plain_bytes.div_ceil(to_u64(CHUNK_BYTES)).max(1)
}

impl PayloadKey {
    /// Seals consecutive chunks, the first of which is number `first_chunk`. Each has
    /// [`CHUNK_BYTES`] and room for its tag behind them; only with `last` the last one may be
    /// shorter.
    #[expect(clippy::expect_used, reason = "the cipher's limit is far above a chunk's length")]
    pub(crate) fn seal_in_place(&self, run: &mut [u8], first_chunk: u64, last: bool) {
        let whole = run.len().is_multiple_of(CHUNK_BYTES + TAG_BYTES);
        assert!(!run.is_empty() && (last || whole), "only the last chunk of all may be short");
        let mut chunks = run.chunks_mut(CHUNK_BYTES + TAG_BYTES).zip(first_chunk..).peekable();
        while let Some((chunk, number)) = chunks.next() {
            let is_last = last && chunks.peek().is_none();
            assert!(chunk.len() >= TAG_BYTES, "a chunk has room for its tag");
            let (plain, room) = chunk.split_at_mut(chunk.len() - TAG_BYTES);
            let nonce = nonce(number, is_last);
            let tag = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), plain);
            room.copy_from_slice(tag.expect("a chunk can be sealed").as_ref());
        }
    }

    /// Opens consecutive sealed chunks, in the memory that they lie in; `None` if any byte of them,
    /// or their position in the object, is not as it was written.
    pub(crate) fn open(
        &self,
        mut sealed: Vec<u8>,
        first_chunk: u64,
        last: bool,
    ) -> Option<Vec<u8>> {
        // Each chunk is opened where it lies and moved down over the tags before it, so that the
        // plaintext needs no memory of its own.
        let mut plain_bytes = 0;
        let mut at = 0;
        let mut number = first_chunk;
        while at < sealed.len() {
            let end = (at + CHUNK_BYTES + TAG_BYTES).min(sealed.len());
            let is_last = last && end == sealed.len();
            let chunk = sealed.get_mut(at..end)?;
            let opened = self.0.open_in_place(nonce(number, is_last), Aad::empty(), chunk).ok()?;
            let opened_bytes = opened.len();
            sealed.copy_within(at..at + opened_bytes, plain_bytes);
            plain_bytes += opened_bytes;
            at = end;
            number += 1;
        }
        sealed.truncate(plain_bytes);
        Some(sealed)
    }
}

/// Where the sealed chunks of a range of plaintext lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SealedRange {
    /// Where in the payload.
    pub(crate) offset: u64,
    pub(crate) len: usize,
    pub(crate) first_chunk: u64,
    /// Whether it reaches the last chunk of the payload.
    pub(crate) last: bool,
    /// Bytes to skip in the opened chunks.
    pub(crate) skip: usize,
}

impl SealedRange {
    /// For a range of the plaintext of a payload that holds `total` bytes of it; `None` if the
    /// range goes beyond.
    pub(crate) fn of(plain: ByteRange, total: u64) -> Option<Self> {
        let end = plain.end().filter(|&end| end <= total)?;
        let offset = plain.offset;
        let first_chunk = offset / to_u64(CHUNK_BYTES);
        // A chunk opens as a whole or not at all, also for a range of nothing.
        let end_chunk = n_chunks(end).max(first_chunk + 1);
        // The last chunk of all is sealed under another nonce: to open it one must know that it is.
        let last = end_chunk >= n_chunks(total);
        let plain_end = (end_chunk * to_u64(CHUNK_BYTES)).min(total);
        let plain_start = first_chunk * to_u64(CHUNK_BYTES);
        let tags = (end_chunk - first_chunk) * to_u64(TAG_BYTES);
        Some(Self {
            offset: first_chunk * to_u64(CHUNK_BYTES + TAG_BYTES),
            len: to_usize(plain_end.checked_sub(plain_start)? + tags),
            first_chunk,
            last,
            skip: to_usize(offset - plain_start),
        })
    }
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    let (counter, flag) = bytes.split_at_mut(11);
    // The counter has 88 bits, of which no object needs more than 64.
    let (_, low) = counter.split_at_mut(3);
    low.copy_from_slice(&number.to_be_bytes());
    flag.copy_from_slice(&[u8::from(last)]);
    // Unique, because the key is made for one object and each chunk of it is sealed once.
    Nonce::assume_unique_for_key(bytes)
}

fn payload_key(file_key: &FileKeyBytes, header: &[u8]) -> Option<PayloadKey> {
    let (_, nonce) = header.split_last_chunk::<NONCE_BYTES>()?;
    let prk = Salt::new(HKDF_SHA256, nonce).extract(file_key);
    let okm = prk.expand(&[b"payload"], &CHACHA20_POLY1305).ok()?;
    Some(PayloadKey(LessSafeKey::new(UnboundKey::from(okm))))
}

type FileKeyBytes = [u8; 16];

/// Delegates to `inner` and remembers the file key that passes by: the real one's answer says
/// whether it was the right one.
struct Observed<'a, T> {
    inner: &'a T,
    seen: &'a Mutex<Option<FileKeyBytes>>,
}

impl<T: Recipient> Recipient for Observed<'_, T> {
    fn wrap_file_key(
        &self,
        file_key: &FileKey,
    ) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        *self.seen.lock() = Some(*file_key.expose_secret());
        self.inner.wrap_file_key(file_key)
    }
}

impl<T: Identity> Identity for Observed<'_, T> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let unwrapped = self.inner.unwrap_stanza(stanza);
        if let Some(Ok(file_key)) = &unwrapped {
            *self.seen.lock() = Some(*file_key.expose_secret());
        }
        unwrapped
    }
}

/// A whole small object: header and sealed payload.
pub(crate) fn seal_all(plain: &[u8], keys: &Keys) -> Result<Vec<u8>, PersistError> {
    let (mut out, key) = new_header(keys)?;
    let start = out.len();
    let mut chunks = plain.chunks(CHUNK_BYTES).peekable();
    loop {
        // Empty plaintext is one empty chunk.
        out.extend_from_slice(chunks.next().unwrap_or_default());
        out.resize(out.len() + TAG_BYTES, 0);
        if chunks.peek().is_none() {
            break;
        }
    }
    let (_, payload) = out.split_at_mut(start);
    key.seal_in_place(payload, 0, true);
    Ok(out)
}

/// The plaintext of a whole small object.
pub(crate) fn open_all(bytes: &[u8], keys: &Keys, object: &str) -> Result<Vec<u8>, PersistError> {
    let damaged = |problem| PersistError::damaged(object, problem);
    let (start, _) = bytes.split_at(HEADER_BYTES_MAX.min(bytes.len()));
    let header = header_len(start).and_then(|len| bytes.split_at_checked(len));
    let (header, sealed) = header.ok_or_else(|| damaged("no age header"))?;
    let key = open_header(header, keys, object)?;
    // Checked before anything is copied: no payload of this length was ever sealed.
    plain_len(to_u64(sealed.len())).ok_or_else(|| damaged("its length is wrong"))?;
    key.open(sealed.to_vec(), 0, true).ok_or_else(|| damaged("decryption failed"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
    }

    #[test]
    fn the_age_crate_opens_what_is_sealed_here_and_the_other_way_round() {
        let keys = Keys::generate().unwrap();
        for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES] {
            let plain = sample(len);
            let sealed = seal_all(&plain, &keys).unwrap();
            let mut opened = Vec::new();
            let identity: &dyn Identity = keys.identity();
            let decryptor = Decryptor::new(&sealed[..]).unwrap();
            let mut reader = decryptor.decrypt(std::iter::once(identity)).unwrap();
            reader.read_to_end(&mut opened).unwrap();
            assert!(opened == plain, "{len}");

            let theirs = age::encrypt(&keys.identity().to_public(), &plain).unwrap();
            assert!(open_all(&theirs, &keys, "x").unwrap() == plain, "{len}");
        }
    }

    #[test]
    fn any_range_opens_alone() {
        let keys = Keys::generate().unwrap();
        let plain = sample(3 * CHUNK_BYTES + 100);
        let sealed = seal_all(&plain, &keys).unwrap();
        let (header, payload) = sealed.split_at(header_len(&sealed).unwrap());
        let key = open_header(header, &keys, "x").unwrap();
        let total = plain_len(to_u64(payload.len())).unwrap();
        assert_eq!(total, to_u64(plain.len()));
        for (offset, len) in [(0, 10), (CHUNK_BYTES - 1, 2), (3 * CHUNK_BYTES, 100), (70_000, 0)] {
            let plain_range = ByteRange { offset: to_u64(offset), len: to_u64(len) };
            let range = SealedRange::of(plain_range, total).unwrap();
            let start = to_usize(range.offset);
            let part = payload[start..start + range.len].to_vec();
            let opened = key.open(part, range.first_chunk, range.last).unwrap();
            assert!(opened[range.skip..range.skip + len] == plain[offset..offset + len]);
        }
        assert_eq!(SealedRange::of(ByteRange { offset: total, len: 1 }, total), None);
    }

    #[test]
    fn another_identity_is_told_apart_from_damage() {
        let keys = Keys::generate().unwrap();
        let mut sealed = seal_all(b"secret", &keys).unwrap();
        let other = open_all(&sealed, &Keys::generate().unwrap(), "x");
        assert!(matches!(other, Err(PersistError::WrongKey { .. })));
        *sealed.last_mut().unwrap() ^= 1;
        assert!(matches!(open_all(&sealed, &keys, "x"), Err(PersistError::Damaged { .. })));
    }
}
