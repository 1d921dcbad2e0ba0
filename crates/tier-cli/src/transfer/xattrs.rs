//! Extended attributes of the host's files. POSIX ACLs are among them.

use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;

/// The kernel's own limits.
const LIST_BYTES_MAX: usize = 64 << 10;
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Names and values; none where the filesystem has none.
pub(crate) fn read(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let failed = || format!("cannot read the extended attributes of {}", path.display());
    let mut names = vec![0; LIST_BYTES_MAX];
    let len = match llistxattr(path, &mut names) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(len) => len,
        Err(error) => return Err(error).with_context(failed),
    };
    let names = names.get(..len).unwrap_or_default();
    let mut xattrs = Vec::new();
    let mut value = vec![0; VALUE_BYTES_MAX];
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let c_name = CString::new(name).with_context(failed)?;
        match lgetxattr(path, &c_name, &mut value) {
            Ok(len) => xattrs.push((name.to_vec(), value.get(..len).unwrap_or_default().to_vec())),
            // It went while we looked, or it is not ours to see.
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
    lsetxattr(path, &c_name, value, XattrFlags::empty()).with_context(failed)
}
