//! What every part of a directory store does with the disk: syncing directories, and saying what
//! failed.

use std::fs::File;
use std::io;
use std::path::Path;

use tier_types::{ErrorKind, PortError};

/// Makes the name of a file durable: a directory above it that is new must itself be found again.
pub(super) fn sync_directories(path: &Path, root: &Path) -> Result<(), PortError> {
    assert!(path.starts_with(root), "only what lies below the root is synced");
    let above = path.ancestors().skip(1).take_while(|directory| directory.starts_with(root));
    above.into_iter().try_for_each(sync_directory)
}

pub(super) fn sync_directory(path: &Path) -> Result<(), PortError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| failed("sync directory", path, source))
}

pub(super) fn failed(operation: &str, path: &Path, source: io::Error) -> PortError {
    let object = path.display();
    let kind = source.kind();
    let error = if kind == io::ErrorKind::NotFound {
        PortError::new(ErrorKind::Missing, format!("object {object} is missing"))
    } else if kind == io::ErrorKind::UnexpectedEof {
        PortError::new(ErrorKind::Damaged, format!("object {object} ends too early"))
    } else {
        PortError::new(ErrorKind::of_io(&source), format!("cannot {operation} {object}"))
    };
    error.with_source(source)
}
