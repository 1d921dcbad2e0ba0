//! How the fake changes: every operation is applied and logged under one lock, and what must be
//! recalled for it is recalled before, under none.

use tier_log::Operation;
use tier_types::{ChunkNo, ChunkRange, FileKind, Ino, Link, PortError, RecallRequest, Xid};

use super::inode::FakeInode;
use super::{FakeKvs, gone, link};

impl FakeKvs {
    pub(super) fn find(&self, name: &str) -> Option<Ino> {
        let inodes = self.shared.inodes.lock();
        let named = |inode: &FakeInode| inode.state.links.contains(&link(name));
        inodes.iter().find(|(_, inode)| named(inode)).map(|(ino, _)| *ino)
    }

    /// Makes an inode, whose number is that of its transaction.
    pub(super) fn make(
        &self,
        kind: FileKind,
        link: Option<Link>,
        log: impl FnOnce(Ino) -> Operation,
    ) {
        self.log().transact(|xid| {
            let ino = Ino::new(xid.get());
            let inode = FakeInode::new(ino, kind, link, xid, self.shared.chunk_bytes);
            self.shared.inodes.lock().insert(ino, inode);
            Some(log(ino))
        });
    }

    /// Makes and logs a change; one that fails is not logged. Of a chunk in which it has an edge, a
    /// byte offset, some bytes may stay, and so the chunk is recalled before it.
    pub(super) fn change(
        &self,
        ino: Ino,
        edges: &[u64],
        operation: &Operation,
        mut change: impl FnMut(&mut FakeInode, Xid) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let chunk_bytes = u64::from(self.shared.chunk_bytes);
        let cut_chunks: Vec<_> = edges
            .iter()
            .filter(|edge| !edge.is_multiple_of(chunk_bytes))
            .map(|edge| ChunkRange::one(ChunkNo::new(edge / chunk_bytes)).unwrap())
            .collect();
        loop {
            for edge in &cut_chunks {
                self.with_resident(ino, *edge, |_| ())?;
            }
            let mut refused = None;
            let changed = self.log().transact(|xid| {
                let mut inodes = self.shared.inodes.lock();
                let inode = inodes.get_mut(&ino).expect("the inode to be changed is there");
                // An eviction may have come in between.
                let resident = cut_chunks.iter().all(|edge| inode.first_cold(*edge).is_none());
                let changed = resident.then(|| change(inode, xid))?;
                refused = changed.err();
                refused.is_none().then(|| operation.clone())
            });
            match (changed, refused) {
                (Some(_), _) => return Ok(()),
                (None, Some(error)) => return Err(error),
                (None, None) => {}
            }
        }
    }

    /// Calls `look` when none of these chunks is cold; those that are, are recalled and kept.
    pub(super) fn with_resident<T>(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        look: impl FnOnce(&FakeInode) -> T,
    ) -> Result<T, PortError> {
        loop {
            let inodes = self.shared.inodes.lock();
            let inode = inodes.get(&ino).ok_or_else(|| gone(ino))?;
            let Some(cold) = inode.first_cold(chunks) else { return Ok(look(inode)) };
            drop(inodes);
            let request = RecallRequest { ino, chunks: cold.chunks, data_xid: cold.data_xid };
            let extent = self.shared.recall.recall(&request)?;
            assert!(extent.chunks().contains(cold.chunks.start()), "a recall answers its request");
            if let Some(inode) = self.shared.inodes.lock().get_mut(&ino) {
                inode.store_recalled(cold.data_xid, &extent);
            }
        }
    }
}
