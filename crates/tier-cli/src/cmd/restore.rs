//! `tier restore`, and looking at an old snapshot.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use kvfs::{Core, Kvfs};
use serde_json::json;
use tier_agent::StatusBook;
use tier_cloud::DirStore;
use tier_index::Index;
use tier_persist::{Archive, FilesystemId, ScanMode, StoredObject, Watch};
use tier_status::{Event, StatusHeader, StatusSink, Tier};
use tier_types::{MountedInstance, ObjectStore, SnapshotId, Xid, to_usize};

use super::files;
use super::keys::{NewStore, make_folder, new_config, put_identity};
use crate::config::Config;
use crate::index_files::index_path;
use crate::session::Session;
use crate::store::{
    clock, kvfs_options, local_path, open_cloud, open_index, read_identity, recaller,
};

/// What to restore.
pub(crate) struct Source {
    pub(crate) cloud: String,
    pub(crate) identity: PathBuf,
    pub(crate) snapshot: Option<u64>,
    pub(crate) filesystem: Option<String>,
    pub(crate) recipients: Vec<String>,
    pub(crate) trust_signer: bool,
}

pub(crate) fn restore(session: &Session, store: &Path, source: &Source) -> Result<()> {
    let cloud = open_cloud(&source.cloud)?;
    let mut keys = read_identity(&source.identity)?;
    for recipient in &source.recipients {
        keys.add_recipient(recipient)?;
    }
    let filesystem = find_filesystem(cloud.as_ref(), source)?;
    let archive = Archive::open(cloud.as_ref(), &keys, filesystem)?;
    if !archive.own_signature() && !source.trust_signer {
        bail!(
            "the newest manifest is signed by another identity than {}; if that is an extra \
             recipient's, say --trust-signer",
            source.identity.display()
        );
    }
    let newest = archive.snapshots().next_back().context("the cloud has no snapshot")?;
    let floor = (newest.range.last(), newest.snapshot);
    let epoch = newest.epoch.next();
    let archive = until(archive, source.snapshot)?;
    make_folder(store)?;
    put_identity(store, &keys)?;
    let encryption = encrypts(&archive)?;
    let new = NewStore {
        chunk_bytes: archive.chunk_bytes().context("the archive has no snapshot")?,
        cloud: Some(source.cloud.clone()),
        identity: None,
        recipients: source.recipients.clone(),
        encryption,
        level: crate::config::Persist::default().level,
    };
    let config = Config {
        epoch: epoch.get(),
        xid_floor: floor.0.get(),
        snapshot_floor: floor.1.get(),
        ..new_config(filesystem, &new)
    };
    let n_inodes = rebuild(session, store, &archive, &config, floor.0)?;
    copy_manifests(&archive, cloud.as_ref(), &DirStore::open(&local_path(store))?)?;
    record(store, &archive)?;
    config.write(store)?;
    let snapshot = archive.snapshots().next_back().map(|last| last.snapshot.get());
    for ino in archive.snapshots().next_back().iter().flat_map(|last| &last.failed) {
        tracing::warn!("inode {ino} could not be read when this snapshot was taken");
    }
    let text = format!(
        "Restored {n_inodes} inodes of snapshot {} into {}. Their data comes back as it is read.\n",
        snapshot.unwrap_or(0),
        store.display()
    );
    session.report(&json!({ "inodes": n_inodes, "snapshot": snapshot }), &text)
}

/// Copies a tree out as it was in a snapshot.
pub(crate) fn export_snapshot(
    session: &Session,
    path: &Path,
    (tree, dir): (&OsStr, &Path),
    (snapshot, jobs): (u64, Option<usize>),
) -> Result<()> {
    let store = session.open(path)?;
    let stores = store.stores();
    let stores: Vec<&dyn ObjectStore> = stores.iter().map(AsRef::as_ref).collect();
    let archive = until(store.archive()?, Some(snapshot))?.with_tarballs_in(stores);
    let work = tempfile::tempdir_in(path).context("cannot make a temporary folder")?;
    let last = archive.snapshots().next_back().map(|last| last.range.last()).unwrap_or_default();
    rebuild(session, work.path(), &archive, &store.base.config, last)?;
    let core = Core::open(work.path(), &kvfs_options(&store.base.config), clock())?;
    let index = open_index(&index_path(work.path())?, &store.base.config)?;
    let ports = (store.base.filesystem, &Arc::new(index), &store.base.keys);
    let recaller = recaller(ports, store.stores(), &store.base.config)?;
    let fs = Kvfs::new(Arc::new(core), Arc::new(recaller));
    let copied = files::export_tree(session, &fs, (tree, &session.host_path(dir)), jobs)?;
    files::report_export(session, &copied)
}

