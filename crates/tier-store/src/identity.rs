//! The keys of a store: identity files, and recipients.

use std::fs;
use std::path::Path;

use tier_persist::Keys;
use tier_types::Clock;

use crate::config::Config;
use crate::{Layout, StoreError, durable};

/// Reads an identity file in the form of `age-keygen`.
pub fn read_identity(path: &Path) -> Result<Keys, StoreError> {
    let text = fs::read_to_string(path).map_err(StoreError::io("read the identity file", path))?;
    Keys::from_identity_file(&text)
        .map_err(|source| StoreError::Identity { path: path.to_path_buf(), source })
}

/// Writes keys to a new identity file, which only its owner can read.
pub fn new_identity(path: &Path, keys: &Keys, clock: &dyn Clock) -> Result<(), StoreError> {
    durable::write_secret(path, &keys.to_identity_file(&clock.now().to_string()))
}

/// The keys that a store's settings name.
pub(crate) fn load_keys(layout: &Layout, config: &Config) -> Result<Keys, StoreError> {
    // An absolute path in the settings takes the place of the root, so that the key can lie
    // elsewhere.
    let mut keys = read_identity(&layout.root().join(&config.identity))?;
    for recipient in &config.recipients {
        keys.add_recipient(recipient)?;
    }
    tracing::debug!(config.encryption, n_recipients = config.recipients.len(), "keys loaded");
    // An archive in clear needs the identity all the same: its manifests are signed with it.
    Ok(if config.encryption { keys } else { keys.without_encryption() })
}
