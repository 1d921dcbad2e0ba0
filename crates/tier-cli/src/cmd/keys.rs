//! `tier keygen` and `tier init`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kvfs::Core;
use serde_json::json;
use tier_persist::{FilesystemId, Keys};
use tier_types::Clock;

use crate::config::Config;
use crate::output;
use crate::session::Session;
use crate::store::{clock, kvfs_options, open_cloud, read_identity, write_secret};

pub(crate) fn keygen(session: &Session, output_file: Option<&Path>) -> Result<()> {
    let keys = Keys::generate()?;
    let text = identity_text(&keys);
    match output_file {
        None => session.report(&json!({}), &text),
        Some(path) => {
            write_secret(path, &text)?;
            session.note(&format!("Public key: {}", keys.public_key()));
            Ok(())
        }
    }
}

/// What a new store is to be.
pub(crate) struct NewStore {
    pub(crate) cloud: Option<String>,
    pub(crate) identity: Option<PathBuf>,
    pub(crate) recipients: Vec<String>,
    pub(crate) encryption: bool,
    pub(crate) level: i32,
    pub(crate) chunk_bytes: u32,
}

pub(crate) fn init(session: &Session, store: &Path, new: &NewStore) -> Result<()> {
    if let Some(url) = &new.cloud {
        open_cloud(url)?;
    }
    let mut keys = match &new.identity {
        Some(path) => read_identity(path)?,
        None => Keys::generate()?,
    };
    for recipient in &new.recipients {
        keys.add_recipient(recipient)?;
    }
    make_folder(store)?;
    let filesystem = FilesystemId::random()?;
    put_identity(store, &keys)?;
    let config = new_config(filesystem, new);
    Core::create(store, &kvfs_options(&config), clock())
        .with_context(|| format!("cannot make a filesystem in {}", store.display()))?;
    // The settings come last: a folder without them is no store.
    config.write(store)?;
    let identity = store.join(IDENTITY);
    let mut text = format!("Made the store {} of filesystem {filesystem}.\n", store.display());
    if new.identity.is_none() {
        text.push_str(&format!(
            "Its identity is in {}. BACK IT UP elsewhere: without it nothing that is pushed can \
             ever be read again.\n",
            identity.display()
        ));
    }
    let report = json!({
        "store": store.display().to_string(),
        "filesystem": filesystem.to_string(),
        "identity": identity.display().to_string(),
        "public_key": keys.public_key(),
    });
    session.report(&report, &text)
}

/// The name of the identity file within a store.
pub(crate) const IDENTITY: &str = "identity.key";

/// Makes the folder of a store, which must be empty if it is there.
pub(crate) fn make_folder(store: &Path) -> Result<()> {
    let failed = || format!("cannot create {}", store.display());
    fs::create_dir_all(store).with_context(failed)?;
    // What the permissions of the filesystem keep from others lies in here.
    fs::set_permissions(store, fs::Permissions::from_mode(0o700)).with_context(failed)?;
    let mut entries =
        fs::read_dir(store).with_context(|| format!("cannot list {}", store.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty", store.display());
    }
    Ok(())
}

pub(crate) fn put_identity(store: &Path, keys: &Keys) -> Result<()> {
    write_secret(&store.join(IDENTITY), &identity_text(keys))
}

pub(crate) fn new_config(filesystem: FilesystemId, new: &NewStore) -> Config {
    let persist = crate::config::Persist { level: new.level, ..Default::default() };
    Config {
        filesystem: filesystem.to_string(),
        epoch: 1,
        chunk_bytes: new.chunk_bytes,
        xid_floor: 0,
        snapshot_floor: 0,
        identity: IDENTITY.into(),
        recipients: new.recipients.clone(),
        encryption: new.encryption,
        cloud: new.cloud.clone(),
        persist,
        memory: crate::config::Memory::default(),
        recall: crate::config::Recall::default(),
        evict: crate::config::Evict::default(),
        agent: crate::config::Agent::default(),
        space: crate::config::Space::default(),
        mount: crate::config::Mount::default(),
    }
}

fn identity_text(keys: &Keys) -> String {
    keys.to_identity_file(&output::time(tier_types::SystemClock.now()))
}
