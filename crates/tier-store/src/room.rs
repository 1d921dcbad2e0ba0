//! A local object store that asks for room before it writes.
//!
//! Tarballs, manifests and the key-value store share one disk and one limit, and the filesystem
//! keeps the account of both. The persister therefore writes through this store, which asks the
//! filesystem's port before each piece. A refusal is an error of the kind `NoSpace`: the snapshot
//! fails, leaves nothing behind, and is tried again.

use std::io::Read;
use std::sync::Arc;

use tier_types::{
    Flush, MountedInstance, ObjectName, ObjectStore, PortError, StagedObject, StagingStore, to_u64,
};

/// Objects of another store, written where the filesystem has room for them.
pub(crate) struct RoomAsking {
    pub(crate) store: Arc<dyn StagingStore>,
    pub(crate) instance: Arc<dyn MountedInstance>,
}

impl ObjectStore for RoomAsking {
    fn put(
        &self,
        name: &ObjectName,
        len_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError> {
        self.instance.check_room(len_bytes)?;
        self.store.put(name, len_bytes, content)
    }

    fn len_bytes(&self, name: &ObjectName) -> Result<u64, PortError> {
        self.store.len_bytes(name)
    }

    fn read_range(
        &self,
        name: &ObjectName,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), PortError> {
        self.store.read_range(name, offset_bytes, buffer)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>, PortError> {
        self.store.list(prefix)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), PortError> {
        self.store.delete(name)
    }
}

impl StagingStore for RoomAsking {
    fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError> {
        let object = self.store.stage(name)?;
        Ok(Box::new(Staged { object, instance: Arc::clone(&self.instance) }))
    }

    fn discard_staged(&self) -> Result<(), PortError> {
        self.store.discard_staged()
    }
}

struct Staged {
    object: Box<dyn StagedObject>,
    instance: Arc<dyn MountedInstance>,
}

impl StagedObject for Staged {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        self.instance.check_room(to_u64(bytes.len()))?;
        self.object.write(bytes)
    }

    fn flush_handle(&self) -> Result<Flush, PortError> {
        self.object.flush_handle()
    }

    fn commit(self: Box<Self>) -> Result<(), PortError> {
        self.object.commit()
    }
}
