//! `tier init`: a new store.

use anyhow::{Context as _, Result};
use kvfs::Kvfs;
use serde_json::json;
use tier_store::NewStore;

use crate::args::InitArgs;
use crate::context::Context;
use crate::open_store::{clock, kvfs_options};

pub(super) fn run(context: &Context, args: &InitArgs) -> Result<()> {
    let new = NewStore {
        cloud: args.cloud.clone(),
        identity: args.identity.clone(),
        recipients: args.recipients.clone(),
        encryption: !args.no_encryption,
        level: args.level,
        chunk_bytes: args.chunk_bytes,
    };
    let (store, shown) = (&args.store, args.store.display());
    let prepared = new.prepare(store)?;
    Kvfs::create(store, &kvfs_options(prepared.config()), clock())
        .with_context(|| format!("cannot make a filesystem in {shown}"))?;
    let filesystem = prepared.config().filesystem.clone();
    let identity = prepared.layout().identity().display().to_string();
    let mut text = format!("Made the store {shown} of filesystem {filesystem}.\n");
    if new.identity.is_none() {
        text.push_str(&format!(
            "Its identity is in {identity}. BACK IT UP elsewhere: without it nothing that is pushed \
             can ever be read again.\n"
        ));
    }
    let report = json!({
        "store": shown.to_string(),
        "filesystem": filesystem,
        "identity": identity,
        "public_key": prepared.public_key(),
    });
    prepared.finish()?;
    context.console.report(&report, &text)
}
