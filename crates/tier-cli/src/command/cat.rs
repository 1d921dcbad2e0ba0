//! `tier cat`: the content of a file, recalled where it was evicted.
//!
//! What is printed is the file from its start. It ends where something cannot be read, with an
//! error that says what; bytes behind that would be taken for those that are missing.

use std::io::Write;

use anyhow::{Context as _, Result};
use tier_types::to_u64;

use super::flush;
use crate::args::CatArgs;
use crate::context::Context;
use crate::transfer::{readable, walk};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

pub(super) fn run(context: &Context, args: &CatArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let attr = walk::resolve(&store.fs, &args.path)?;
    let mut out = context.console.out();
    let mut at = 0;
    // An empty file is asked as well: what is no file says so.
    while at < attr.size_bytes || at == 0 {
        let failed = || format!("cannot read {}", args.path.display());
        // Read piece by piece: a file may be larger than memory, and each piece recalls only what
        // it needs.
        let read = readable::read_start(&store.fs, attr.ino, at, READ_BYTES);
        let data = read.with_context(failed)?;
        // The file is empty, or became shorter since its attributes were read.
        if data.is_empty() {
            break;
        }
        out.write_all(&data).context("cannot write to standard output")?;
        at += to_u64(data.len());
    }
    flush(out)
}
