//! A cloud whose calls are counted, for the progress of a restore.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tier_types::{
    Call, ListPage, ObjectMetadata, ObjectName, ObjectStore, PortError, RangeRead, StoreLayer,
    to_u64,
};

/// How far a restore has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RestoreProgress {
    /// Inodes that were put back.
    pub n_inodes: u64,
    /// Bytes that came from the cloud.
    pub bytes: u64,
    /// Calls of the cloud, each a request if nothing has to be repeated.
    pub n_calls: u64,
}

/// Objects of a cloud.
pub(crate) struct CountedCloud {
    inner: Arc<dyn ObjectStore>,
    n_calls: AtomicU64,
    bytes: AtomicU64,
}

impl CountedCloud {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, n_calls: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// What was asked of it so far.
    pub(crate) fn progress(&self, n_inodes: u64) -> RestoreProgress {
        let (bytes, n_calls) = (&self.bytes, &self.n_calls);
        let [bytes, n_calls] = [bytes, n_calls].map(|count| count.load(Ordering::Relaxed));
        RestoreProgress { n_inodes, bytes, n_calls }
    }

    fn count(&self, bytes: u64) {
        self.n_calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl StoreLayer for CountedCloud {
    fn inner(&self) -> &dyn ObjectStore {
        self.inner.as_ref()
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        self.count(0);
        self.inner.metadata(call, name)
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        self.count(ranges.iter().map(|range| to_u64(range.buffer.len())).sum());
        self.inner.read_ranges(call, name, ranges)
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        self.count(0);
        self.inner.stream(call, name, offset_bytes, &mut |piece| {
            self.bytes.fetch_add(to_u64(piece.len()), Ordering::Relaxed);
            take(piece)
        })
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        self.count(0);
        self.inner.list(call, prefix, after)
    }
}
