//! The suites of archives and stores find what is broken, and name the sentence of the contract.

use tier_testkit::contract::{check_object_store, check_persisted, check_recall};
use tier_testkit::{ArchivedExtent, ArchivedInode, MemoryStore};
use tier_types::{
    Call, ChunkNo, ChunkRange, Created, Ino, ListPage, ObjectContent, ObjectName, ObjectStore,
    ObjectVersion, Persisted, PortError, RangeRead, Recall, RecallHint, RecallRequest,
    RecalledExtent, SnapshotId, StoreLayer, Xid,
};

use crate::assert_finds;

const CHUNK: u32 = 512;

/// What is archived of one inode, made up.
fn archived() -> Vec<ArchivedInode> {
    let extent = |start, end, xid, byte| ArchivedExtent {
        chunks: ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap(),
        data_xid: Xid::new(xid),
        bytes: vec![byte; usize::try_from(end - start).unwrap() * 512 - 1],
    };
    let extents = vec![extent(0, 3, 10, 1), extent(5, 6, 20, 2)];
    vec![ArchivedInode {
        ino: Ino::new(7),
        xid: Xid::new(30),
        snapshot: SnapshotId::new(1),
        extents,
    }]
}

/// An archive that looks at chunks and not at versions.
struct AnyVersion;

impl Recall for AnyVersion {
    fn recall_with(
        &self,
        _: &Call<'_>,
        _: RecallHint,
        request: &RecallRequest,
    ) -> Result<RecalledExtent, PortError> {
        let archived = archived();
        let holds = |e: &&ArchivedExtent| e.chunks.contains(request.chunks.start());
        let found = archived[0].extents.iter().find(holds).unwrap_or(&archived[0].extents[0]);
        let chunks = ChunkRange::one(request.chunks.start()).unwrap();
        let skipped = request.chunks.start().get().saturating_sub(found.chunks.start().get());
        let start = usize::try_from(skipped).unwrap() * 512;
        let end = (start + 512).min(found.bytes.len());
        RecalledExtent::new(request, chunks, found.bytes[start..end].to_vec(), CHUNK)
    }
}

impl Persisted for AnyVersion {
    fn first_persisted(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        _: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        let archived = archived();
        let mut extents = archived.iter().filter(|a| a.ino == ino).flat_map(|a| &a.extents);
        Ok(extents.find_map(|extent| extent.chunks.intersection(chunks)))
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Ok(Some(SnapshotId::new(1)))
    }
}

/// An archive that knows of a range all or nothing.
struct AllOrNothing;

impl Persisted for AllOrNothing {
    fn first_persisted(
        &self,
        ino: Ino,
        chunks: ChunkRange,
        data_xid: Xid,
    ) -> Result<Option<ChunkRange>, PortError> {
        let holds = |e: &ArchivedExtent| e.data_xid == data_xid && e.chunks.covers(chunks);
        let is_held = |inode: &ArchivedInode| inode.ino == ino && inode.extents.iter().any(holds);
        Ok(archived().iter().any(is_held).then_some(chunks))
    }

    fn snapshot_of(&self, _: Ino, _: Xid) -> Result<Option<SnapshotId>, PortError> {
        Ok(Some(SnapshotId::new(1)))
    }
}

#[test]
fn an_archive_that_keeps_back_a_part_for_the_sake_of_another_is_found() {
    assert_finds("chunk 0 of version 10", || check_persisted(&AllOrNothing, &archived()));
}

#[test]
fn an_archive_that_ignores_versions_is_found() {
    assert_finds("no such version is archived", || check_recall(&AnyVersion, CHUNK, &archived()));
    assert_finds("version 9 is not archived", || check_persisted(&AnyVersion, &archived()));
}

/// What is wrong with a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StoreFault {
    Overwrites,
    ListsBackwards,
    KeepsHalf,
    ReadsShort,
    IgnoresConditions,
    StreamsAll,
    ListsOnePage,
    DeletesAnyVersion,
}

struct BrokenStore(MemoryStore, StoreFault);

impl StoreLayer for BrokenStore {
    fn inner(&self) -> &dyn ObjectStore {
        &self.0
    }

    fn put(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<(), PortError> {
        if self.1 == StoreFault::Overwrites {
            self.0.delete(call, name, None)?;
        }
        let put = self.0.put(call, name, content);
        if put.is_err() && self.1 == StoreFault::KeepsHalf {
            self.0.create(&Call::bulk(), name, &&b"half"[..])?;
        }
        put
    }

    fn create(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        content: &dyn ObjectContent,
    ) -> Result<Created, PortError> {
        if self.1 == StoreFault::IgnoresConditions {
            self.0.delete(call, name, None)?;
        }
        self.0.create(call, name, content)
    }

    fn read_ranges(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        ranges: &mut [RangeRead<'_>],
    ) -> Result<(), PortError> {
        let read = self.0.read_ranges(call, name, ranges);
        let exists = self.0.metadata(call, name).is_ok();
        if self.1 == StoreFault::ReadsShort && exists { Ok(()) } else { read }
    }

    fn stream(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        offset_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let offset_bytes = if self.1 == StoreFault::StreamsAll { 0 } else { offset_bytes };
        self.0.stream(call, name, offset_bytes, take)
    }

    fn list(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&ObjectName>,
    ) -> Result<ListPage, PortError> {
        let mut page = self.0.list(call, prefix, after)?;
        if self.1 == StoreFault::ListsBackwards {
            page.objects.reverse();
        }
        page.is_last |= self.1 == StoreFault::ListsOnePage;
        Ok(page)
    }

    fn delete(
        &self,
        call: &Call<'_>,
        name: &ObjectName,
        only: Option<&ObjectVersion>,
    ) -> Result<(), PortError> {
        let any = self.1 == StoreFault::DeletesAnyVersion;
        self.0.delete(call, name, only.filter(|_| !any))
    }
}

#[test]
fn a_broken_store_is_found() {
    for (fault, sentence) in [
        (StoreFault::Overwrites, "nothing changes"),
        (StoreFault::ListsBackwards, "sorted"),
        (StoreFault::KeepsHalf, "is not there"),
        (StoreFault::ReadsShort, "a short read is damage"),
        (StoreFault::IgnoresConditions, "it is taken"),
        (StoreFault::StreamsAll, "from its offset on"),
        (StoreFault::ListsOnePage, "page by page"),
        (StoreFault::DeletesAnyVersion, "it is not that one"),
    ] {
        assert_finds(sentence, || check_object_store(&BrokenStore(MemoryStore::default(), fault)));
    }
}
