//! The object store that a URL names.

use std::path::Path;
use std::sync::Arc;

use tier_cloud::{DirStore, RateLimits, RemoteStore, RemoteUrl};
use tier_types::ObjectStore;

use crate::StoreError;

/// The cloud at a URL. Nothing is asked of it and nothing is made: it may be away.
pub(crate) fn open_cloud(url: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    open_limited(url, RateLimits::default())
}

/// The same, of which no more is used in a second. A directory has no limits.
pub(crate) fn open_limited(
    url: &str,
    limits: RateLimits,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    if let Some(remote) = RemoteUrl::parse(url)? {
        return Ok(Arc::new(RemoteStore::open(&remote)?.with_limits(limits)));
    }
    Ok(Arc::new(DirStore::at(directory(url)?)))
}

/// The same, of which the place is made if it is not there. A bucket is made by its owner.
pub(crate) fn make_cloud(url: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    match RemoteUrl::parse(url)? {
        Some(_) => open_cloud(url),
        None => Ok(Arc::new(DirStore::create(directory(url)?)?)),
    }
}

/// The URL with what the environment says of the place, as a store remembers it: a later command
/// may have another environment.
pub(crate) fn completed(url: &str) -> Result<String, StoreError> {
    let remote = RemoteUrl::parse(url)?;
    let completed = remote.map(|remote| remote.completed(|name| std::env::var(name).ok()));
    Ok(completed.map_or_else(|| url.to_owned(), |remote| remote.to_string()))
}

/// Whether a place that is not there is made by a store that begins with it.
pub(crate) fn may_be_made(url: &str) -> bool {
    // A directory is; a bucket that does not answer may have another store's archive.
    may_be_exchanged(url)
}

/// Whether a place can become another one under the same URL while it is in use, as the directory
/// of a disk does that is unmounted.
pub(crate) fn may_be_exchanged(url: &str) -> bool {
    !matches!(RemoteUrl::parse(url), Ok(Some(_)))
}

fn directory(url: &str) -> Result<&Path, StoreError> {
    match url.split_once("://") {
        // A relative path would name another directory for each process that opens the store.
        Some(("file", path)) if path.starts_with('/') => Ok(Path::new(path)),
        _ => Err(StoreError::Unusable(format!(
            "{url} is not a URL of a cloud; expected s3://bucket/prefix, gs://bucket/prefix, \
             az://container/prefix or file:///dir"
        ))),
    }
}
