//! The suites of a filesystem's ports find what is broken, and name the sentence of the contract.

use std::io::Read;
use std::sync::Arc;

use parking_lot::Mutex;
use tier_testkit::contract::{
    TestFilesystem, TestFilesystems, check_log_service, check_mounted_instance,
};
use tier_testkit::{FakeKvs, OneByOne};
use tier_types::{
    ChunkNo, ChunkRange, ChunkRun, EvictOutcome, EvictionFacts, Ino, InodeState, InstanceLayer,
    InstanceView, LogReader, LogService, MountedInstance, MountedSnapshot, PortError, Publication,
    PublicationListener, Recall, ResidentExtent, SegmentInfo, SnapshotInode, SnapshotReader, Xid,
    XidRange,
};

use crate::assert_finds;

const CHUNK: u32 = 512;

/// What is wrong with a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    EvictsAnyVersion,
    EvictsAllOrNothing,
    ReadsZeros,
    ReleasesAll,
    ReleasesNothing,
    MapEndsWithTheFile,
    WarmOutOfOrder,
    KnowsFactsOfTheGone,
    KeepsHalfARestore,
    PublishesOneLess,
    RetiresAll,
    MixesUpOutcomes,
    LeavesOutTheGone,
}

/// The fake filesystem, but for one fault.
struct Broken {
    kvs: FakeKvs,
    fault: Fault,
    published: Mutex<Vec<Publication>>,
}

impl Broken {
    fn new(kvs: FakeKvs, fault: Fault) -> Self {
        Self { kvs, fault, published: Mutex::default() }
    }
}

impl LogReader for Broken {
    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError> {
        self.kvs.log().segments(range)
    }

    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError> {
        self.kvs.log().open_segment(segment)
    }

    fn last_xid(&self) -> Xid {
        self.kvs.log().last_xid()
    }
}

impl LogService for Broken {
    fn publish(&self) -> Result<Option<Publication>, PortError> {
        let Some(publication) = self.kvs.log().publish()? else { return Ok(None) };
        self.published.lock().push(publication);
        let range = publication.range;
        let shorter = XidRange::new(range.start(), range.last());
        let less = shorter.filter(|_| self.fault == Fault::PublishesOneLess);
        Ok(Some(Publication { range: less.unwrap_or(range) }))
    }

    fn on_publication(&self, listener: PublicationListener) {
        self.kvs.log().on_publication(listener);
    }

    fn release(&self, publication: &Publication) -> Result<(), PortError> {
        if self.fault == Fault::ReleasesNothing {
            return Ok(());
        }
        if self.fault == Fault::ReleasesAll {
            return self.published.lock().iter().try_for_each(|held| self.kvs.log().release(held));
        }
        self.kvs.log().release(publication)
    }

    fn retire_segments(&self, xid: Xid) -> Result<(), PortError> {
        let all = self.fault == Fault::RetiresAll;
        self.kvs.log().retire_segments(if all { self.last_xid() } else { xid })
    }
}

struct BrokenSnapshot {
    inner: Arc<dyn MountedSnapshot>,
    fault: Fault,
}

impl MountedSnapshot for BrokenSnapshot {
    fn xid(&self) -> Xid {
        self.inner.xid()
    }

    fn chunk_bytes(&self) -> u32 {
        self.inner.chunk_bytes()
    }

    fn reader(&self) -> Box<dyn SnapshotReader + '_> {
        Box::new(BrokenReader { inner: self.inner.reader(), fault: self.fault })
    }
}

struct BrokenReader<'a> {
    inner: Box<dyn SnapshotReader + 'a>,
    fault: Fault,
}

impl SnapshotReader for BrokenReader<'_> {
    fn inodes(
        &mut self,
        inodes: &[Ino],
        n_runs_max: usize,
    ) -> Vec<Result<Option<SnapshotInode>, PortError>> {
        let mut answers = self.inner.inodes(inodes, n_runs_max);
        if self.fault == Fault::LeavesOutTheGone && inodes.len() > 1 {
            answers.retain(|answer| matches!(answer, Ok(Some(_))));
        }
        answers
    }

    fn inodes_after(&mut self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        self.inner.inodes_after(after, n_max)
    }

    fn path(&mut self, ino: Ino) -> Result<Option<Vec<u8>>, PortError> {
        self.inner.path(ino)
    }

    fn chunk_runs(
        &mut self,
        ino: Ino,
        from: ChunkNo,
        n_max: usize,
    ) -> Result<Vec<ChunkRun>, PortError> {
        let mut runs = self.inner.chunk_runs(ino, from, n_max)?;
        if self.fault == Fault::MapEndsWithTheFile && runs.len() > 1 {
            runs.retain(|run| run.chunks.end() < ChunkNo::END);
        }
        Ok(runs)
    }

    fn read_chunks(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError> {
        let read = self.inner.read_chunks(ino, chunks, out);
        if self.fault == Fault::ReadsZeros {
            return Ok(());
        }
        read
    }
}

impl InstanceLayer for Broken {
    fn inner(&self) -> &dyn MountedInstance {
        &self.kvs
    }

