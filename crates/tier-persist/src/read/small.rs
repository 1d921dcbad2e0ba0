//! Small objects, which are read as a whole: manifests and claims.

use tier_types::{Call, ErrorKind, HasKind, ObjectName, ObjectStore, PortError, to_u64};

use crate::error::PersistError;

/// All bytes of an object that is read as a whole, and may have so many.
pub(crate) fn read_small(
    call: &Call<'_>,
    store: &dyn ObjectStore,
    name: &ObjectName,
    bytes_max: u64,
) -> Result<Vec<u8>, PersistError> {
    let mut bytes = Vec::new();
    // One request. What comes is kept as it comes: nothing has vouched for a length yet.
    let read = store.stream(call, name, 0, &mut |piece| {
        if to_u64(bytes.len() + piece.len()) > bytes_max {
            let message = format!("object {name} is larger than any may be");
            return Err(PortError::new(ErrorKind::Damaged, message));
        }
        bytes.extend_from_slice(piece);
        Ok(())
    });
    read.map_err(PersistError::Store)?;
    Ok(bytes)
}

/// Whether an error says something of the object, and not of the way to it, nor of the index.
pub(crate) fn is_of_the_object(error: &PersistError) -> bool {
    !matches!(error, PersistError::Index(_))
        && (error.kind().is_of_object() || error.kind() == ErrorKind::WrongKey)
}
