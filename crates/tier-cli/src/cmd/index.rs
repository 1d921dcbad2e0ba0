//! `tier index`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tier_agent::StatusBook;
use tier_index::Index;
use tier_persist::{Archive, Damage, ScanMode, rebuild_without_manifests};
use tier_status::Stage;
use tier_types::{ErrorKind, ObjectStore, SnapshotId};

use super::flush;
use crate::exit::DamageFound;
use crate::index_files::{index_path, new_index_path, put_index, settle_index};
use crate::output;
use crate::session::Session;
use crate::store::{Base, Store, clock, open_index};

/// Differences that are printed.
const N_SHOWN: usize = 20;

pub(crate) fn dump(session: &Session, store: &Path) -> Result<()> {
    let store = session.open(store)?;
    let mut out = session.out();
    store.index.dump(&mut out)?;
    flush(out)
}

pub(crate) fn rebuild(
    session: &Session,
    path: &Path,
    (full_scan, from_cloud): (bool, bool),
) -> Result<()> {
    let mode = if full_scan { ScanMode::Full } else { ScanMode::Tables };
    let base = session.open_base(path, "a new index")?;
    settle_index(path)?;
    let (live, new_path) = (index_path(path), new_index_path(path));
    let index = open_index(&new_path, &base.config)?;
    // Whatever is wrong with it is no reason not to make a new one.
    let newest = || {
        let live = live.exists().then(|| open_index(&live, &base.config).ok()).flatten();
        let known = live.as_ref().and_then(newest);
        known.max(newest_committed(&base))
    };
    let (n_tarballs, damages) = fill((&base, &newest), &index, mode, from_cloud)?;
    drop(index);
    put_index(path)?;
    let (lines, objects) = output::damages(&damages);
    let text = format!("{lines}Regenerated the index from {n_tarballs} tarballs.\n");
    session.report(&json!({ "tarballs": n_tarballs, "damages": objects }), &text)?;
    if damages.is_empty() {
        return Ok(());
    }
    let n = damages.len();
    bail!(DamageFound(format!("the index lacks what {n} damaged places of tarballs held")))
}

/// Fills an empty index; returns from how many tarballs, and what is damaged in all copies.
/// `newest_before` says the newest snapshot that there was.
pub(crate) fn fill(
    (base, newest_before): (&Base, &dyn Fn() -> Option<SnapshotId>),
    index: &Index,
    mode: ScanMode,
    from_cloud: bool,
) -> Result<(u64, Vec<Damage>)> {
    let cloud = || base.cloud.as_deref().context("this store has no cloud");
    let source: &dyn ObjectStore = if from_cloud { cloud()? } else { &base.local };
    let other_copy = !from_cloud && base.cloud.is_some();
    match fill_from(base, source, index, mode) {
        // A restored store has its tarballs in the cloud only.
        Err(error) if other_copy && crate::exit::code(&error) == 3 => {
            tracing::warn!("local tarballs are incomplete ({error:#}); reading the cloud's");
            let filled = fill_from(base, cloud()?, index, mode)?;
            if newest(index) < newest_before() {
                return Err(error.context("the cloud has not all of these snapshots"));
            }
            Ok(filled)
        }
        Ok((n_tarballs, damages)) if other_copy && !damages.is_empty() => {
            let n = damages.len();
            tracing::warn!("{n} places of local tarballs are damaged; reading the cloud's as well");
            let left = made_up_for(base, cloud()?, index, &damages).unwrap_or_else(|error| {
                tracing::warn!("the cloud's cannot be read: {error:#}");
                damages
            });
            Ok((n_tarballs, left))
        }
        other => other,
    }
}

/// The newest snapshot that a status log says was committed.
fn newest_committed(base: &Base) -> Option<SnapshotId> {
    let book = StatusBook::open(&base.path.join("status"), clock()).ok()?;
    let statuses = book.all().ok()?;
    let committed = statuses.iter().filter(|status| status.stage >= Stage::Committed);
    committed.map(|status| status.header.snapshot).max()
}

/// The newest snapshot that an index has.
pub(crate) fn newest(index: &Index) -> Option<SnapshotId> {
    index.applied().ok().flatten().map(|applied| applied.snapshot)
}

/// Adds what another copy has, and returns the damages for which that did not make up.
fn made_up_for(
    base: &Base,
    cloud: &dyn ObjectStore,
    index: &Index,
    damages: &[Damage],
) -> Result<Vec<Damage>> {
    let archive = Archive::open(cloud, &base.keys, base.filesystem)?;
    let theirs = archive.add_to_index(index)?;
    let mut there = HashSet::new();
    let snapshots: Vec<_> = archive.snapshots().map(|summary| summary.snapshot).collect();
    for snapshot in snapshots {
        there.extend(archive.objects(snapshot)?.into_iter().map(|o| o.name.to_string()));
    }
    let whole = |object: &str| {
        there.contains(object) && !theirs.iter().any(|damage| damage.object == object)
    };
    Ok(damages.iter().filter(|damage| !whole(&damage.object)).cloned().collect())
}

fn fill_from(
    base: &Base,
    source: &dyn ObjectStore,
    index: &Index,
    mode: ScanMode,
) -> Result<(u64, Vec<Damage>)> {
    match Archive::open(source, &base.keys, base.filesystem) {
        Ok(archive) => {
            let n_tarballs: u64 = archive.snapshots().map(|summary| summary.n_tarballs).sum();
            if n_tarballs == 0 && mode == ScanMode::Full {
                return without_manifests(base, source, index);
            }
            Ok((n_tarballs, archive.rebuild_index(index, mode)?))
        }
        Err(error)
            if mode == ScanMode::Full
                && matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing) =>
        {
            tracing::warn!("the manifests cannot be used ({error}); scanning all tarballs");
            without_manifests(base, source, index)
        }
        Err(error) => Err(error.into()),
    }
}

fn without_manifests(
    base: &Base,
    source: &dyn ObjectStore,
    index: &Index,
) -> Result<(u64, Vec<Damage>)> {
    Ok(rebuild_without_manifests(index, source, &base.keys, base.filesystem)?)
}

pub(crate) fn check(session: &Session, path: &Path) -> Result<()> {
    let store = session.open(path)?;
    // A snapshot may come while we look; then we look again.
    let differences = loop {
        let before = store.index.applied()?;
        let differences = differences(&store, path)?;
        if differences.is_empty() || store.index.applied()? == before {
            break differences;
        }
    };
    let report = json!({ "differences": differences.len(), "first": differences });
    if differences.is_empty() {
        return session.report(&report, "The index is what the tarballs say.\n");
    }
    let text: String = differences.iter().map(|line| format!("{line}\n")).collect();
    session.report(&report, &text)?;
    bail!(DamageFound("the index differs from the tarballs; run tier index rebuild".into()))
}

/// Between the live index and one that is made now.
fn differences(store: &Store, path: &Path) -> Result<Vec<String>> {
    let work = tempfile::tempdir_in(path).context("cannot make a temporary folder")?;
    let fresh = open_index(&work.path().join("index"), &store.base.config)?;
    fill((&store.base, &|| newest(&store.index)), &fresh, ScanMode::Tables, false)?;
    let dumps = ["live", "fresh"].map(|name| work.path().join(name));
    for (index, path) in [store.index.as_ref(), &fresh].into_iter().zip(&dumps) {
        let mut out = BufWriter::new(File::create(path).context("cannot write a dump")?);
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
