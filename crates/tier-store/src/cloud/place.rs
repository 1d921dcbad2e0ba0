//! The object store that a URL names.

use std::path::Path;
use std::sync::Arc;

use tier_cloud::DirStore;
use tier_types::ObjectStore;

use crate::StoreError;

/// The cloud at a URL. Nothing is asked of it and nothing is made: it may be away.
pub(crate) fn open_cloud(url: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Ok(Arc::new(DirStore::at(directory(url)?)))
}

/// The same, of which the place is made if it is not there.
pub(crate) fn make_cloud(url: &str) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Ok(Arc::new(DirStore::create(directory(url)?)?))
}

fn directory(url: &str) -> Result<&Path, StoreError> {
    match url.split_once("://") {
        // A relative path would name another directory for each process that opens the store.
        Some(("file", path)) if path.starts_with('/') => Ok(Path::new(path)),
        // A known scheme is named as such: a backend that is missing is no typing error.
        Some((scheme @ ("s3" | "gs" | "az"), _)) => Err(StoreError::Unusable(format!(
            "this build of tier has no support for {scheme}:// yet; use file:///dir"
        ))),
        _ => Err(StoreError::Unusable(format!(
            "{url} is not a URL of a cloud store; expected file:///dir"
        ))),
    }
}