/// Fills an index and a filesystem below `path` from an archive. Returns the number of inodes.
fn rebuild(
    session: &Session,
    path: &Path,
    archive: &Archive<'_>,
    config: &Config,
    floor: Xid,
) -> Result<u64> {
    let bar = session.bar("restoring");
    let index: Index = open_index(&index_path(path)?, config)?;
    archive.rebuild_index(&index, ScanMode::Tables, &mut Watch::default())?;
    let options = kvfs_options(config);
    Core::create_empty(path, &options)?;
    let core = Core::open(path, &options, clock())?;
    core.set_xid_floor(floor)?;
    let restored: &dyn MountedInstance = &core;
    let n_inodes =
        archive.restore_into(&index, restored, &mut |n_inodes| bar.files_and_bytes(n_inodes, 0))?;
    core.fsync()?;
    Ok(n_inodes)
}

fn until(archive: Archive<'_>, snapshot: Option<u64>) -> Result<Archive<'_>> {
    let Some(snapshot) = snapshot.map(SnapshotId::new) else { return Ok(archive) };
    if !archive.snapshots().any(|summary| summary.snapshot == snapshot) {
        bail!("there is no snapshot {snapshot}; tier snapshots lists them");
    }
    Ok(archive.until(snapshot))
}

fn find_filesystem(cloud: &dyn ObjectStore, source: &Source) -> Result<FilesystemId> {
    let found = Archive::filesystems(cloud)?;
    if let Some(text) = &source.filesystem {
        let wanted = FilesystemId::parse(text)
            .ok_or_else(|| anyhow!("{text} is not the id of a filesystem"))?;
        return Ok(wanted);
    }
    match found.as_slice() {
        [] => bail!("there is no filesystem at {}", source.cloud),
        [only] => Ok(*only),
        several => {
            let list: Vec<_> = several.iter().map(ToString::to_string).collect();
            bail!("there are several filesystems; say --filesystem with one of {}", list.join(", "))
        }
    }
}

/// Whether the archive's tarballs are encrypted; a restored store goes on the same way.
fn encrypts(archive: &Archive<'_>) -> Result<bool> {
    for summary in archive.snapshots().rev() {
        let objects = archive.objects(summary.snapshot)?;
        if let Some(object) = objects.iter().find(|o| o.name.as_str().contains(".tar.zst")) {
            let ending = Path::new(object.name.as_str()).extension();
            return Ok(ending.is_some_and(|ending| ending == "age"));
        }
    }
    Ok(true)
}

fn copy_manifests(archive: &Archive<'_>, from: &dyn ObjectStore, to: &DirStore) -> Result<()> {
    for StoredObject { name, len_bytes, .. } in archive.manifests() {
        let mut bytes = vec![0; to_usize(len_bytes)];
        from.read_range(&name, 0, &mut bytes)?;
        to.put(&name, len_bytes, &mut bytes.as_slice())?;
    }
    Ok(())
}

/// Status logs that say where the snapshots are: where they were restored from.
fn record(store: &Path, archive: &Archive<'_>) -> Result<()> {
    let folder = store.join("status");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let book = StatusBook::open(&folder, clock())?;
    for summary in archive.snapshots() {
        let header = StatusHeader { epoch: summary.epoch, snapshot: summary.snapshot };
        let status = book.writer(header)?;
        status.report(Event::Committed {
            manifest: format!("snapshot {}", summary.snapshot),
            n_tarballs: summary.n_tarballs,
            n_inodes: summary.n_inodes,
            data_bytes: summary.data_bytes,
            tarball_bytes: summary.tarball_bytes,
        })?;
        status.report(Event::Indexed)?;
        status.report(Event::Verified { tier: Tier::Cloud })?;
    }
    Ok(())
}
