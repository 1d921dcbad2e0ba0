//! Where the tarballs of a filesystem are: stores, in order of preference, and the keys to open
//! them.

use tier_types::{Call, ObjectName, ObjectStore};

use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::names::FilesystemId;
use crate::format::tarball::row::TarballRow;
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
    pub(crate) fn name_of(&self, row: &TarballRow) -> ObjectName {
        row.name(self.filesystem)
    }

    /// The first of the stores that has the object; where none has it, the first one will say why.
    pub(crate) fn store_with(
        &self,
        name: &ObjectName,
    ) -> Result<&'a dyn ObjectStore, PersistError> {
        // With one store there is nothing to choose, and no request to spend.
        if let [only] = self.stores {
            return Ok(*only);
        }
        // By its length alone: whether the copy is whole shows when its frames are read.
        let has_it = |store: &&&'a dyn ObjectStore| {
            let found = store.metadata(&Call::bulk(), name);
            found.inspect_err(|error| tracing::debug!(%name, %error, "passing a store by")).is_ok()
        };
        let found = self.stores.iter().find(has_it).or(self.stores.first());
        found.copied().ok_or_else(|| PersistError::Missing(name.to_string()))
    }

    /// Opens a tarball that a manifest lists.
    pub(crate) fn open(&self, row: &TarballRow) -> Result<TarballReader<'a>, PersistError> {
        let name = self.name_of(row);
        TarballReader::with_row(self.store_with(&name)?, &name, row, self.keys)
    }
}