    fn open_snapshot(
        &self,
        publication: &Publication,
    ) -> Result<Arc<dyn MountedSnapshot>, PortError> {
        let inner = self.kvs.open_snapshot(publication)?;
        Ok(Arc::new(BrokenSnapshot { inner, fault: self.fault }))
    }

    fn evict_extents(&self, extents: &[ResidentExtent]) -> Vec<Result<EvictOutcome, PortError>> {
        let evict = |extent: &ResidentExtent| {
            let there = self.kvs.resident_of(extent.ino, extent.chunks.start(), usize::MAX)?;
            if self.fault == Fault::EvictsAllOrNothing && !there.contains(extent) {
                return Ok(EvictOutcome::Skipped);
            }
            let any = there.first().filter(|_| self.fault == Fault::EvictsAnyVersion);
            let data_xid = any.map_or(extent.data_xid, |there| there.data_xid);
            self.kvs.evict_extent(&ResidentExtent { data_xid, ..*extent })
        };
        let mut outcomes: Vec<_> = extents.iter().map(evict).collect();
        if self.fault == Fault::MixesUpOutcomes {
            outcomes.reverse();
        }
        outcomes
    }

    fn warm_inodes(&self, after: Ino, n_max: usize) -> Result<Vec<Ino>, PortError> {
        let mut inos = self.kvs.warm_inodes(after, n_max)?;
        if self.fault == Fault::WarmOutOfOrder {
            inos.reverse();
        }
        Ok(inos)
    }

    fn eviction_facts(&self, inodes: &[Ino]) -> Vec<Result<Option<EvictionFacts>, PortError>> {
        let facts_of = |ino: &Ino| {
            let gone = EvictionFacts {
                ino: *ino,
                size_bytes: 0,
                resident_bytes: 0,
                last_used: tier_types::Timestamp::default(),
                pinned: false,
            };
            let knows_the_gone = self.fault == Fault::KnowsFactsOfTheGone;
            Ok(self.kvs.facts_of(*ino)?.or_else(|| knows_the_gone.then_some(gone)))
        };
        inodes.iter().map(facts_of).collect()
    }

    fn restore_inode(
        &self,
        inode: &InodeState,
        runs: &mut dyn Iterator<Item = Result<ChunkRun, PortError>>,
    ) -> Result<(), PortError> {
        if self.fault == Fault::KeepsHalfARestore {
            let mut error = None;
            let whole = runs.map_while(|run| run.map_err(|e| error = Some(e)).ok());
            self.kvs.restore_inode(inode, &mut whole.map(Ok))?;
            return error.map_or(Ok(()), Err);
        }
        self.kvs.restore_inode(inode, runs)
    }
}

impl TestFilesystem for Broken {
    fn log(&self) -> &dyn LogService {
        self
    }

    fn instance(&self) -> &dyn MountedInstance {
        self
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Ino {
        TestFilesystem::write(&self.kvs, name, offset, bytes)
    }

    fn truncate(&self, name: &str, size_bytes: u64) {
        TestFilesystem::truncate(&self.kvs, name, size_bytes);
    }

    fn remove(&self, name: &str) {
        TestFilesystem::remove(&self.kvs, name);
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, PortError> {
        self.kvs.read(name)
    }
}

impl TestFilesystems for Fault {
    type Filesystem = Broken;

    fn create(&self, recall: Arc<dyn Recall>) -> Broken {
        Broken::new(FakeKvs::with_recall(CHUNK, recall), *self)
    }

    fn restore(
        &self,
        recall: Arc<dyn Recall>,
        last: Xid,
        fill: &dyn Fn(&dyn MountedInstance),
    ) -> Broken {
        let broken = Broken::new(FakeKvs::empty(CHUNK, recall, last), *self);
        fill(&broken);
        broken
    }
}

#[test]
fn a_broken_instance_is_found() {
    for (fault, sentence) in [
        (Fault::EvictsAnyVersion, "another version is not evicted"),
        (Fault::EvictsAllOrNothing, "all of this version and nothing else"),
        (Fault::ReadsZeros, "chunks without data are damage"),
        (Fault::ReleasesAll, "another one stays"),
        (Fault::ReleasesNothing, "a snapshot that is held no more is missing"),
        (Fault::MapEndsWithTheFile, "the last run ends at END"),
        (Fault::WarmOutOfOrder, "in order"),
        (Fault::KnowsFactsOfTheGone, "the inode is gone"),
        (Fault::KeepsHalfARestore, "a broken one is not there"),
        (Fault::MixesUpOutcomes, "an outcome for each extent, in their order"),
        (Fault::LeavesOutTheGone, "an answer for each inode, in their order"),
    ] {
        assert_finds(sentence, || check_mounted_instance(&fault));
    }
}

#[test]
fn a_broken_log_is_found() {
    for (fault, sentence) in [
        (Fault::PublishesOneLess, "a publication reaches to the last transaction"),
        (Fault::RetiresAll, "those at or below go"),
    ] {
        let broken = Broken::new(FakeKvs::new(CHUNK), fault);
        let act = || {
            TestFilesystem::write(&broken.kvs, "a", 0, b"logged");
        };
        assert_finds(sentence, || check_log_service(&broken, &act));
    }
}
