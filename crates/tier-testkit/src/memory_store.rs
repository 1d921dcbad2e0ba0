//! An object store in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use tier_types::{
    Call, Created, ErrorKind, Flush, ListPage, ListedObject, ObjectChecksum, ObjectContent,
    ObjectMetadata, ObjectName, ObjectStore, ObjectVersion, PortError, RangeRead, StagedObject,
    StagingStore, StorageClass, to_u64, to_usize,
};

/// Objects that a page of a listing has: few, so that tests meet a second page.
const N_PAGE: usize = 5;

/// Bytes of a piece of a stream.
const PIECE_BYTES: usize = 4096;

/// A store that forgets everything when it is dropped.
///
/// ```
/// use tier_testkit::MemoryStore;
/// use tier_types::{Call, ErrorKind, ObjectName, ObjectStore};
///
/// let (store, call) = (MemoryStore::default(), Call::bulk());
/// let name = ObjectName::new("a/b").expect("a valid name");
/// store.put(&call, &name, &&b"hello"[..])?;
/// assert_eq!(store.names(&call, "a/")?, [name.clone()]);
/// store.tamper(&name, |bytes| bytes.truncate(3));
/// let short = store.read_range(&call, &name, 0, &mut [0; 5]).unwrap_err();
/// assert_eq!(short.kind(), ErrorKind::Damaged);
/// # Ok::<(), tier_types::PortError>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Objects>>);

#[derive(Debug, Default)]
struct Objects {
    by_name: BTreeMap<ObjectName, Object>,
    /// Objects that were ever made.
    n_made: u64,
}

#[derive(Debug)]
struct Object {
    bytes: Vec<u8>,
    /// Which of all objects it is.
    number: u64,
}

impl Objects {
    fn insert(&mut self, name: ObjectName, bytes: Vec<u8>) {
        self.n_made += 1;
        self.by_name.insert(name, Object { bytes, number: self.n_made });
    }

    fn get(&self, name: &ObjectName) -> Result<&Object, PortError> {
        self.by_name.get(name).ok_or_else(|| missing(name))
    }
}

/// An object on its way into the store.
struct StagedBytes {
    name: ObjectName,
    bytes: Vec<u8>,
    objects: Arc<Mutex<Objects>>,
}

impl StagedObject for StagedBytes {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush_handle(&self) -> Result<Flush, PortError> {
        Ok(Box::new(|| Ok(())))
    }

    fn commit(self: Box<Self>) -> Result<(), PortError> {
        let Self { name, bytes, objects } = *self;
        objects.lock().insert(name, bytes);
        Ok(())
    }
}

impl StagingStore for MemoryStore {
    fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError> {
        let objects = Arc::clone(&self.0);
        Ok(Box::new(StagedBytes { name: name.clone(), bytes: Vec::new(), objects }))
    }

    fn discard_staged(&self) -> Result<(), PortError> {
        Ok(())
    }
}

impl MemoryStore {
    /// Changes an object's bytes, as no store should: damage.
    pub fn tamper(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = self.0.lock();
        let object = objects.by_name.get_mut(name);
        change(&mut object.expect("the object to be tampered with is there").bytes);
    }

    /// The bytes of an object.
    pub fn bytes(&self, name: &ObjectName) -> Vec<u8> {
        self.0.lock().by_name[name].bytes.clone()
    }
}

fn too_short(name: &ObjectName) -> PortError {
    PortError::new(ErrorKind::Damaged, format!("object {name} ends too early"))
}

fn missing(name: &ObjectName) -> PortError {
    PortError::new(ErrorKind::Missing, format!("object {name} is missing"))
}

impl ObjectStore for MemoryStore {
    fn url(&self) -> String {
        "memory:".into()
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        match self.create(call, name, content)? {
            Created::Exists(there) if there.len_bytes != content.len_bytes() => {
                Err(PortError::new(ErrorKind::Conflict, format!("{name} is taken")))
            }
            Created::New | Created::Exists(_) => Ok(()),
        }
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        call.check(name)?;
        let mut bytes = vec![0; to_usize(content.len_bytes())];
        content.read_at(call, 0, &mut bytes)?;
        let mut objects = self.0.lock();
        if let Some(there) = objects.by_name.get(name) {
            return Ok(Created::Exists(metadata_of(there)));
        }
        objects.insert(name.clone(), bytes);
        Ok(Created::New)
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        call.check(name)?;
        self.0.lock().get(name).map(metadata_of)
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        call.check(name)?;
        let objects = self.0.lock();
        let bytes = &objects.get(name)?.bytes;
        for RangeRead { offset_bytes, buffer } in ranges {
            let rest = bytes.get(to_usize(*offset_bytes)..);
            let found = rest.and_then(|rest| rest.get(..buffer.len()));
            buffer.copy_from_slice(found.ok_or_else(|| too_short(name))?);
        }
        Ok(())
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        call.check(name)?;
        // Not under the lock: what takes the bytes may ask the store.
        let bytes = self.0.lock().get(name)?.bytes.clone();
        let rest = bytes.get(to_usize(offset_bytes)..).ok_or_else(|| too_short(name))?;
        for piece in rest.chunks(PIECE_BYTES) {
            call.check(name)?;
            take(piece)?;
        }
        Ok(())
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        call.check(&"a listing")?;
        let objects = self.0.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut listed = objects
            .by_name
            .range::<ObjectName, _>((from, Bound::Unbounded))
            .filter(|(name, _)| name.as_str().starts_with(prefix))
            .map(|(name, object)| ListedObject {
                name: name.clone(),
                len_bytes: to_u64(object.bytes.len()),
            });
        let page = listed.by_ref().take(N_PAGE).collect();
        Ok(ListPage { objects: page, is_last: listed.next().is_none() })
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        call.check(name)?;
        let mut objects = self.0.lock();
        let is_another =
            |there: &Object| only.is_some_and(|only| *only != metadata_of(there).version);
        if objects.by_name.get(name).is_some_and(is_another) {
            return Err(PortError::new(ErrorKind::Conflict, format!("{name} is another one")));
        }
        objects.by_name.remove(name);
        Ok(())
    }
}

fn metadata_of(object: &Object) -> ObjectMetadata {
    ObjectMetadata {
        len_bytes: to_u64(object.bytes.len()),
        checksum: Some(ObjectChecksum::Crc32c(crc32c::crc32c(&object.bytes))),
        class: StorageClass::Online,
        version: ObjectVersion(object.number.to_string()),
    }
}
