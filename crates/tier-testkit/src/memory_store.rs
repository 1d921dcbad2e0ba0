//! An object store in memory.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use parking_lot::Mutex;
use tier_types::{
    ErrorKind, Flush, ObjectName, ObjectStore, PortError, StagedObject, StagingStore, to_u64,
    to_usize,
};

/// A store that forgets everything when it is dropped.
///
/// ```
/// use tier_testkit::MemoryStore;
/// use tier_types::{ErrorKind, ObjectName, ObjectStore};
///
/// let store = MemoryStore::default();
/// let name = ObjectName::new("a/b").expect("a valid name");
/// store.put(&name, 5, &mut &b"hello"[..])?;
/// assert_eq!(store.list("a/")?, [name.clone()]);
/// store.tamper(&name, |bytes| bytes.truncate(3));
/// let short = store.read_range(&name, 0, &mut [0; 5]).unwrap_err();
/// assert_eq!(short.kind(), ErrorKind::Damaged);
/// # Ok::<(), tier_types::PortError>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Objects>>);

type Objects = BTreeMap<ObjectName, Vec<u8>>;

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
        change(self.0.lock().get_mut(name).expect("the object to be tampered with is there"));
    }

    /// The bytes of an object.
    pub fn bytes(&self, name: &ObjectName) -> Vec<u8> {
        self.0.lock()[name].clone()
    }
}

fn missing(name: &ObjectName) -> PortError {
    PortError::new(ErrorKind::Missing, format!("object {name} is missing"))
}

impl ObjectStore for MemoryStore {
    fn put(
        &self,
        name: &ObjectName,
        len_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError> {
        let mut bytes = Vec::new();
        content.take(len_bytes).read_to_end(&mut bytes).map_err(|source| {
            PortError::new(ErrorKind::Failed, format!("cannot read {name}")).with_source(source)
        })?;
        if to_u64(bytes.len()) != len_bytes {
            return Err(PortError::new(ErrorKind::Failed, format!("{name} ended too early")));
        }
        let mut objects = self.0.lock();
        match objects.get(name) {
            Some(there) if to_u64(there.len()) == len_bytes => Ok(()),
            Some(_) => Err(PortError::new(ErrorKind::Damaged, format!("{name} is taken"))),
            None => {
                objects.insert(name.clone(), bytes);
                Ok(())
            }
        }
    }

    fn len_bytes(&self, name: &ObjectName) -> Result<u64, PortError> {
        self.0.lock().get(name).map(|bytes| to_u64(bytes.len())).ok_or_else(|| missing(name))
    }

    fn read_range(
        &self,
        name: &ObjectName,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), PortError> {
        let objects = self.0.lock();
        let bytes = objects.get(name).ok_or_else(|| missing(name))?;
        let rest = bytes.get(to_usize(offset_bytes)..);
        let found = rest.and_then(|rest| rest.get(..buffer.len())).ok_or_else(|| {
            PortError::new(ErrorKind::Damaged, format!("object {name} ends too early"))
        })?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>, PortError> {
        let objects = self.0.lock();
        Ok(objects.keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), PortError> {
        self.0.lock().remove(name);
        Ok(())
    }
}
