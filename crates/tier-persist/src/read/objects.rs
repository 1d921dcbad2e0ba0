//! The objects of the steps of a history, to be copied and compared.

use tier_index::{Index, TarballId};
use tier_types::{Call, Epoch, HasKind, ListedObject, ObjectName, ObjectStore, SnapshotId};

use crate::error::PersistError;
use crate::format::manifest::OtherObject;
use crate::format::names::{self, FilesystemId, ObjectKind, PackedKind};
use crate::format::tarball::row::TarballRow;
use crate::read::chain::Archive;
use crate::read::link::{StepKind, StoredObject};

/// The objects of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotObjects {
    /// What its manifest lists, as far as this step wrote it.
    pub data: Vec<StoredObject>,
    /// What its manifest lists of earlier steps, as a checkpoint does.
    pub earlier: Vec<StoredObject>,
    /// The manifest itself, which is copied last: there is never one that lists what is not there.
    pub manifest: StoredObject,
}

impl SnapshotObjects {
    /// All that the step wrote, the manifest last.
    pub fn own(&self) -> impl Iterator<Item = &StoredObject> {
        self.data.iter().chain([&self.manifest])
    }
}

/// Which tarball of the index has this name; `None` for any other object.
pub fn tarball_of(name: &ObjectName) -> Option<TarballId> {
    match names::parse(name)?.1 {
        ObjectKind::Tarball(tarball) => Some(tarball.id),
        ObjectKind::Packed(_) | ObjectKind::Claim(_) | ObjectKind::Manifest { .. } => None,
    }
}

/// The tarballs of a snapshot that a store has, of whichever attempt at it.
pub fn tarballs_in(
    call: &Call<'_>,
    store: &dyn ObjectStore,
    filesystem: FilesystemId,
    epoch: Epoch,
    snapshot: SnapshotId,
) -> Result<Vec<ObjectName>, PersistError> {
    let names = store.names(call, &names::snapshot_prefix(filesystem, epoch, snapshot));
    let mut tarballs = names.map_err(PersistError::Store)?;
    tarballs.retain(|name| {
        tarball_of(name).is_some_and(|id| (id.epoch, id.snapshot) == (epoch, snapshot))
    });
    Ok(tarballs)
}

/// Whether this is the name of an object as this version writes them.
pub fn is_known_kind(name: &ObjectName) -> bool {
    names::parse(name).is_some()
}

/// Shows all objects of data of a filesystem that a store has, of whichever step, in the order of
/// their steps.
pub fn each_data_object(
    call: &Call<'_>,
    store: &dyn ObjectStore,
    filesystem: FilesystemId,
    visit: &mut dyn FnMut(DataObject),
) -> Result<(), PersistError> {
    let listed = store.list_all(call, &names::data_prefix(filesystem), None, &mut |object| {
        let ListedObject { name, len_bytes } = object;
        let id = match names::parse(&name) {
            Some((_, ObjectKind::Tarball(tarball))) => Some(tarball.id),
            Some((_, ObjectKind::Packed(packed))) => Some(packed.id),
            Some((_, ObjectKind::Claim(_) | ObjectKind::Manifest { .. })) | None => None,
        };
        if let Some(TarballId { epoch, snapshot, .. }) = id {
            visit(DataObject { name, len_bytes, epoch, snapshot });
        }
        Ok(())
    });
    listed.map_err(PersistError::Store)
}

/// An object of data, as its name and a listing tell it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataObject {
    /// Its name.
    pub name: ObjectName,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// The epoch of the step that wrote it.
    pub epoch: Epoch,
    /// The step.
    pub snapshot: SnapshotId,
}

impl Archive<'_> {
    /// The tarballs of a snapshot as far as an index knows them, whose manifest no copy has.
    pub fn indexed_tarballs(
        &self,
        index: &Index,
        snapshot: SnapshotId,
    ) -> Result<Vec<StoredObject>, PersistError> {
        let epoch = self.link(snapshot)?.summary.epoch;
        let mut tarballs = Vec::new();
        for (id, bytes) in
            index.tarball_rows(&TarballId::of_snapshot(epoch, snapshot), usize::MAX)?
        {
            let problem = "the row of a tarball cannot be read; rebuild it";
            let row = TarballRow::from_bytes(&bytes);
            let row = row.ok_or_else(|| PersistError::damaged(id, problem))?;
            let (name, content) = (row.object_name(self.filesystem()), row.object.content);
            tarballs.push(StoredObject { name, content });
        }
        Ok(tarballs)
    }

    /// What a snapshot wrote. Without its manifest, which no copy has, that and the tarballs that
    /// an index knows.
    pub fn own_objects(
        &self,
        index: &Index,
        snapshot: SnapshotId,
    ) -> Result<Vec<StoredObject>, PersistError> {
        match self.objects(snapshot) {
            Err(error) if error.kind().is_of_object() => {
                let mut objects = self.indexed_tarballs(index, snapshot)?;
                objects.push(self.manifest_object(snapshot)?);
                Ok(objects)
            }
            objects => Ok(objects?.own().cloned().collect()),
        }
    }

    /// The objects of a snapshot.
    pub fn objects(&self, snapshot: SnapshotId) -> Result<SnapshotObjects, PersistError> {
        let link = self.link(snapshot)?;
        let manifest = self.manifest(link)?;
        let tarballs = manifest.tarballs.iter().map(|tarball| StoredObject {
            name: tarball.object_name(self.filesystem()),
            content: tarball.content,
        });
        let packed = manifest.packed.iter().map(|packed| StoredObject {
            name: packed.object_name(self.filesystem()),
            content: packed.content,
        });
        let others = manifest.others.iter().map(|other| {
            let OtherObject { name, content, .. } = other.clone();
            StoredObject { name, content }
        });
        let number = (manifest.epoch, manifest.snapshot);
        // What has a name of another kind is taken for the step's own, so that it is copied.
        let is_own = |object: &StoredObject| {
            names::step_of_data(&object.name).is_none_or(|step| step == number)
        };
        let (data, earlier) = tarballs.chain(packed).chain(others).partition(is_own);
        Ok(SnapshotObjects { data, earlier, manifest: link.object(self.filesystem()) })
    }

    /// The objects of a step that tell the history: its manifest, which comes last, and what a
    /// checkpoint has of the steps before it.
    pub fn history_objects(&self, snapshot: SnapshotId) -> Result<Vec<StoredObject>, PersistError> {
        let link = self.link(snapshot)?;
        let mut objects = Vec::new();
        if link.summary.kind == StepKind::Checkpoint {
            let manifest = self.manifest(link)?;
            let steps = manifest.packed_of(PackedKind::Steps);
            objects.extend(steps.into_iter().map(|object| StoredObject {
                name: object.object_name(self.filesystem()),
                content: object.content,
            }));
        }
        objects.push(link.object(self.filesystem()));
        Ok(objects)
    }
}
