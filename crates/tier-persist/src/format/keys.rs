//! The keys of an archive: an age identity, the recipients to encrypt for, and a signing key.
//!
//! There is one secret to keep, the age identity: the Ed25519 key that signs manifests is derived
//! from it, so that a restore with the identity can also tell whether a manifest is its own
//! writer's (`docs/adr/0005-signing-key-from-identity.md`). An extra recipient reads everything and
//! signs nothing.

use std::fmt;
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use age::x25519;
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::error::PersistError;
use crate::format::digest::sha256;
use crate::format::signer::Signer;

/// What the signing key is derived for; a change of this text would be another key.
const SIGNING_SALT: &[u8] = b"tier manifest signature 1";

/// The keys of one filesystem: an age identity to read with, recipients to write for, and a
/// signing key for manifests, which is derived from the identity so that there is one secret to
/// keep.
///
/// ```
/// # fn main() -> Result<(), tier_persist::PersistError> {
/// use tier_persist::Keys;
///
/// let keys = Keys::generate()?;
/// // The file that the operator keeps. Whatever was encrypted, it opens.
/// let file = keys.to_identity_file("2026-01-01");
/// let mut again = Keys::from_identity_file(&file)?;
/// assert_eq!(again.public_key(), keys.public_key());
///
/// // An offline recovery key reads as well what is written from now on.
/// let recovery = Keys::generate()?;
/// again.add_recipient(&recovery.public_key())?;
/// assert!(again.encrypts() && !again.without_encryption().encrypts());
/// # Ok(())
/// # }
/// ```
pub struct Keys {
    identity: x25519::Identity,
    recipients: Vec<x25519::Recipient>,
    encrypt: bool,
    signer: Ed25519KeyPair,
}

impl Keys {
    /// A fresh identity.
    pub fn generate() -> Result<Self, PersistError> {
        Self::new(x25519::Identity::generate())
    }

    /// The first identity in the text of an identity file, as `age-keygen` writes it.
    pub fn from_identity_file(text: &str) -> Result<Self, PersistError> {
        // Everything else in the file is comments, as other programs that read it have it.
        let line = text
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with("AGE-SECRET-KEY-1"))
            .ok_or_else(|| {
                PersistError::BadKey("the identity file has no line AGE-SECRET-KEY-1…".into())
            })?;
        let identity = x25519::Identity::from_str(line)
            .map_err(|why| PersistError::BadKey(format!("not an age identity: {why}")))?;
        Self::new(identity)
    }

    fn new(identity: x25519::Identity) -> Result<Self, PersistError> {
        let signer = signing_key(&identity)
            .ok_or_else(|| PersistError::BadKey("no signing key can be derived".into()))?;
        // What is written must be readable by its writer: recall needs it.
        let recipients = vec![identity.to_public()];
        Ok(Self { identity, recipients, encrypt: true, signer })
    }

    /// Also encrypts for this recipient (`age1…`).
    pub fn add_recipient(&mut self, text: &str) -> Result<(), PersistError> {
        let recipient = x25519::Recipient::from_str(text.trim())
            .map_err(|why| PersistError::BadKey(format!("not an age recipient: {text}: {why}")))?;
        self.recipients.push(recipient);
        Ok(())
    }

    /// Writes in clear from now on; manifests are signed all the same.
    #[must_use]
    pub fn without_encryption(mut self) -> Self {
        // The identity stays: it opens what was encrypted before, and signs what is written from
        // now on.
        self.encrypt = false;
        self
    }

    /// The text of an identity file, as `age-keygen` writes it. It holds the secret.
    pub fn to_identity_file(&self, created: &str) -> String {
        let public = self.identity.to_public();
        let secret = self.identity.to_string();
        format!("# created: {created}\n# public key: {public}\n{}\n", secret.expose_secret())
    }

    /// The recipient that belongs to the identity, `age1…`.
    pub fn public_key(&self) -> String {
        self.identity.to_public().to_string()
    }

    /// Whether what is written is encrypted.
    pub fn encrypts(&self) -> bool {
        self.encrypt
    }

    pub(crate) fn identity(&self) -> &x25519::Identity {
        &self.identity
    }

    pub(crate) fn recipients(&self) -> &[x25519::Recipient] {
        &self.recipients
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message).as_ref().to_vec()
    }

    /// The public half of the signing key.
    #[expect(clippy::expect_used, reason = "an Ed25519 public key has 32 bytes")]
    pub fn signer(&self) -> Signer {
        let bytes = self.signer.public_key().as_ref();
        Signer::from_bytes(bytes.try_into().expect("32 bytes"))
    }

    /// Short names of the recipients: the first 8 bytes of the SHA-256 of each one's text. Empty if
    /// nothing is encrypted.
    #[expect(clippy::expect_used, reason = "a digest has 32 bytes")]
    pub(crate) fn recipient_fingerprints(&self) -> Vec<[u8; 8]> {
        let fingerprint = |recipient: &x25519::Recipient| -> [u8; 8] {
            *sha256(recipient.to_string().as_bytes()).first_chunk().expect("8 is less than 32")
        };
        let recipients = self.recipients.iter().map(fingerprint);
        if self.encrypt { recipients.collect() } else { Vec::new() }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secret: this may end in a log.
        f.debug_struct("Keys").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

fn signing_key(identity: &x25519::Identity) -> Option<Ed25519KeyPair> {
    let secret = identity.to_string();
    let key_material = secret.expose_secret().as_bytes();
    let mut seed = [0; 32];
    // The salt and the info text keep this key apart from every other use of the identity.
    let pseudorandom_key = Salt::new(HKDF_SHA256, SIGNING_SALT).extract(key_material);
    pseudorandom_key.expand(&[b"ed25519"], HKDF_SHA256).ok()?.fill(&mut seed).ok()?;
    // Unchecked, because no public key is kept that the derived one could be compared with.
    Ed25519KeyPair::from_seed_unchecked(&seed).ok()
}

/// Bytes that nothing outside this process could foresee.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], PersistError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PersistError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_file_survives_a_round_trip_and_keeps_its_signing_key() {
        let keys = Keys::generate().unwrap();
        let again = Keys::from_identity_file(&keys.to_identity_file("now")).unwrap();
        assert_eq!(again.public_key(), keys.public_key());
        assert_eq!(again.signer(), keys.signer());
        assert!(!format!("{keys:?}").contains("SECRET"));
    }
}
