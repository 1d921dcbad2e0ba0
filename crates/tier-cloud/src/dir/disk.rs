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
    above.into_iter().try_for_each(|directory| sync_directory(directory, root))
}

pub(super) fn sync_directory(path: &Path, root: &Path) -> Result<(), PortError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| failed(root, "sync directory", path, source))
}

/// An error with a file of the store of this root. What is not there is missing only if the root is
/// there: else all of it is away.
pub(super) fn failed(root: &Path, operation: &str, path: &Path, source: io::Error) -> PortError {
    let object = path.display();
    let kind = source.kind();
    let error = if kind == io::ErrorKind::NotFound && !root.is_dir() {
        let root = root.display();
        let message = format!("the directory {root} is not there; is its disk mounted?");
        return PortError::new(ErrorKind::Away, message);
    } else if kind == io::ErrorKind::NotFound {
        PortError::new(ErrorKind::Missing, format!("object {object} is missing"))
    } else if kind == io::ErrorKind::UnexpectedEof {
        PortError::new(ErrorKind::Damaged, format!("object {object} ends too early"))
    } else {
        PortError::new(kind_of(&source), format!("cannot {operation} {object}"))
    };
    error.with_source(source)
}

/// A directory may be on another machine, and belong to another user.
fn kind_of(error: &io::Error) -> ErrorKind {
    const DENIED: [io::ErrorKind; 2] =
        [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
    const AWAY: [io::ErrorKind; 6] = [
        io::ErrorKind::TimedOut,
        io::ErrorKind::NotConnected,
        io::ErrorKind::StaleNetworkFileHandle,
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::NetworkDown,
    ];
    if DENIED.contains(&error.kind()) {
        ErrorKind::Denied
    } else if AWAY.contains(&error.kind()) {
        ErrorKind::Away
    } else {
        ErrorKind::of_io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_has_a_kind() {
        let kind = |number| kind_of(&io::Error::from_raw_os_error(number));
        assert_eq!(kind(28), ErrorKind::NoSpace);
        assert_eq!(kind(13), ErrorKind::Denied, "EACCES");
        assert_eq!(kind(116), ErrorKind::Away, "ESTALE");
        assert_eq!(kind(107), ErrorKind::Away, "ENOTCONN");
        assert_eq!(kind(5), ErrorKind::Failed, "EIO");
    }
}
