//! Copying from store to store.

use crate::PortError;

use super::call::Call;
use super::content::ObjectContent;
use super::name::ObjectName;
use super::object_store::ObjectStore;

/// An object of one store, as the content of another one's.
#[derive(Clone, Copy)]
pub struct StoredContent<'a> {
    /// The store that has it.
    pub store: &'a dyn ObjectStore,
    /// Its name there.
    pub name: &'a ObjectName,
    /// Its length.
    pub len_bytes: u64,
}

impl std::fmt::Debug for StoredContent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredContent").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ObjectContent for StoredContent<'_> {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(
        &self,
        call: &Call<'_>,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), PortError> {
        // An object that ends early is an error of its store here, and never a short upload.
        self.store.read_range(call, self.name, offset_bytes, buffer)
    }
}
