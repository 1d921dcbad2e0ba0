//! Changes of an index that are written together.

use std::collections::BTreeMap;

use tier_types::Ino;

use crate::store::{Store, Table};
use crate::{Extent, IndexError, InodePlace, TarballId, key, wire};

#[derive(Default, Debug)]
pub(crate) struct Changes {
    inodes: Vec<(Ino, InodePlace, Option<Extent>)>,
    removed: Vec<Extent>,
    inserted: Vec<Extent>,
    /// Known before, in the entry of an inode.
    moved: Vec<Extent>,
    live_chunks: BTreeMap<TarballId, i64>,
}

impl Changes {
    pub(crate) fn clear(&mut self) {
        self.inodes.clear();
        self.removed.clear();
        self.inserted.clear();
        self.moved.clear();
        self.live_chunks.clear();
    }

    /// An inode's entry, with the only extent that it may hold.
    pub(crate) fn inode(&mut self, ino: Ino, inode: InodePlace, whole: Option<Extent>) {
        if let Some(whole) = &whole {
            self.count(whole, 1);
        }
        self.inodes.push((ino, inode, whole));
    }

    pub(crate) fn insert(&mut self, extent: &Extent) {
        self.inserted.push(*extent);
        self.count(extent, 1);
    }

    pub(crate) fn remove(&mut self, extent: &Extent) {
        self.removed.push(*extent);
        self.count(extent, -1);
    }

    /// An extent that was in the entry of its inode gets an entry of its own.
    pub(crate) fn move_out(&mut self, extent: Extent) {
        self.moved.push(extent);
    }

    pub(crate) fn write(&self, store: &Store) -> Result<(), IndexError> {
        let Self { inodes, live_chunks, inserted, moved, removed } = self;
        let mut batch = store.batch_of(inodes.len() + inserted.len() + removed.len());
        // Removals first: a new extent may have the key of an old one.
        for extent in removed {
            batch.delete(Table::Extents, &key::extent(extent.ino, extent.chunks.last()))?;
        }
        for extent in inserted.iter().chain(moved) {
            let key = key::extent(extent.ino, extent.chunks.last());
            batch.put(Table::Extents, &key, &wire::extent_to_bytes(extent))?;
        }
        for (ino, inode, whole) in inodes {
            let value = wire::inode_to_bytes(inode, whole.as_ref());
            batch.put(Table::Inodes, &key::inode(*ino), &value)?;
        }
        for (&id, &delta) in live_chunks {
            let row = store.tarball(id)?;
            let (live, row) = row.ok_or_else(|| store.damaged("a tarball is not known"))?;
            let live = live.checked_add_signed(delta);
            let live = live.ok_or_else(|| store.damaged("live chunks do not add up"))?;
            batch.put(Table::Tarballs, &key::tarball(id), &wire::tarball_to_bytes(live, &row))?;
        }
        batch.write()
    }

    fn count(&mut self, extent: &Extent, sign: i64) {
        if let Some(place) = extent.place {
            let chunks = i64::try_from(extent.live_chunks()).unwrap_or(i64::MAX);
            *self.live_chunks.entry(place.tarball).or_default() += sign * chunks;
        }
    }
}
