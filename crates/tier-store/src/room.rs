//! A local object store that asks for room before it writes.
//!
//! Tarballs, manifests and the key-value store share one disk and one limit, and the filesystem
//! keeps the account of both. The persister therefore writes through this store, which asks the
//! filesystem's port before each piece. Where there is no room, objects are dropped that the cloud
//! has as well, and those are waited for that are on their way there. If nothing comes of that, the
//! refusal is an error of the kind `NoSpace`: the snapshot fails, leaves nothing behind, and is
//! tried again.

use std::sync::Arc;

use tier_types::{
    CacheStore, Call, Created, ErrorKind, Flush, MountedInstance, ObjectContent, ObjectName,
    ObjectStore, PortError, StagedObject, StagingStore, StoreLayer, to_u64,
};

/// Dropped at a time, at least: a drop makes room for many pieces.
const DROP_BYTES: u64 = 16 << 20;

/// Objects of another store, written where the filesystem has room for them.
#[derive(Clone)]
pub(crate) struct RoomAsking {
    pub(crate) store: Arc<dyn CacheStore>,
    pub(crate) instance: Arc<dyn MountedInstance>,
}

impl RoomAsking {
    fn ask(&self, bytes: u64) -> Result<(), PortError> {
        loop {
            match self.instance.check_room(bytes) {
                Err(error) if error.kind() == ErrorKind::NoSpace => {
                    if !self.store.wait_for_spare() {
                        return Err(error);
                    }
                    self.store.drop_spare(bytes.max(DROP_BYTES))?;
                }
                asked => return asked,
            }
        }
    }
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
        self.ask(content.len_bytes())?;
        self.store.put(call, name, content)
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        self.ask(content.len_bytes())?;
        self.store.create(call, name, content)
    }
}

impl StagingStore for RoomAsking {
    fn stage(&self, name: &ObjectName) -> Result<Box<dyn StagedObject>, PortError> {
        let object = self.store.stage(name)?;
        Ok(Box::new(Staged { object, room: self.clone() }))
    }

    fn discard_staged(&self) -> Result<(), PortError> {
        self.store.discard_staged()
    }
}

struct Staged {
    object: Box<dyn StagedObject>,
    room: RoomAsking,
}

impl StagedObject for Staged {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PortError> {
        // For each piece and not once for all: how long a tarball will be is not known before its
        // end, and the filesystem's writers take room meanwhile.
        self.room.ask(to_u64(bytes.len()))?;
        self.object.write(bytes)
    }

    fn flush_handle(&self) -> Result<Flush, PortError> {
        self.object.flush_handle()
    }

    fn commit(self: Box<Self>) -> Result<(), PortError> {
        self.object.commit()
    }
}
