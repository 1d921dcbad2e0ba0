//! Extended attributes of the host's files. POSIX ACLs are among them.

use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;
use tier_types::Xattr;

/// The kernel's own limits.
const LIST_BYTES_MAX: usize = 64 << 10;
const VALUE_BYTES_MAX: usize = 64 << 10;

/// All that may be seen; none where the filesystem knows none.
pub(crate) fn read(path: &Path) -> Result<Vec<Xattr>> {
    let failed = || format!("cannot read the extended attributes of {}", path.display());
    // As large as the kernel allows, so that no list can grow between asking its length and reading
    // it.
    let mut names = vec![0; LIST_BYTES_MAX];
    match llistxattr(path, &mut names) {
        // A filesystem without attributes is common, and no reason not to copy its files.
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(len) => names.truncate(len),
        Err(error) => return Err(error).with_context(failed),
    }
    let mut xattrs = Vec::new();
    let mut buffer = vec![0; VALUE_BYTES_MAX];
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let c_name = CString::new(name).with_context(failed)?;
        match lgetxattr(path, &c_name, &mut buffer) {
            Ok(len) => {
                let (value, _) = buffer.split_at(len);
                xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() });
            }
            // Removed since it was listed, or listed and not to be seen.
            Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error).with_context(failed),
        }
    }
    Ok(xattrs)
}

pub(crate) fn write(path: &Path, name: &[u8], value: &[u8]) -> Result<()> {
    let failed = || {
        format!("cannot set the extended attribute {} of {}", name.escape_ascii(), path.display())
    };
    let c_name = CString::new(name).with_context(failed)?;
    // No flag: whether it is there already depends on what the copy inherited.
    lsetxattr(path, &c_name, value, XattrFlags::empty()).with_context(failed)
}

/// Whether only root may set an attribute.
pub(crate) fn is_for_root(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"trusted.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!read(file.path()).unwrap().iter().any(|xattr| xattr.name == b"user.b"));
        let (name, value) = (b"user.b".to_vec(), b"a\0b".to_vec());
        // A filesystem for temporary files may know no attributes of users.
        if write(file.path(), &name, &value).is_ok() {
            assert!(read(file.path()).unwrap().contains(&Xattr { name, value }));
        }
    }
}
