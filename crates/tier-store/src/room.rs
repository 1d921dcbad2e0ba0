//! A local object store that asks for room before it writes.
//!
//! Tarballs, manifests and the key-value store share one disk and one limit, and the filesystem
//! keeps the account of both. The persister therefore writes through this store, which asks the
//! filesystem's port before each piece. A refusal is an error of the kind `NoSpace`: the snapshot
//! fails, leaves nothing behind, and is tried again.

use std::sync::Arc;

use tier_types::{
    Call, Created, Flush, MountedInstance, ObjectContent, ObjectName, ObjectStore, PortError,
    StagedObject, StagingStore, StoreLayer, to_u64,
};

/// Objects of another store, written where the filesystem has room for them.
pub(crate) struct RoomAsking {
    pub(crate) store: Arc<dyn StagingStore>,
    pub(crate) instance: Arc<dyn MountedInstance>,
}

impl StoreLayer for RoomAsking {
    fn inner(&self) -> &dyn ObjectStore {
        self.store.as_ref()
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        self.instance.check_room(content.len_bytes())?;
        self.store.put(call, name, content)
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        self.instance.check_room(content.len_bytes())?;
        self.store.create(call, name, content)
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
        // For each piece and not once for all: how long a tarball will be is not known before its
        // end, and the filesystem's writers take room meanwhile.
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
