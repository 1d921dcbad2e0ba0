//! `tier init`: a new store.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kvfs::Core;
use serde_json::json;
use tier_store::{Abilities, NewStore};

use super::abilities;
use crate::args::InitArgs;
use crate::context::Context;
use crate::open_store::{clock, kvfs_options};

pub(super) fn run(context: &Context, args: &InitArgs) -> Result<()> {
    let Created { filesystem, identity, public_key, abilities } = create(args)?;
    let (store, identity) = (args.store.display().to_string(), identity.display().to_string());
    let mut text = format!("Made the store {store} of filesystem {filesystem}.\n");
    if args.identity.is_none() {
        text.push_str(&format!(
            "Its identity is in {identity}. BACK IT UP elsewhere: without it nothing that is \
             uploaded can ever be read again.\n"
        ));
    }
    text.extend(abilities.as_ref().map(abilities::warnings));
    let report = json!({
        "store": store,
        "filesystem": filesystem,
        "identity": identity,
        "public_key": public_key,
        "abilities": abilities.as_ref().map(abilities::json),
    });
    context.console.report(&report, &text)
}

/// A store that was made.
pub(super) struct Created {
    filesystem: String,
    /// The identity file.
    pub(super) identity: PathBuf,
    public_key: String,
    /// What its cloud was seen to do.
    abilities: Option<Abilities>,
}

/// Makes a store. Its settings are written when its filesystem is there: a directory without them
/// is no store.
pub(super) fn create(args: &InitArgs) -> Result<Created> {
    let new = NewStore {
        cloud: args.cloud.clone(),
        adopt_cloud: args.adopt_cloud,
        identity: args.identity.clone(),
        recipients: args.recipients.clone(),
        encryption: !args.no_encryption,
        level: args.level,
        chunk_bytes: args.chunk_bytes,
    };
    let prepared = new.prepare(&args.store)?;
    // The filesystem comes between: its files are made before the settings say that there is a
    // store.
    Core::create(&args.store, &kvfs_options(prepared.config()), clock())
        .with_context(|| format!("cannot make a filesystem in {}", args.store.display()))?;
    let filesystem = prepared.config().filesystem.clone();
    let (identity, public_key) = (prepared.layout().identity(), prepared.public_key());
    // From here on the directory is a store; a crash before leaves one that no command opens.
    let abilities = prepared.finish()?;
    Ok(Created { filesystem, identity, public_key, abilities })
}
