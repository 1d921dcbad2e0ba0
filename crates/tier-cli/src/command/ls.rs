//! `tier ls`: names in a directory, with the tier of each file's data where that is wanted.
//!
//! Names come in the order in which they were made, page by page, so that the list of a large
//! directory begins at once. What is removed meanwhile is left out. JSON is one array, with each
//! name as text and as bytes, because a name need not be text.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use kvfs::{FsError, Heat};
use serde_json::{Value, json};
use tier_index::TarballId;
use tier_types::{FileAttr, FileKind};

use super::flush;
use crate::args::LsArgs;
use crate::console::output;
use crate::context::Context;
use crate::open_store::OpenStore;
use crate::transfer::walk;

pub(super) fn run(context: &Context, args: &LsArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let console = &context.console;
    let start = walk::resolve(&store.fs, &args.path)?;
    let mut out = console.out();
    // JSON is one array, so that rows are held to the end; text is printed as it comes.
    let mut rows = Vec::new();
    let tiers = Tiers { store: &store, thawing: store.store.thawing() };
    let mut visit = |name: &[u8], attr: &FileAttr| -> Result<()> {
        if console.json() {
            rows.push(row_json(name, attr, &tiers.of(attr)?));
        } else if args.long {
            writeln!(out, "{}", row_text(name, attr, &tiers.of(attr)?))?;
        } else {
            writeln!(out, "{}", output::name(name))?;
        }
        Ok(())
    };
    if !matches!(start.kind, FileKind::Directory) {
        visit(args.path.as_bytes(), &start)?;
    } else if args.recursive {
        walk::tree(&store.fs, start, |name, attr| match name {
            b"" => Ok(()),
            name => visit(name, attr),
        })?;
    } else {
        walk::entries(&store.fs, start.ino, |name, entry| match store.fs.getattr(entry.ino) {
            Ok(attr) => walk::gone_is_fine(visit(name.as_bytes(), &attr)),
            Err(FsError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        })?;
    }
    if console.json() {
        writeln!(out, "{:#}", Value::Array(rows))?;
    }
    flush(out)
}

/// The tiers of files' data.
struct Tiers<'a> {
    store: &'a OpenStore,
    /// Tarballs that are being thawed.
    thawing: BTreeSet<TarballId>,
}

impl Tiers<'_> {
    fn of(&self, attr: &FileAttr) -> Result<String> {
        let OpenStore { fs, store, .. } = self.store;
        // Only a regular file has data that can be evicted, and an empty one has none to be
        // anywhere.
        if !matches!(attr.kind, FileKind::Regular) || attr.size_bytes == 0 {
            return Ok("-".into());
        }
        let heat = fs.heat(attr.ino)?;
        let may_thaw = matches!(heat, Heat::Cold | Heat::Mixed) && !self.thawing.is_empty();
        match may_thaw && store.is_thawing(attr.ino, &self.thawing)? {
            true => Ok("thawing".into()),
            false => Ok(heat.to_string()),
        }
    }
}

fn row_text(name: &[u8], attr: &FileAttr, tier: &str) -> String {
    let kind = kind_letter(&attr.kind);
    let time = attr.modified.to_string();
    let mut row = format!(
        "{kind}{:04o} {:>3} {:>6} {:>6} {:>12} {time} {tier:<5} {}",
        attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.size_bytes,
        output::name(name)
    );
    if let FileKind::Symlink(target) = &attr.kind {
        row.push_str(&format!(" -> {}", output::name(target)));
    }
    row
}

fn row_json(name: &[u8], attr: &FileAttr, tier: &str) -> Value {
    json!({
        // JSON texts are UTF-8, which a name need not be; the bytes next to it are exact.
        "name": String::from_utf8_lossy(name),
        "name_bytes": name,
        "ino": attr.ino.get(),
        "kind": kind_letter(&attr.kind).to_string(),
        "mode": attr.mode,
        "nlink": attr.nlink,
        "uid": attr.uid,
        "gid": attr.gid,
        "size": attr.size_bytes,
        "modified": attr.modified.to_string(),
        "tier": tier,
    })
}

fn kind_letter(kind: &FileKind) -> char {
    match kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink(_) => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice(_) => 'c',
        FileKind::BlockDevice(_) => 'b',
    }
}
