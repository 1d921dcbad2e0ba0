//! The claim: the signed object by which a store takes an epoch (`docs/formats/cloud.md`).
//!
//! An epoch is one writer's term over a filesystem's archive. Its claim has one known name and is
//! made by a conditional create, so that no two stores have one epoch. What it says is for the
//! loser: which machine has it, since when. The token tells the claimant itself that the claim is
//! its own, also if the acknowledgement was lost, and which of two copies of a store wrote a
//! manifest.

use std::fmt;

use serde::{Deserialize, Serialize};
use tier_types::{Epoch, ObjectName, Timestamp};

use crate::error::PersistError;
use crate::format::keys::{Keys, random_bytes};
use crate::format::names::{self, FilesystemId};
use crate::format::postcard;
use crate::format::signed::{self, Magic, SignedContent};
use crate::format::signer::Signer;

const MAGIC: Magic = *b"TIERCLM1";
/// No claim says more.
const CONTENT_BYTES_MAX: u64 = 4096;
/// Of the object, with its signature and encrypted for many recipients.
pub(crate) const CLAIM_BYTES_MAX: u64 = 64 << 10;
/// A longer machine name is cut.
const MACHINE_BYTES_MAX: usize = 255;

/// Names one store as a writer: 16 random bytes, written as 32 hexadecimal digits. A store has
/// another one in each epoch that it claims.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterToken([u8; 16]);

impl WriterToken {
    /// A new one.
    pub fn random() -> Result<Self, PersistError> {
        Ok(Self(random_bytes()?))
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// From its 32 digits.
    pub fn parse(text: &str) -> Option<Self> {
        // The parser of numbers would take a sign, too.
        let digits = text.len() == 32 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for WriterToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for WriterToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterToken({self})")
    }
}

/// One writer's word that an epoch is its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Whose archive.
    pub filesystem: FilesystemId,
    /// Which epoch.
    pub epoch: Epoch,
    /// The store that has it.
    pub writer: WriterToken,
    /// The machine on which that store was, for people.
    pub machine: String,
    /// When it was claimed, by that machine's clock.
    pub created: Timestamp,
    /// What signed it.
    pub signer: Signer,
}

#[derive(Serialize, Deserialize)]
struct WireClaim {
    filesystem: [u8; 16],
    epoch: u64,
    writer: [u8; 16],
    machine: String,
    seconds: i64,
    nanos: u32,
}

impl Claim {
    /// The name of its object.
    pub fn name(&self) -> ObjectName {
        names::claim_name(self.filesystem, self.epoch)
    }

    /// The object's bytes: compressed, signed, and encrypted if these keys encrypt.
    pub(crate) fn to_object(&self, keys: &Keys) -> Result<Vec<u8>, PersistError> {
        assert_eq!(self.signer, keys.signer(), "a claim names the key that signs it");
        let mut machine = self.machine.clone();
        machine.truncate(machine.floor_char_boundary(MACHINE_BYTES_MAX));
        let wire = WireClaim {
            filesystem: self.filesystem.to_bytes(),
            epoch: self.epoch.get(),
            writer: self.writer.to_bytes(),
            machine,
            seconds: self.created.seconds,
            nanos: self.created.nanos,
        };
        signed::seal(MAGIC, &postcard::to_bytes(&wire), &self.name(), keys)
    }

    /// Checks everything that the claim alone can tell.
    pub(crate) fn from_object(
        bytes: &[u8],
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let SignedContent { content, signer, .. } =
            signed::open(MAGIC, CONTENT_BYTES_MAX, bytes, name, keys)?;
        let claim = Self::from_content(&content, signer)
            .ok_or_else(|| PersistError::damaged(name, "its content cannot be read"))?;
        if claim.name() != *name {
            return Err(PersistError::damaged(name, "it is another epoch's claim"));
        }
        Ok(claim)
    }

    /// The claim that was serialised as these bytes.
    pub(crate) fn from_content(content: &[u8], signer: Signer) -> Option<Self> {
        let wire: WireClaim = postcard::parse(content)?;
        let WireClaim { filesystem, epoch, writer, machine, seconds, nanos } = wire;
        (nanos < 1_000_000_000 && machine.len() <= MACHINE_BYTES_MAX).then_some(())?;
        Some(Self {
            filesystem: FilesystemId::from_bytes(filesystem),
            epoch: Epoch::new(epoch),
            writer: WriterToken::from_bytes(writer),
            machine,
            created: Timestamp { seconds, nanos },
            signer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_survives_a_round_trip_under_its_own_name_alone() {
        for keys in [Keys::generate().unwrap(), Keys::generate().unwrap().without_encryption()] {
            let claim = Claim {
                filesystem: FilesystemId::from_bytes([1; 16]),
                epoch: Epoch::new(3),
                writer: WriterToken::random().unwrap(),
                machine: "host".into(),
                created: Timestamp { seconds: 7, nanos: 1 },
                signer: keys.signer(),
            };
            let object = claim.to_object(&keys).unwrap();
            assert_eq!(Claim::from_object(&object, &claim.name(), &keys).unwrap(), claim);
            let other = names::claim_name(claim.filesystem, Epoch::new(4));
            Claim::from_object(&object, &other, &keys).unwrap_err();
            let long = Claim { machine: "ä".repeat(400), ..claim };
            let object = long.to_object(&keys).unwrap();
            let machine = Claim::from_object(&object, &long.name(), &keys).unwrap().machine;
            assert_eq!(machine, "ä".repeat(127));
        }
    }

    #[test]
    fn a_token_survives_as_text() {
        let token = WriterToken::random().unwrap();
        assert_eq!(WriterToken::parse(&token.to_string()), Some(token));
        assert_eq!(WriterToken::parse("+0112233445566778899aabbccddeeff"), None);
    }
}
