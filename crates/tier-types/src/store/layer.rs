//! Stores over another store.

use std::time::Duration;

use crate::PortError;

use super::call::Call;
use super::content::ObjectContent;
use super::metadata::{Created, ListPage, ObjectMetadata, ObjectVersion, RangeRead};
use super::name::ObjectName;
use super::object_store::ObjectStore;

/// A store that passes its calls on to another one. What it does differently it overrides.
///
/// ```
/// use tier_types::{
///     Call, ErrorKind, ObjectContent, ObjectName, ObjectStore, PortError, StoreLayer,
/// };
///
/// /// Objects that are read and not written.
/// struct ReadOnly<S>(S);
///
/// impl<S: ObjectStore> StoreLayer for ReadOnly<S> {
///     fn inner(&self) -> &dyn ObjectStore {
///         &self.0
///     }
///
///     fn put(
///         &self,
///         _: &Call<'_>,
///         name: &ObjectName,
///         _: &dyn ObjectContent,
///     ) -> Result<(), PortError> {
///         Err(PortError::new(ErrorKind::Denied, format!("{name}: this store is read only")))
///     }
/// }
/// ```
#[expect(missing_docs, clippy::missing_errors_doc, reason = "the methods of `ObjectStore`")]
pub trait StoreLayer: Send + Sync {
    /// The other one.
    fn inner(&self) -> &dyn ObjectStore;

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        self.inner().put(call, name, content)
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        self.inner().create(call, name, content)
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        self.inner().metadata(call, name)
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        self.inner().read_ranges(call, name, ranges)
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        self.inner().stream(call, name, offset_bytes, take)
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        self.inner().list(call, prefix, after)
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        self.inner().delete(call, name, only)
    }

    fn thaw(&self, call: &Call<'_>, name: &ObjectName) -> Result<Option<Duration>, PortError> {
        self.inner().thaw(call, name)
    }

    fn refuses_changed(&self, call: &Call<'_>, name: &ObjectName) -> Result<bool, PortError> {
        self.inner().refuses_changed(call, name)
    }
}

impl<L: StoreLayer> ObjectStore for L {
    fn url(&self) -> String {
        self.inner().url()
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        StoreLayer::put(self, call, name, content)
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        StoreLayer::create(self, call, name, content)
    }

    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError> {
        StoreLayer::metadata(self, call, name)
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        StoreLayer::read_ranges(self, call, name, ranges)
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        StoreLayer::stream(self, call, name, offset_bytes, take)
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        StoreLayer::list(self, call, prefix, after)
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        StoreLayer::delete(self, call, name, only)
    }

    fn thaw(&self, call: &Call<'_>, name: &ObjectName) -> Result<Option<Duration>, PortError> {
        StoreLayer::thaw(self, call, name)
    }

    fn refuses_changed(&self, call: &Call<'_>, name: &ObjectName) -> Result<bool, PortError> {
        StoreLayer::refuses_changed(self, call, name)
    }
}
