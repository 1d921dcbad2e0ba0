//! Signers, and what people know them by.

use crate::format::digest::sha256;

/// Bytes of an Ed25519 public key.
pub(crate) const SIGNER_BYTES: usize = 32;

/// The public key of a signer, an Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signer([u8; SIGNER_BYTES]);

impl Signer {
    /// From its bytes.
    pub(crate) fn from_bytes(bytes: [u8; SIGNER_BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn to_bytes(self) -> [u8; SIGNER_BYTES] {
        self.0
    }

    /// What people compare: 32 hexadecimal digits, half of the key's SHA-256.
    pub fn fingerprint(&self) -> String {
        sha256(&self.0).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_has_32_digits_and_tells_signers_apart() {
        let [one, two] = [[1; SIGNER_BYTES], [2; SIGNER_BYTES]].map(Signer::from_bytes);
        assert_eq!(one.fingerprint().len(), 32);
        assert_ne!(one.fingerprint(), two.fingerprint());
    }
}
