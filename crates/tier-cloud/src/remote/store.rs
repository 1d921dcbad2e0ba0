//! The port over a provider's client.

use std::fmt;
use std::time::Duration;

use object_store::path::Path;
use tier_types::{
    Call, Created, ErrorKind, ListPage, ObjectContent, ObjectMetadata, ObjectName, ObjectStore,
    ObjectVersion, PortError, RangeRead, StorageClass,
};

use crate::conflict;

use super::bucket::Bucket;
use super::list::{self, Listings};
use super::open::variables;
use super::pace::RateLimits;
use super::read;
use super::refusal::Failure;
use super::runtime;
use super::upload::{self, Put, PutError};
use super::url::RemoteUrl;
use super::wire::RequestCounts;

/// Objects in a bucket of a provider.
///
/// ```no_run
/// use tier_cloud::{RemoteStore, RemoteUrl};
/// use tier_types::{Call, ObjectStore};
///
/// let text = "s3://bucket/prefix?endpoint=http://127.0.0.1:8333&region=us-east-1";
/// let url = RemoteUrl::parse(text)?.expect("a scheme of a remote store");
/// let store = RemoteStore::open(&url)?;
/// println!("{} objects", store.names(&Call::bulk(), "")?.len());
/// # Ok::<(), tier_types::PortError>(())
/// ```
pub struct RemoteStore {
    bucket: Bucket,
    listings: Listings,
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("url", &self.bucket.url).finish_non_exhaustive()
    }
}

impl Drop for RemoteStore {
    fn drop(&mut self) {
        let counts = self.counts();
        if counts.n_requests() > 0 {
            tracing::debug!(?counts, "requests to {}", self.bucket.url.place());
        }
    }
}

impl RemoteStore {
    /// The objects at a URL. Nothing is asked of it. Keys come from the environment; an error says
    /// which setting cannot be used.
    pub fn open(url: &RemoteUrl) -> Result<Self, PortError> {
        Self::open_with(url, &variables())
    }

    /// The same with other variables than those of the environment.
    pub fn open_with(url: &RemoteUrl, variables: &[(String, String)]) -> Result<Self, PortError> {
        Ok(Self { bucket: Bucket::open(url, variables)?, listings: Listings::default() })
    }

    /// The same, of which no more is used in a second.
    #[must_use]
    pub fn with_limits(mut self, limits: RateLimits) -> Self {
        self.bucket.attempts.limit(limits);
        self
    }

    /// The requests that were made so far.
    pub fn counts(&self) -> RequestCounts {
        self.bucket.counters.now()
    }

    fn failed(&self, operation: &str, name: &dyn fmt::Display, failure: &Failure) -> PortError {
        let message =
            format!("cannot {operation} {name} in {}: {}", self.bucket.url.place(), failure.text);
        PortError::new(failure.kind, message)
    }

    /// A read failed: an object that is shorter than what was asked for is damaged, however the
    /// store says that.
    async fn explained(
        &self,
        call: &Call<'_>,
        path: &Path,
        end_bytes: u64,
        failure: Failure,
    ) -> Failure {
        if !may_be_the_end(&failure) {
            return failure;
        }
        match self.bucket.ask(call, path).await {
            Ok(there) => short(&there, end_bytes).unwrap_or(failure),
            Err(other) => other,
        }
    }

    fn put_failed(&self, name: &ObjectName, error: PutError) -> PortError {
        match error {
            PutError::Content(error) => error,
            PutError::Store(failure) => self.failed("put", name, &failure),
        }
    }

    /// A large object. Its name is no other writer's, so that this look guards against nothing but
    /// a repetition.
    fn put_in_parts(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        let path = self.bucket.path(name);
        match self.metadata(call, name) {
            Ok(there) => return conflict::check_length(name, content.len_bytes(), &there),
            Err(error) if error.kind() == ErrorKind::Missing => {}
            Err(error) => return Err(error),
        }
        let sent = runtime::run(upload::in_parts(&self.bucket, call, &path, content));
        let Err(error) = sent else { return Ok(()) };
        let is_unclear = matches!(
            &error,
            PutError::Store(failure)
                if matches!(failure.kind, ErrorKind::Missing | ErrorKind::Failed | ErrorKind::Conflict)
        );
        // The end may have come through, and its acknowledgement not.
        if is_unclear && let Ok(there) = self.metadata(call, name) {
            return conflict::check_length(name, content.len_bytes(), &there);
        }
        if let PutError::Store(Failure { kind: ErrorKind::Missing, text, .. }) = error {
            // Nothing is missing that was there: the upload is what is gone.
            return Err(self.failed("put", name, &Failure::new(ErrorKind::Away, text)));
        }
        Err(self.put_failed(name, error))
    }
}

/// The failure of a read that reaches behind the end of an object.
fn short(there: &ObjectMetadata, end_bytes: u64) -> Option<Failure> {
    let is_short = there.len_bytes < end_bytes;
    is_short.then(|| Failure::new(ErrorKind::Damaged, "it ends too early"))
}

/// Whether a read may have failed because the object has no such bytes: stores say that in several
/// ways, and some answer with what they have.
fn may_be_the_end(failure: &Failure) -> bool {
    failure.is_behind_end || failure.kind == ErrorKind::Failed
}

