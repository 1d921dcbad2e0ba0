//! Reading packed objects, and the steps of the history that a checkpoint holds.

use tier_types::{Call, ObjectName, ObjectStore, to_usize};

use crate::error::PersistError;
use crate::format::checkpoint::{self, CheckpointInode, CheckpointStep};
use crate::format::digest::sha256;
use crate::format::manifest::Manifest;
use crate::format::names::PackedKind;
use crate::format::packed::{self, PackedObject};
use crate::read::ahead::read_ahead;
use crate::read::copies::first_whole;
use crate::read::link::ChainLink;
use crate::read::small::is_of_the_object;
use crate::read::tarball_source::TarballSource;

impl Manifest {
    /// Its objects of one kind, in order.
    pub(crate) fn packed_of(&self, kind: PackedKind) -> Vec<&PackedObject> {
        self.packed.iter().filter(|object| object.name.kind == kind).collect()
    }
}

impl TarballSource<'_> {
    /// The content of a packed object, from the first store that has exactly its bytes.
    pub(crate) fn read_packed(&self, object: &PackedObject) -> Result<Vec<u8>, PersistError> {
        let name = object.object_name(self.filesystem);
        first_whole(self.stores, |store| self.read_packed_in(*store, object, &name))
    }

    fn read_packed_in(
        &self,
        store: &dyn ObjectStore,
        object: &PackedObject,
        name: &ObjectName,
    ) -> Result<Vec<u8>, PersistError> {
        assert!(object.has_sound_lengths(), "a manifest's word was checked when it was read");
        let mut bytes = vec![0; to_usize(object.content.len_bytes)];
        store.read_range(&Call::bulk(), name, 0, &mut bytes).map_err(PersistError::Store)?;
        if sha256(&bytes) != object.content.sha256 {
            return Err(PersistError::damaged(name, "its digest is wrong"));
        }
        packed::unpack(&bytes, object, name, self.keys)
    }

    /// The inodes of a checkpoint's object.
    pub(crate) fn read_inodes(
        &self,
        object: &PackedObject,
    ) -> Result<Vec<CheckpointInode>, PersistError> {
        let inodes = checkpoint::read_inodes(&self.read_packed(object)?);
        inodes.ok_or_else(|| self.undecodable(object))
    }

    /// The steps of a checkpoint's object.
    pub(crate) fn read_steps(
        &self,
        object: &PackedObject,
    ) -> Result<Vec<CheckpointStep>, PersistError> {
        let steps = checkpoint::read_steps(&self.read_packed(object)?);
        steps.ok_or_else(|| self.undecodable(object))
    }

    fn undecodable(&self, object: &PackedObject) -> PersistError {
        PersistError::damaged(object.object_name(self.filesystem), "its content cannot be read")
    }

    /// The history before a checkpoint, oldest step first; `None` if it must be found from manifest
    /// to manifest, because what the checkpoint has of it is damaged.
    pub(crate) fn links_before(
        &self,
        checkpoint: &Manifest,
    ) -> Result<Option<Vec<ChainLink>>, PersistError> {
        match self.read_links(checkpoint) {
            Err(error) if is_of_the_object(&error) => {
                tracing::warn!(name = %checkpoint.name(), "going past a checkpoint: {error}");
                Ok(None)
            }
            links => links.map(Some),
        }
    }

    fn read_links(&self, checkpoint: &Manifest) -> Result<Vec<ChainLink>, PersistError> {
        let objects = checkpoint.packed_of(PackedKind::Steps);
        let mut links = Vec::new();
        let read = |number: usize| match objects.get(number) {
            Some(object) => self.read_steps(object),
            None => Err(PersistError::Pipeline),
        };
        let damaged = |problem| PersistError::damaged(checkpoint.name(), problem);
        read_ahead(objects.len(), &read, &mut |steps: Vec<CheckpointStep>| {
            for step in steps {
                let link = ChainLink::from_bytes(&step.link);
                let link = link.ok_or_else(|| damaged("a step of it cannot be read"))?;
                // One with many tarballs comes several times.
                let number = |link: &ChainLink| link.summary.snapshot;
                if links.last().map(number) != Some(number(&link)) {
                    links.push(link);
                }
            }
            Ok(())
        })?;
        // The last one is what it continues, so that all of them are of this history.
        let last = links.last().map(|link| link.reference);
        if last.is_none() || last != checkpoint.parent {
            return Err(damaged("its steps do not end with the one that it continues"));
        }
        Ok(links)
    }
}
