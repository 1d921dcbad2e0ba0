//! Where what is installed and compiled once for a machine is kept.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The cache's directory, made if it is not there.
pub(super) fn directory() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?.join("tier");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    Ok(cache)
}
