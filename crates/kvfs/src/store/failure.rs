//! What an error of RocksDB is to the filesystem.

use crate::FsError;

/// How RocksDB begins the text of an error of the kind `IOError` and the subkind `NoSpace`. Its
/// binding tells the kind alone.
const NO_SPACE: &str = "IO error: No space left on device";

pub(super) fn failed(operation: &'static str, source: rocksdb::Error) -> FsError {
    if source.as_ref().starts_with(NO_SPACE) {
        // Each operation meets it again, until there is room.
        tracing::debug!(operation, error = %source, "the disk of the key-value store is full");
        return FsError::NoSpace("the disk of the store is full");
    }
    FsError::Store { operation, source: source.into() }
}