impl ObjectStore for RemoteStore {
    fn url(&self) -> String {
        self.bucket.url.to_string()
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        if !upload::is_single(content.len_bytes()) {
            return self.put_in_parts(call, name, content);
        }
        let path = self.bucket.path(name);
        let bytes = upload::piece(call, content, 0, content.len_bytes());
        let bytes = bytes.map_err(|error| self.put_failed(name, error))?;
        // Sent again after a lost acknowledgement it finds itself, of the same length.
        let sent = self.bucket.attempts.run(call, || async {
            self.bucket.attempts.pace(call, content.len_bytes()).await?;
            upload::create(&self.bucket, &path, bytes.clone()).await
        });
        match runtime::run(sent).map_err(|failure| self.failed("put", name, &failure))? {
            Put::Done => Ok(()),
            Put::Taken => {
                conflict::check_length(name, content.len_bytes(), &self.metadata(call, name)?)
            }
        }
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        let path = self.bucket.path(name);
        let bytes = upload::piece(call, content, 0, content.len_bytes());
        let bytes = bytes.map_err(|error| self.put_failed(name, error))?;
        let sent = self.bucket.attempts.run_once(call, upload::create(&self.bucket, &path, bytes));
        match runtime::run(sent).map_err(|failure| self.failed("create", name, &failure))? {
            Put::Done => Ok(Created::New),
            Put::Taken => Ok(Created::Exists(self.metadata(call, name)?)),
        }
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        let asked = runtime::run(self.bucket.ask(call, &self.bucket.path(name)));
        asked.map_err(|failure| self.failed("find", name, &failure))
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        let path = self.bucket.path(name);
        let ends = ranges
            .iter()
            .map(|range| range.offset_bytes.saturating_add(tier_types::to_u64(range.buffer.len())));
        let end_bytes = ends.max().unwrap_or(0);
        let read = runtime::run(async {
            match read::ranges(&self.bucket, call, &path, ranges).await {
                Ok(()) => Ok(()),
                Err(failure) => Err(self.explained(call, &path, end_bytes, failure).await),
            }
        });
        read.map_err(|failure| self.failed("read", name, &failure))
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let path = self.bucket.path(name);
        let mut refused = None;
        let bytes = offset_bytes..u64::MAX;
        let read = runtime::run(async {
            let mut pass = |piece: &[u8]| {
                take(piece).map_err(|error| {
                    let failure = Failure::new(error.kind(), "");
                    refused = Some(error);
                    failure
                })
            };
            let read = read::fetch(&self.bucket, call, &path, bytes, &mut pass).await;
            match read {
                // The end of an object has nothing behind it that could be asked for.
                Err(failure) if refused.is_none() && may_be_the_end(&failure) => {
                    match self.bucket.ask(call, &path).await {
                        Ok(there) if there.len_bytes == offset_bytes => Ok(()),
                        Ok(there) => Err(short(&there, offset_bytes).unwrap_or(failure)),
                        Err(other) => Err(other),
                    }
                }
                read => read,
            }
        });
        match (refused, read) {
            (Some(error), _) => Err(error),
            (None, read) => read.map_err(|failure| self.failed("read", name, &failure)),
        }
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        let listed = runtime::run(list::page(&self.bucket, &self.listings, call, prefix, after));
        listed.map_err(|failure| self.failed("list", &format!("{prefix}*"), &failure))
    }

    fn thaw(&self, call: &Call<'_>, name: &ObjectName) -> Result<Option<Duration>, PortError> {
        let within = match self.metadata(call, name)?.class {
            StorageClass::Online => return Ok(None),
            StorageClass::Thawing { within } => return Ok(Some(within)),
            StorageClass::Frozen { within } => within,
        };
        let Some(thawer) = &self.bucket.clients.thawer else { return Ok(Some(within)) };
        let path = self.bucket.path(name);
        let asked = self.bucket.attempts.run(call, || async {
            match thawer.ask(&path).await {
                // Another store of this archive has asked meanwhile.
                Err(failure) if failure.is_asked => Ok(()),
                asked => asked,
            }
        });
        let asked = runtime::run(asked);
        asked.map(|()| Some(within)).map_err(|failure| self.failed("thaw", name, &failure))
    }

    fn refuses_changed(&self, call: &Call<'_>, name: &ObjectName) -> Result<bool, PortError> {
        let tried =
            runtime::run(upload::refuses_changed(&self.bucket, call, &self.bucket.path(name)));
        let tried = tried.map_err(|failure| self.failed("try", name, &failure));
        self.delete(call, name, None)?;
        tried
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        if let Some(only) = only {
            // Not one step with the deletion: no provider has that in all its stores. Names are
            // used once, so that there is no other object to come between.
            match self.metadata(call, name) {
                Err(error) if error.kind() == ErrorKind::Missing => return Ok(()),
                Err(error) => return Err(error),
                Ok(there) => conflict::check_version(name, only, &there)?,
            }
        }
        let path = self.bucket.path(name);
        let deleted = self.bucket.attempts.run(call, || async {
            let deleted =
                object_store::ObjectStoreExt::delete(self.bucket.clients.backend.as_ref(), &path);
            deleted.await.map_err(|error| Failure::of(&error))
        });
        match runtime::run(deleted) {
            Err(failure) if failure.kind == ErrorKind::Missing => Ok(()),
            // An answer to several deletions may hide what became of one.
            Err(failure) if failure.kind == ErrorKind::Failed => match self.metadata(call, name) {
                Err(error) if error.kind() == ErrorKind::Missing => Ok(()),
                _ => Err(self.failed("delete", name, &failure)),
            },
            deleted => deleted.map_err(|failure| self.failed("delete", name, &failure)),
        }
    }
}
