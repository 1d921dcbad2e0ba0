//! `tier tarball`: one file, without a store.

use anyhow::{Context as _, Result};
use tier_cloud::DirStore;
use tier_persist::{Keys, list_members, write_tar};
use tier_types::ObjectName;

use super::flush;
use crate::args::TarballArgs;
use crate::context::Context;
use tier_store::read_identity;

pub(super) fn ls(context: &Context, args: &TarballArgs) -> Result<()> {
    let Tarball { store, name, keys } = Tarball::open(args)?;
    let mut out = context.console.out();
    list_members(&store, &name, &keys, &mut out)?;
    flush(out)
}

pub(super) fn cat(context: &Context, args: &TarballArgs) -> Result<()> {
    let Tarball { store, name, keys } = Tarball::open(args)?;
    let mut out = context.console.out();
    write_tar(&store, &name, &keys, &mut out)?;
    flush(out)
}

/// A file as an object: its directory is the store.
struct Tarball {
    store: DirStore,
    name: ObjectName,
    keys: Keys,
}

impl Tarball {
    fn open(args: &TarballArgs) -> Result<Self> {
        let TarballArgs { file, identity } = args;
        let shown = file.display();
        // A link is followed, so that the object's name is that of the file itself.
        let path = file.canonicalize().with_context(|| format!("cannot open {shown}"))?;
        let file_name = path.file_name().and_then(|name| name.to_str());
        // An object's name is stricter than a file's; a tarball that was not renamed has one.
        let name = file_name
            .and_then(ObjectName::new)
            .with_context(|| format!("{shown} is not a tarball's name"))?;
        let directory = path.parent().with_context(|| format!("{shown} is not a file"))?;
        let keys = match identity {
            Some(path) => read_identity(path)?,
            // For a tarball in clear any keys will do.
            None => Keys::generate()?,
        };
        Ok(Self { store: DirStore::at(directory), name, keys })
    }
}
