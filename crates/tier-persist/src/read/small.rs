//! Small objects, which are read as a whole: manifests and claims.

use tier_types::{Call, ErrorKind, HasKind, ObjectName, ObjectStore, to_usize};

use crate::error::PersistError;

/// All bytes of an object that is read as a whole, and may have so many.
pub(crate) fn read_small(
    call: &Call<'_>,
    store: &dyn ObjectStore,
    name: &ObjectName,
    bytes_max: u64,
) -> Result<Vec<u8>, PersistError> {
    let len_bytes = store.metadata(call, name).map_err(PersistError::Store)?.len_bytes;
    // Before as much is allocated: the store says this, and nothing has vouched for it yet.
    if len_bytes > bytes_max {
        return Err(PersistError::damaged(name, "it is larger than any may be"));
    }
    let mut bytes = vec![0; to_usize(len_bytes)];
    store.read_range(call, name, 0, &mut bytes).map_err(PersistError::Store)?;
    Ok(bytes)
}

/// Whether an error says something of the object, and not of the way to it, nor of the index.
pub(crate) fn is_of_the_object(error: &PersistError) -> bool {
    !matches!(error, PersistError::Index(_))
        && (error.kind().is_of_object() || error.kind() == ErrorKind::WrongKey)
}
