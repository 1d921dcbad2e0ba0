//! Names that have another object than the caller wants: the same answer of every store.

use tier_types::{ErrorKind, ObjectMetadata, ObjectName, ObjectVersion, PortError};

/// Whether what has the name of a put may be what was to be put.
pub(crate) fn check_length(
    name: &ObjectName,
    len_bytes: u64,
    there: &ObjectMetadata,
) -> Result<(), PortError> {
    if there.len_bytes == len_bytes {
        tracing::debug!(%name, len_bytes, "an object is there already");
        return Ok(());
    }
    let message = format!("object {name} exists with another length; it is kept");
    Err(PortError::new(ErrorKind::Conflict, message))
}

/// Whether what has the name of a deletion is what was to be deleted.
pub(crate) fn check_version(
    name: &ObjectName,
    only: &ObjectVersion,
    there: &ObjectMetadata,
) -> Result<(), PortError> {
    if there.version == *only {
        return Ok(());
    }
    let message = format!("object {name} is another one by now; it is kept");
    Err(PortError::new(ErrorKind::Conflict, message))
}
