//! `tier tarball`: one file, without a store.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use tier_cloud::DirStore;
use tier_persist::{Keys, list_members, write_tar};
use tier_types::ObjectName;

use super::flush;
use crate::session::Session;
use crate::store::read_identity;

pub(crate) fn ls(session: &Session, file: &Path, identity: Option<&Path>) -> Result<()> {
    let (store, name, keys) = open(file, identity)?;
    let mut out = session.out();
    list_members(&store, &name, &keys, &mut out)?;
    flush(out)
}

pub(crate) fn cat(session: &Session, file: &Path, identity: Option<&Path>) -> Result<()> {
    let (store, name, keys) = open(file, identity)?;
    let mut out = session.out();
    write_tar(&store, &name, &keys, &mut out)?;
    flush(out)
}

/// The file's folder as a store of objects.
fn open(file: &Path, identity: Option<&Path>) -> Result<(DirStore, ObjectName, Keys)> {
    let path = file.canonicalize().with_context(|| format!("cannot open {}", file.display()))?;
    let name = path.file_name().and_then(|name| name.to_str()).and_then(ObjectName::new);
    let name = name.ok_or_else(|| anyhow!("{} is not a tarball's name", file.display()))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let keys = match identity {
        Some(path) => read_identity(path)?,
        // For a tarball in clear any keys will do.
        None => Keys::generate()?,
    };
    Ok((DirStore::open(folder)?, name, keys))
}
