//! Small objects, which are read as a whole: manifests and claims.

use tier_types::{Call, ErrorKind, HasKind, ObjectName, ObjectStore, to_usize};

use crate::error::PersistError;
use crate::format::signed::SIGNED_BYTES_MAX;

/// All bytes of an object that is read as a whole.
pub(crate) fn read_small(
    call: &Call<'_>,
    store: &dyn ObjectStore,
    name: &ObjectName,
) -> Result<Vec<u8>, PersistError> {
    let len_bytes = store.metadata(call, name).map_err(PersistError::Store)?.len_bytes;
    // Before as much is allocated: the store says this, and nothing has vouched for it yet.
    if len_bytes > SIGNED_BYTES_MAX {
        return Err(PersistError::damaged(name, "it is larger than any may be"));
    }
    let mut bytes = vec![0; to_usize(len_bytes)];
    store.read_range(call, name, 0, &mut bytes).map_err(PersistError::Store)?;
    Ok(bytes)
}

/// Whether an error says something of the object, and not of the way to it.
pub(crate) fn is_of_the_object(error: &PersistError) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing | ErrorKind::WrongKey)
}
