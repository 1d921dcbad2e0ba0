//! `tier index`: prints, regenerates and checks the index.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tier_index::IndexError;
use tier_persist::{ScanMode, Watch};

use super::flush;
use crate::args::{IndexCheckArgs, IndexDumpArgs, IndexRebuildArgs};
use crate::console::{DamageFound, StopGuard, output};
use crate::context::Context;
use crate::fill_index::{Filled, How, fill, fill_from_what_is_left, newest, newest_committed};
use crate::index_files::{NewIndex, index_path, remove, settle_indexes};
use crate::store::{Base, Store, open_index};

/// Differences that are printed.
const N_SHOWN: usize = 20;

pub(super) fn dump(context: &Context, args: &IndexDumpArgs) -> Result<()> {
    let store = context.open(&args.store)?;
    let mut out = context.console.out();
    store.index.dump(&mut out)?;
    flush(out)
}

/// Makes a new index, which takes the place of the one that is there only when it is whole.
pub(super) fn rebuild(context: &Context, args: &IndexRebuildArgs) -> Result<()> {
    let mode = if args.full_scan { ScanMode::Full } else { ScanMode::Tables };
    let how = How { mode, from_cloud: args.from_cloud };
    match context.live() {
        None => rebuild_at_rest(context, &Base::open(&args.store)?, how),
        Some(live) => rebuild_in_use(context, &live.store, how),
    }
}

fn rebuild_at_rest(context: &Context, base: &Base, how: How) -> Result<()> {
    let stop = context.console.stop()?;
    let live = index_path(&base.path)?;
    let new = NewIndex::new(&base.path)?;
    let index = open_index(&new.index_path(), &base.config)?;
    // Whatever is wrong with it is no reason not to make a new one.
    let newest = || {
        let live = live.exists().then(|| open_index(&live, &base.config).ok()).flatten();
        let known = live.as_ref().and_then(newest);
        known.max(newest_committed(base))
    };
    let filled = watched(context, &stop, |watch| {
        fill_from_what_is_left((base, &newest), &index, how, watch)
    })?;
    drop(index);
    new.put()?;
    settle_indexes(&base.path)?;
    report(context, &filled, true)?;
    match filled.damages.len() {
        0 => Ok(()),
        n => {
            bail!(DamageFound(format!("the index lacks what {n} damaged places of tarballs held")))
        }
    }
}

/// Reads go on with the index that is there, and snapshots are taken, until the new one is whole.
fn rebuild_in_use(context: &Context, store: &Store, how: How) -> Result<()> {
    let stop = context.console.stop()?;
    // It goes by the manifests: better to hear now than after a long scan that they are not whole.
    store
        .archive()
        .context("the index in use stays; unmount the store to make one of what is left")?;
    let new = NewIndex::new(&store.base.path)?;
    check_room(store)?;
    let index = open_index(&new.index_path(), &store.base.config)?;
    let filled = watched(context, &stop, |watch| fill(&store.base, &index, how, watch))?;
    if !filled.damages.is_empty() {
        report(context, &filled, false)?;
        let n = filled.damages.len();
        bail!(DamageFound(format!(
            "the index in use stays, for {n} places of tarballs are damaged; unmount {} to get one \
             of what is left",
            store.base.path.display()
        )));
    }
    // First what came meanwhile, so that the rest, for which the next snapshot waits, is little.
    store.archive()?.catch_up(&index)?;
    stop.check()?;
    let writer = store.index.writer();
    store.archive()?.catch_up(&index)?;
    if newest(&index) < newest(&store.index) {
        return Err(IndexError::Behind.into());
    }
    drop(index);
    let place = new.put()?;
    let index = open_index(&place, &store.base.config);
    if let Err(error) = index.and_then(|index| Ok(writer.replace_by(index)?)) {
        // The next to open the store goes on with the one that is in use now.
        remove(&place);
        return Err(error);
    }
    report(context, &filled, true)
}

/// The new index takes about as much as the one in use, and must not take what the filesystem needs.
fn check_room(store: &Store) -> Result<()> {
    let bytes = folder_bytes(&index_path(&store.base.path)?)?;
    let free = store.fs.statfs()?.free_bytes;
    if free < bytes {
        let (bytes, free) = (output::bytes(bytes), output::bytes(free));
        bail!("a new index takes about {bytes}, and the disk has {free} to spare; make room first");
    }
    Ok(())
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let failed = || format!("cannot look at {}", folder.display());
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(failed)? {
        // A file may go while we look.
        let found = entry.with_context(failed)?.metadata();
        bytes += found.map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}

fn watched(
    context: &Context,
    stop: &StopGuard,
    fill: impl FnOnce(&mut Watch<'_>) -> Result<Filled>,
) -> Result<Filled> {
    let bar = context.console.progress("reading tarballs");
    let (mut n_tarballs, mut bytes) = (0, 0);
    let mut progress = |n| {
        n_tarballs += 1;
        bytes += n;
        bar.text(|| format!("{n_tarballs} tarballs, {}", output::bytes(bytes)));
    };
    fill(&mut Watch::new(stop.flag(), &mut progress))
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
    // A snapshot may come while we look; then we look again.
    let stop = context.console.stop()?;
    let differences = loop {
        let before = store.index.applied()?;
        let differences = differences(context, &stop, &store)?;
        if differences.is_empty() || store.index.applied()? == before {
            break differences;
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
fn differences(context: &Context, stop: &StopGuard, store: &Store) -> Result<Vec<String>> {
    let new = NewIndex::new(&store.base.path)?;
    let fresh = open_index(&new.index_path(), &store.base.config)?;
    let how = How { mode: ScanMode::Tables, from_cloud: false };
    watched(context, stop, |watch| fill(&store.base, &fresh, how, watch))?;
    store.archive()?.catch_up(&fresh)?;
    let dumps = ["live", "fresh"].map(|name| new.folder().join(name));
    for (index, path) in [store.index.as_ref(), &fresh].into_iter().zip(&dumps) {
        let mut out = BufWriter::new(File::create(path).context("cannot write a dump")?);
        stop.check()?;
        index.dump(&mut out)?;
        flush(out)?;
    }
    let [live, regenerated] = dumps;
    compare(&live, &regenerated)
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
