//! A cloud that is compared with the one that a store knows.
//!
//! Before anything is written or deleted the place's identity is read: an object of fifty bytes,
//! beside a tarball of a hundred million. After a write it is read again: the disk may have gone
//! between, from a directory that stays, and only what is in the cloud before and after was put
//! there. At the end of a listing it is read because nothing more may be listed of another place. A
//! read needs none, for digests and keys say of its bytes what they are; only where an object is
//! missing the question is whose.
//!
//! A bucket is not unmounted. There an answer counts for a minute, so that an upload is not mostly
//! questions of whose it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tier_types::{
    Call, CloudId, Created, ErrorKind, ListPage, ObjectContent, ObjectMetadata, ObjectName,
    ObjectStore, ObjectVersion, PortError, RangeRead, StoreLayer,
};

use super::id;
use super::place::may_be_exchanged;

/// Objects in the cloud of this identity; while the place has another one, or none, the store is
/// `Denied` or `Away`.
pub(crate) struct KnownCloud {
    inner: Arc<dyn ObjectStore>,
    /// `None` if the store was restored from a place that had none.
    id: Option<CloudId>,
    /// How long an answer counts.
    remembers: Duration,
    /// When the place was the cloud.
    was_seen: Mutex<Option<Instant>>,
}

/// So long a bucket is what it was.
const REMEMBERED: Duration = Duration::from_mins(1);

impl KnownCloud {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, id: Option<CloudId>) -> Self {
        // The disk of a directory can be unmounted while the store is open, and the directory below
        // may be writable.
        let remembers = if may_be_exchanged(&inner.url()) { Duration::ZERO } else { REMEMBERED };
        Self { inner, id, remembers, was_seen: Mutex::default() }
    }

    /// An error if the place is not the cloud, as far as that may have changed.
    fn check(&self, call: &Call<'_>) -> Result<(), PortError> {
        let was_seen = *self.was_seen.lock();
        if was_seen.is_some_and(|was_seen| was_seen.elapsed() < self.remembers) {
            return Ok(());
        }
        let asked = Instant::now();
        self.ask(call)?;
        *self.was_seen.lock() = Some(asked);
        Ok(())
    }

    /// An error if the place is not the cloud now.
    fn ask(&self, call: &Call<'_>) -> Result<(), PortError> {
        let found = id::read(call, self.inner.as_ref())?;
        let url = self.inner.url();
        match (found, self.id) {
            (Some(found), Some(id)) if found == id => Ok(()),
            // It may come back by itself, as a disk does that is mounted late.
            (None, Some(id)) => Err(PortError::new(
                ErrorKind::Away,
                format!(
                    "{url} is not the cloud of this store: its identity (the object tier-cloud, \
                     with {id}) is not there; is its disk mounted, and is nothing lost?"
                ),
            )),
            (Some(found), Some(id)) => Err(PortError::new(
                ErrorKind::Denied,
                format!(
                    "{url} is another cloud than that of this store: its identity is {found}, and \
                     not {id}; nothing is written to it"
                ),
            )),
            (_, None) => Err(PortError::new(
                ErrorKind::Denied,
                format!(
                    "this store does not know the identity of its cloud at {url}, so that nothing \
                     is written there; set cloud.id in tier.toml to what the object tier-cloud says"
                ),
            )),
        }
    }

    /// What is missing may be so because the place is another one.
    fn explained<T>(&self, call: &Call<'_>, answer: Result<T, PortError>) -> Result<T, PortError> {
        match answer {
            Err(error) if error.kind() == ErrorKind::Missing && self.id.is_some() => {
                self.ask(call)?;
                Err(error)
            }
            answer => answer,
        }
    }
}

impl StoreLayer for KnownCloud {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        self.check(call)?;
        self.explained(call, self.inner.put(call, name, content))?;
        self.check(call)
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        self.check(call)?;
        let created = self.explained(call, self.inner.create(call, name, content))?;
        self.check(call)?;
        Ok(created)
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        self.explained(call, self.inner.metadata(call, name))
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        self.explained(call, self.inner.read_ranges(call, name, ranges))
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        self.explained(call, self.inner.stream(call, name, offset_bytes, take))
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        let page = self.inner.list(call, prefix, after)?;
        // An end that is none would say that there is nothing more.
        if page.is_last && self.id.is_some() {
            self.check(call)?;
        }
        Ok(page)
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        self.check(call)?;
        self.inner.delete(call, name, only)
    }
}

#[cfg(test)]
mod tests {
    use tier_testkit::MemoryStore;

    use super::*;

    const CALL: Call<'static> = Call::bulk();

    /// What each operation answers that relies on the place.
    fn answers(cloud: &dyn ObjectStore) -> Vec<Result<(), PortError>> {
        let name = ObjectName::new("fs/missing").unwrap();
        let content = &&b"bytes"[..];
        vec![
            cloud.put(&CALL, &name, content),
            cloud.create(&CALL, &name, content).map(drop),
            cloud.delete(&CALL, &name, None),
            cloud.metadata(&CALL, &name).map(drop),
            cloud.read_range(&CALL, &name, 0, &mut [0]),
            cloud.stream(&CALL, &name, 0, &mut |_| Ok(())),
            cloud.list(&CALL, "", None).map(drop),
        ]
    }

    #[test]
    fn another_place_is_not_the_cloud() {
        let known = |place, id| KnownCloud::new(Arc::new(place), Some(id));
        let id = id::make(&MemoryStore::default(), false).unwrap();
        for answer in answers(&known(MemoryStore::default(), id)) {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Away, "an empty place");
        }
        let foreign = MemoryStore::default();
        id::make(&foreign, false).unwrap();
        let foreign = known(foreign, id);
        for answer in answers(&foreign) {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Denied, "another cloud");
        }
        assert_eq!(foreign.inner.names(&CALL, "fs/").unwrap(), [], "nothing was written");
    }

    #[test]
    fn the_cloud_is_written_and_read() {
        let place = MemoryStore::default();
        let id = id::make(&place, false).unwrap();
        let cloud: &dyn ObjectStore = &KnownCloud::new(Arc::new(place), Some(id));
        let name = ObjectName::new("fs/there").unwrap();
        cloud.put(&CALL, &name, &&b"bytes"[..]).unwrap();
        assert_eq!(cloud.names(&CALL, "fs/").unwrap(), std::slice::from_ref(&name));
        assert_eq!(cloud.metadata(&CALL, &name).unwrap().len_bytes, 5);
        cloud.delete(&CALL, &name, None).unwrap();
        let missing = cloud.metadata(&CALL, &name).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Missing, "of the cloud that is there");
    }

    #[test]
    fn a_cloud_without_an_identity_is_read_only() {
        let place = MemoryStore::default();
        let name = ObjectName::new("fs/there").unwrap();
        place.put(&CALL, &name, &&b"bytes"[..]).unwrap();
        let cloud: &dyn ObjectStore = &KnownCloud::new(Arc::new(place), None);
        let mut bytes = [0; 5];
        cloud.read_range(&CALL, &name, 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"bytes");
        assert_eq!(cloud.names(&CALL, "").unwrap(), std::slice::from_ref(&name));
        let refused = cloud.put(&CALL, &name, &&b"bytes"[..]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    }
}
