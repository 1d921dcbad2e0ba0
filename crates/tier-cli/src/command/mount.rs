//! The argument checks of `tier mount`: whether the store can be mounted where it is to be.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::args::MountArgs;

/// The store's path, if that store can be mounted on the mountpoint.
pub(crate) fn mountable(args: &MountArgs) -> Result<PathBuf> {
    let failed = || format!("no store at {}", args.store.display());
    // Resolved, because the check below compares paths, of which links would give several.
    let store = args.store.canonicalize().with_context(failed)?;
    check_mountpoint(&args.mountpoint, &store)?;
    Ok(store)
}

fn check_mountpoint(mountpoint: &Path, store: &Path) -> Result<()> {
    let shown = mountpoint.display();
    match mountpoint.metadata() {
        // The kernel answers so for a mount that was killed, and says nothing about how to get rid
        // of it.
        Err(error) if error.kind() == ErrorKind::NotConnected => {
            bail!("{shown} is a mount whose process has ended; first: umount {shown}")
        }
        Err(error) => Err(error).with_context(|| format!("cannot mount on {shown}")),
        Ok(metadata) if !metadata.is_dir() => bail!("{shown} is not a directory to mount on"),
        // The key-value store would write into itself.
        Ok(_) if store.starts_with(mountpoint.canonicalize()?) => {
            bail!("{shown} holds the store itself; mount somewhere else")
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_store_is_mounted_on_a_directory_that_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("disk/store")).unwrap();
        fs::create_dir(at("mnt")).unwrap();
        fs::write(at("file"), "").unwrap();
        let check = |store: &str, mountpoint: &str| {
            let (store, mountpoint) = (at(store), at(mountpoint));
            let args = MountArgs {
                store,
                mountpoint,
                read_only: false,
                options: Vec::new(),
                no_agent: false,
            };
            mountable(&args).map_err(|error| error.to_string())
        };
        assert_eq!(check("disk/store", "mnt"), Ok(at("disk/store").canonicalize().unwrap()));
        for (store, mountpoint, problem) in [
            ("disk/store", "disk", "holds the store itself"),
            ("disk/store", "disk/store", "holds the store itself"),
            ("disk/store", "file", "is not a directory"),
            ("disk/store", "nowhere", "cannot mount on"),
            ("nowhere", "mnt", "no store at"),
        ] {
            let error = check(store, mountpoint).unwrap_err();
            assert!(error.contains(problem), "{store} on {mountpoint}: {error}");
        }
    }
}
