//! The port itself; the module above says what holds for all of it.

use std::time::Duration;

use crate::{ErrorKind, PortError};

use super::call::Call;
use super::content::ObjectContent;
use super::metadata::{Created, ListPage, ListedObject, ObjectMetadata, ObjectVersion, RangeRead};
use super::name::ObjectName;

/// Immutable objects by name.
pub trait ObjectStore: Send + Sync {
    /// Where the objects are, as an operator writes it: a URL. It stays the same for all openings
    /// of one place, and says nothing of whether the place still has the same objects.
    fn url(&self) -> String;

    /// Stores an object under a name that no other content has. Durable on return; when it fails,
    /// either nothing is visible under the name or the whole object, which may not be durable yet.
    /// If the name is taken by an object of the same length the call makes it durable and changes
    /// nothing else, so that an interrupted upload can be repeated; whether the bytes are the same
    /// is for the reader to check. If it is taken by an object of another length the call is a
    /// `Conflict` and changes nothing.
    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError>;

    /// Stores an object if its name is free, in one request: of all that create one name at a time,
    /// one is told that it is new. Durable on return. After an error the object may be there or
    /// not.
    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError>;

    /// What the store says of an object.
    fn metadata(&self, call: &Call<'_>, name: &ObjectName) -> Result<ObjectMetadata, PortError>;

    /// Fills the buffers of several ranges of one object, in any order, with as few requests as the
    /// store can do it. An object that ends before the end of one is an error of kind `Damaged`.
    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError>;

    /// Gives an object's bytes to `take`, piece by piece in order, from `offset_bytes` to its end,
    /// in one request where nothing fails. An error of `take` ends it and is returned. An offset
    /// behind the end is an error of kind `Damaged`.
    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError>;

    /// The objects whose names start with `prefix` and come behind `after`, sorted by name, as many
    /// as the store gives at once; none only at the end.
    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError>;

    /// Removes an object, one that is not there without an error. With a version only that one: if
    /// the name has another object by now, it stays, and the call is a `Conflict`.
    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError>;

    /// Has a frozen object made readable, unless that was asked for before. About how long it takes
    /// from now; `None` if it can be read.
    fn thaw(&self, call: &Call<'_>, name: &ObjectName) -> Result<Option<Duration>, PortError> {
        // A store that freezes nothing.
        self.metadata(call, name).map(|_| None)
    }

    /// Whether the store itself refuses an object whose bytes changed on their way to it: tried
    /// with one of this name, which nothing else has and which is gone afterwards. A store of which
    /// that cannot be told refuses none.
    fn refuses_changed(&self, _call: &Call<'_>, _name: &ObjectName) -> Result<bool, PortError> {
        Ok(false)
    }

    /// Fills one buffer from `offset_bytes` on.
    fn read_range(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), PortError> {
        self.read_ranges(call, name, &mut [RangeRead { offset_bytes, buffer }])
    }

    /// Shows `visit` all objects whose names start with `prefix` and come after one, in order, page
    /// by page. The store may be asked other things meanwhile.
    fn list_all(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
        visit: &mut dyn FnMut(ListedObject) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let mut after = after.cloned();
        loop {
            let page = self.list(call, prefix, after.as_ref())?;
            let last = page.objects.last().map(|object| object.name.clone());
            // A listing that ends before its end would hide objects, and one that goes back would
            // never end.
            if !page.is_last && last <= after {
                let message = format!("the listing of {}/{prefix} does not go on", self.url());
                return Err(PortError::new(ErrorKind::Failed, message));
            }
            after = last;
            page.objects.into_iter().try_for_each(&mut *visit)?;
            if page.is_last {
                return Ok(());
            }
        }
    }

    /// The names that start with `prefix`, sorted: for a few of them.
    fn names(&self, call: &Call<'_>, prefix: &str) -> Result<Vec<ObjectName>, PortError> {
        self.names_after(call, prefix, None)
    }

    /// Those of them that come after one.
    fn names_after(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<Vec<ObjectName>, PortError> {
        let mut names = Vec::new();
        self.list_all(call, prefix, after, &mut |object| {
            names.push(object.name);
            Ok(())
        })?;
        Ok(names)
    }
}
