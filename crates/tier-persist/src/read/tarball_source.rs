//! Where the tarballs of a filesystem are: stores, in order of preference, and the keys to open
//! them.

use tier_types::{Call, ErrorKind, ObjectName, ObjectStore};

use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::names::FilesystemId;
use crate::format::tarball::row::TarballObject;
use crate::format::tarball::toc::root::TocRoot;
use crate::read::copies;
use crate::read::tarball_reader::TarballReader;

/// Where tarballs are looked for.
#[derive(Clone, Copy)]
pub(crate) struct TarballSource<'a> {
    /// Looked into in this order; at least one.
    pub(crate) stores: &'a [&'a dyn ObjectStore],
    pub(crate) keys: &'a Keys,
    pub(crate) filesystem: FilesystemId,
}

impl<'a> TarballSource<'a> {
    /// The object's name.
    pub(crate) fn name_of(&self, tarball: &TarballObject) -> ObjectName {
        tarball.object_name(self.filesystem)
    }

    /// The first of the stores that has the object.
    pub(crate) fn store_with(
        &self,
        name: &ObjectName,
    ) -> Result<&'a dyn ObjectStore, PersistError> {
        // With one store there is nothing to choose, and no request to spend.
        if let [only] = self.stores {
            return Ok(*only);
        }
        // By its length alone: whether the copy is whole shows when its frames are read.
        let mut why = None;
        for store in self.stores {
            match store.metadata(&Call::bulk(), name) {
                Ok(_) => return Ok(*store),
                // What one store has not another one may have, and one that is away may have it,
                // too: then it is not missing.
                Err(error) if error.kind() == ErrorKind::Missing => {}
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.map_or_else(|| PersistError::Missing(name.to_string()), PersistError::Store))
    }

    /// The same for each store by itself, in their order.
    pub(crate) fn each(self) -> impl Iterator<Item = Self> {
        self.stores.iter().map(move |store| self.only(store))
    }

    fn only(self, store: &'a &'a dyn ObjectStore) -> Self {
        Self { stores: std::slice::from_ref(store), ..self }
    }

    /// What `read` makes of the first copy that it can read.
    pub(crate) fn first_whole<T>(
        self,
        mut read: impl FnMut(Self) -> Result<T, PersistError>,
    ) -> Result<T, PersistError> {
        copies::first_whole(self.stores, |store| read(self.only(store)))
    }

    /// Opens a tarball that a manifest lists.
    pub(crate) fn open(
        &self,
        tarball: &TarballObject,
    ) -> Result<(TarballReader<'a>, TocRoot), PersistError> {
        let name = self.name_of(tarball);
        TarballReader::of_manifest(self.store_with(&name)?, &name, tarball, self.keys)
    }
}
