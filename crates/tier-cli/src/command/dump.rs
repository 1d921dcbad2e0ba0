//! `tier dump`: the key-value store in readable form.

use anyhow::Result;

use super::flush;
use crate::args::DumpArgs;
use crate::context::Context;

pub(super) fn run(context: &Context, args: &DumpArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let mut out = context.console.out();
    store.fs.dump(&args.keys, &mut out)?;
    flush(out)
}
