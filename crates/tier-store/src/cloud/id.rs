//! The identity of a cloud: an object that is made once.
//!
//! ```text
//! tier cloud 1
//! id 32 hexadecimal digits
//! ```
//!
//! It is called `tier-cloud`, lies beside the filesystems' prefixes, and says nothing of them. It
//! is created conditionally and never again: two stores that begin with one place at a time find
//! one identity there.

use ring::rand::{SecureRandom, SystemRandom};
use tier_types::{Call, CloudId, Created, ErrorKind, ObjectName, ObjectStore, PortError};

use crate::StoreError;

const HEAD: &str = "tier cloud 1\nid ";

/// The length of the object.
const LEN_BYTES: usize = HEAD.len() + 32 + 1;

fn random() -> Result<CloudId, StoreError> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| StoreError::Unusable("the system gives no random bytes".into()))?;
    Ok(CloudId::from_bytes(bytes))
}

fn to_object(id: CloudId) -> String {
    format!("{HEAD}{id}\n")
}

fn from_object(bytes: &[u8]) -> Option<CloudId> {
    let text = std::str::from_utf8(bytes).ok()?;
    CloudId::parse(text.strip_prefix(HEAD)?.strip_suffix('\n')?)
}

/// The identity of a cloud; `None` if the place has none. An object that is none is an error of
/// kind `Damaged`.
pub(crate) fn read(call: &Call<'_>, cloud: &dyn ObjectStore) -> Result<Option<CloudId>, PortError> {
    let name = name();
    let mut bytes = Vec::new();
    // One request, whose answer says more than that to a question for metadata does: why a store
    // refuses, say. What has the name may be of any length.
    let read = cloud.stream(call, &name, 0, &mut |piece| {
        bytes.extend_from_slice(piece);
        if bytes.len() > LEN_BYTES { Err(is_none(cloud)) } else { Ok(()) }
    });
    match read {
        Err(error) if error.kind() == ErrorKind::Missing => return Ok(None),
        read => read?,
    }
    from_object(&bytes).map(Some).ok_or_else(|| is_none(cloud))
}

/// The error of an object that has the name of an identity.
fn is_none(cloud: &dyn ObjectStore) -> PortError {
    let message = format!("{}/{} is no identity of a cloud", cloud.url(), name());
    PortError::new(ErrorKind::Damaged, message)
}

/// Gives a place an identity, and returns the one that it has then. Whether that may be another
/// one, which was there, `adopts` says.
pub(crate) fn make(cloud: &dyn ObjectStore, adopts: bool) -> Result<CloudId, StoreError> {
    let (call, new) = (Call::bulk(), random()?);
    let created = cloud.create(&call, &name(), &to_object(new).as_bytes())?;
    // Also after a creation: what counts is what the place says from now on.
    let url = cloud.url();
    match read(&call, cloud)? {
        Some(id) if id == new || (created != Created::New && adopts) => Ok(id),
        Some(id) if created != Created::New => Err(is_there_already(id, &url)),
        _ => Err(StoreError::Unusable(format!("{url} does not keep what is written to it"))),
    }
}

/// The error of a store that would take a cloud for its own without being told to.
pub(crate) fn is_there_already(id: CloudId, url: &str) -> StoreError {
    StoreError::Unusable(format!(
        "{url} is a cloud already, with the identity {id}; if this store is to have its archive \
         there beside what is in it, say so (--adopt-cloud)"
    ))
}

#[expect(clippy::expect_used, reason = "a constant")]
fn name() -> ObjectName {
    ObjectName::new("tier-cloud").expect("a valid name")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tier_testkit::{Fault, FaultyStore, MemoryStore};

    use super::*;

    const CALL: Call<'static> = Call::bulk();

    #[test]
    fn a_place_has_one_identity_which_is_adopted_if_that_is_said() {
        let cloud = MemoryStore::default();
        assert_eq!(read(&CALL, &cloud).unwrap(), None);
        let id = make(&cloud, false).unwrap();
        assert_eq!(read(&CALL, &cloud).unwrap(), Some(id));
        assert_eq!(make(&cloud, true).unwrap(), id, "the one that is there");
        let refused = make(&cloud, false).unwrap_err().to_string();
        assert!(refused.contains(&id.to_string()) && refused.contains("adopt"), "{refused}");
        assert_ne!(make(&MemoryStore::default(), false).unwrap(), id);
        let text = cloud.bytes(&name());
        assert_eq!(text, format!("tier cloud 1\nid {id}\n").as_bytes());
    }

    #[test]
    fn what_is_no_identity_is_damage() {
        for bad in [
            "",
            "tier cloud 2\nid 000102030405060708090a0b0c0d0e0f\n",
            "tier cloud 1\nid 000102030405060708090A0B0C0D0E0F\n",
            "tier cloud 1\nid +00102030405060708090a0b0c0d0e0f\n",
            "tier cloud 1\nid 000102030405060708090a0b0c0d0e0f",
            "tier cloud 1\nid 000102030405060708090a0b0c0d0e0f\nmore",
        ] {
            let cloud = MemoryStore::default();
            cloud.put(&CALL, &name(), &bad.as_bytes()).unwrap();
            let error = read(&CALL, &cloud).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{bad:?}");
            assert!(make(&cloud, true).is_err(), "it is not replaced: {bad:?}");
        }
    }

    #[test]
    fn a_store_that_loses_what_is_put_is_no_cloud() {
        let cloud = FaultyStore::new(Arc::new(MemoryStore::default()));
        cloud.break_at(0, Fault::LostPut);
        let error = make(&cloud, false).unwrap_err();
        assert!(error.to_string().contains("does not keep"), "{error}");
    }
}
