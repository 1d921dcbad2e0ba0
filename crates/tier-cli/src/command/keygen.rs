//! `tier keygen`: a new age identity.

use anyhow::Result;
use serde_json::json;
use tier_persist::Keys;
use tier_types::{Clock, SystemClock};

use crate::args::KeygenArgs;
use crate::context::Context;

pub(super) fn run(context: &Context, args: &KeygenArgs) -> Result<()> {
    let keys = Keys::generate()?;
    match &args.output {
        None => {
            let text = keys.to_identity_file(&SystemClock.now().to_string());
            context.console.report(&json!({}), &text)
        }
        Some(path) => {
            tier_store::new_identity(path, &keys, &SystemClock)?;
            // The public key is no report: as with age-keygen, it goes to standard error.
            context.console.note(&format!("Public key: {}", keys.public_key()));
            Ok(())
        }
    }
}
