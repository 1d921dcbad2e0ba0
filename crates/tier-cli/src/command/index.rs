//! `tier index`: prints, regenerates and checks the index.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tier_persist::{ScanMode, Watch};
use tier_store::{Filled, RebuildOptions, StoreDir, StoreError};

use super::flush;
use crate::args::{IndexCheckArgs, IndexDumpArgs, IndexRebuildArgs};
use crate::console::{DamageFound, StopGuard, output};
use crate::context::Context;
use crate::open_store::OpenStore;

/// Differences that are printed.
const N_SHOWN: usize = 20;

pub(super) fn dump(context: &Context, args: &IndexDumpArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let mut out = context.console.out();
    store.index().dump(&mut out)?;
    flush(out)
}

/// Makes a new index, which takes the place of the one that is there only when it is whole.
pub(super) fn rebuild(context: &Context, args: &IndexRebuildArgs) -> Result<()> {
    let mode = match (args.full_scan, args.tables) {
        (true, _) => ScanMode::Full,
        (false, true) => ScanMode::Tables,
        (false, false) => ScanMode::Checkpoint,
    };
    let options = RebuildOptions { mode, from_cloud: args.from_cloud };
    match context.live() {
        None => rebuild_at_rest(context, StoreDir::open(&args.store)?, options),
        Some(live) => rebuild_in_use(context, &live.store, options),
    }
}

fn rebuild_at_rest(context: &Context, dir: StoreDir, options: RebuildOptions) -> Result<()> {
    let stop = context.console.stop()?;
    let filled = watched(context, &stop, |watch| tier_store::rebuild(dir, options, watch))?;
    report(context, &filled, true)?;
    match filled.damages.len() {
        0 => Ok(()),
        n => {
            bail!(DamageFound(format!("the index lacks what {n} damaged places of tarballs held")))
        }
    }
}

/// Reads go on with the index that is there, and snapshots are taken, until the new one is whole.
fn rebuild_in_use(context: &Context, store: &OpenStore, options: RebuildOptions) -> Result<()> {
    let stop = context.console.stop()?;
    store
        .archive()
        .context("the index in use stays; unmount the store to make one of what is left")?;
    check_room(store)?;
    let rebuilt = watched(context, &stop, |watch| store.store.rebuild_in_use(options, watch))?;
    if rebuilt.damages.is_empty() {
        return report(context, &rebuilt, true);
    }
    report(context, &rebuilt, false)?;
    let n = rebuilt.damages.len();
    bail!(DamageFound(format!(
        "the index in use stays, for {n} places of tarballs are damaged; unmount {} to get one of \
         what is left",
        store.path().display()
    )))
}

/// The new index takes about as much as the one in use, and must not take what the filesystem
/// needs.
fn check_room(store: &OpenStore) -> Result<()> {
    let bytes = store.store.index_bytes()?;
    let free = store.fs.statfs()?.free_bytes;
    if free < bytes {
        let (bytes, free) = (output::bytes(bytes), output::bytes(free));
        bail!("a new index takes about {bytes}, and the disk has {free} to spare; make room first");
    }
    Ok(())
}

fn watched<T>(
    context: &Context,
    stop: &StopGuard,
    work: impl FnOnce(&mut Watch<'_>) -> Result<T, StoreError>,
) -> Result<T> {
    let bar = context.console.progress("reading tarballs");
    let (mut n_tarballs, mut bytes) = (0, 0);
    let mut progress = |n| {
        n_tarballs += 1;
        bytes += n;
        bar.text(|| format!("{n_tarballs} tarballs, {}", output::bytes(bytes)));
    };
    Ok(work(&mut Watch::new(stop.flag(), &mut progress))?)
}

/// Says what was read, and whether there is a new index.
fn report(context: &Context, filled: &Filled, replaced: bool) -> Result<()> {
    let Filled { n_tarballs, damages } = filled;
    let (lines, objects) = output::damages(damages);
    let done = if replaced { "Regenerated the index from" } else { "Read" };
    let text = format!("{lines}{done} {n_tarballs} tarballs.\n");
    let json = json!({ "tarballs": n_tarballs, "damages": objects, "replaced": replaced });
    context.console.report(&json, &text)
}

pub(super) fn check(context: &Context, args: &IndexCheckArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    // A snapshot may come meanwhile; then both are made again.
    let stop = context.console.stop()?;
    let differences = loop {
        let before = store.index().applied()?;
        let found = differences(context, &stop, &store)?;
        if found.is_empty() || store.index().applied()? == before {
            break found;
        }
    };
    let report = json!({ "differences": differences.len(), "first": differences });
    if differences.is_empty() {
        return context.console.report(&report, "The index is what the tarballs say.\n");
    }
    let text: String = differences.iter().map(|line| format!("{line}\n")).collect();
    context.console.report(&report, &text)?;
    bail!(DamageFound("the index differs from the tarballs; run tier index rebuild".into()))
}

/// Between the live index and one that is made now.
fn differences(context: &Context, stop: &StopGuard, store: &OpenStore) -> Result<Vec<String>> {
    let options = RebuildOptions { mode: ScanMode::Tables, from_cloud: false };
    watched(context, stop, |watch| {
        store.store.with_fresh_index(options, watch, |fresh| {
            let [live, regenerated] = ["live", "fresh"].map(|name| fresh.directory.join(name));
            for (index, path) in [(store.index().as_ref(), &live), (fresh.index, &regenerated)] {
                let mut out = BufWriter::new(File::create(path).context("cannot write a dump")?);
                stop.check()?;
                index.dump(&mut out)?;
                flush(out)?;
            }
            compare(&live, &regenerated)
        })
    })?
}

/// The first lines that differ.
fn compare(live: &Path, fresh: &Path) -> Result<Vec<String>> {
    let open = |path| File::open(path).map(|file| BufReader::new(file).lines());
    let (mut live, mut fresh) = (open(live)?, open(fresh)?);
    let mut differences = Vec::new();
    while differences.len() < N_SHOWN {
        let (a, b) = (live.next().transpose()?, fresh.next().transpose()?);
        if a.is_none() && b.is_none() {
            break;
        }
        if a != b {
            let text = |line: Option<String>| line.unwrap_or_else(|| "nothing".into());
            differences.push(format!("index has {}, tarballs say {}", text(a), text(b)));
        }
    }
    Ok(differences)
}
