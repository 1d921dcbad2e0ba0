//! `tier keygen`: a new age identity.

use anyhow::Result;
use serde_json::json;
use tier_persist::Keys;

use super::init::identity_text;
use crate::args::KeygenArgs;
use crate::context::Context;
use crate::store::write_secret;

pub(super) fn run(context: &Context, args: &KeygenArgs) -> Result<()> {
    let keys = Keys::generate()?;
    let text = identity_text(&keys);
    match &args.output {
        None => context.console.report(&json!({}), &text),
        Some(path) => {
            write_secret(path, &text)?;
            context.console.note(&format!("Public key: {}", keys.public_key()));
            Ok(())
        }
    }
}
