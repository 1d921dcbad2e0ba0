//! What a persister refuses: a snapshot that contradicts itself, and one that must not be written.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tier_index::{ExtentContent, Index, IndexError, IndexOptions};
use tier_persist::{
    Keys, PartBounds, PersistError, PersistOptions, PersistReport, PersistRequest, Persister,
    WriterToken,
};
use tier_status::NullSink;
use tier_testkit::{FakeKvs, VirtualClock};
use tier_types::{
    Call, Change, ChunkNo, ChunkRange, ChunkRun, Epoch, ErrorKind, FileUpdate, HasKind, Ino,
    LogService, MountedInstance, MountedSnapshot, ObjectStore, PortError, SnapshotId,
    SnapshotInode, SnapshotReader, Xid,
};

use crate::common::{CHUNK, FILESYSTEM, Fixture, noise};

/// What is wrong with one inode of a snapshot.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// The chunk map is empty.
    NoMap,
    /// The chunk map leaves out its second run.
    Gap,
    /// The file is shorter than its data.
    ShorterFile,
    /// There is less data than the map says.
    LessData,
    /// One answer is missing where several inodes were asked for.
    FewerInodes,
}

/// A snapshot that contradicts itself about one inode.
struct LyingSnapshot {
    inner: Arc<dyn MountedSnapshot>,
    about: Ino,
    lie: Lie,
}

impl MountedSnapshot for LyingSnapshot {
    fn xid(&self) -> Xid {
        self.inner.xid()
    }

    fn chunk_bytes(&self) -> u32 {
        self.inner.chunk_bytes()
    }

    fn reader(&self) -> Box<dyn SnapshotReader + '_> {
        let Self { inner, about, lie } = self;
        Box::new(LyingReader { inner: inner.reader(), about: *about, lie: *lie })
    }
}

struct LyingReader<'a> {
    inner: Box<dyn SnapshotReader + 'a>,
    about: Ino,
    lie: Lie,
}

impl LyingReader<'_> {
    fn tamper(&self, runs: &mut Vec<ChunkRun>) {
        match self.lie {
            Lie::NoMap => runs.clear(),
            Lie::Gap if runs.len() > 2 => drop(runs.remove(1)),
            Lie::Gap | Lie::ShorterFile | Lie::LessData | Lie::FewerInodes => {}
        }
    }
}

impl SnapshotReader for LyingReader<'_> {
    fn inodes(
        &mut self,
        inodes: &[Ino],
        n_runs_max: usize,
    ) -> Vec<Result<Option<SnapshotInode>, PortError>> {
        let mut answers = self.inner.inodes(inodes, n_runs_max);
        for inode in answers.iter_mut().flatten().flatten() {
            if inode.state.attr.ino == self.about {
                if matches!(self.lie, Lie::ShorterFile) {
                    inode.state.attr.size_bytes = 10;
                }
                self.tamper(&mut inode.runs);
            }
        }
        if matches!(self.lie, Lie::FewerInodes) {
            answers.pop();
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
        if ino == self.about {
            self.tamper(&mut runs);
        }
        Ok(runs)
    }

    fn read_chunks(
        &mut self,
        ino: Ino,
        chunks: ChunkRange,
        out: &mut Vec<u8>,
    ) -> Result<(), PortError> {
        let start = out.len();
        self.inner.read_chunks(ino, chunks, out)?;
        if ino == self.about && matches!(self.lie, Lie::LessData) {
            out.truncate(start + 1);
        }
        Ok(())
    }
}

fn persister(fixture: &Fixture, index: &Arc<Index>) -> Persister {
    let clock = Arc::new(VirtualClock::at(1_480_000_000));
    let options = PersistOptions {
        n_workers: 1,
        frame_bytes: 4096,
        member_bytes_max: 8192,
        ..PersistOptions::default()
    };
    let (store, keys) = (Arc::new(fixture.store()), Arc::clone(&fixture.keys));
    Persister::new(FILESYSTEM, store, keys, Arc::clone(index), clock, options)
}

fn persist(
    persister: &Persister,
    mounted: &dyn MountedSnapshot,
    snapshot: u64,
    inos: &[Ino],
) -> Result<PersistReport, PersistError> {
    let change = || Change::Touched(vec![ChunkRange::ALL]);
    let last = mounted.xid();
    persister.persist(&mut PersistRequest {
        epoch: Epoch::new(1),
        writer: WriterToken::from_bytes([1; 16]),
        snapshot: SnapshotId::new(snapshot),
        range: tier_types::XidRange::new(Xid::new(1), last.next()).unwrap(),
        part: None,
        failed_before: &[],
        n_looked_at: 0,
        mounted,
        updates: &mut inos.iter().map(|ino| Ok(FileUpdate { ino: *ino, change: change() })),
        segments: &mut std::iter::empty(),
        bounds: PartBounds::NONE,
        on_sealed: &|_| {},
        status: &NullSink,
        stop: &AtomicBool::new(false),
    })
}

/// Where the map contradicts itself nothing of the inode is persisted, where its data does none of
/// that data; and it is tried again.
#[test]
fn an_inode_of_which_the_snapshot_contradicts_itself_fails_alone() {
    let kvs = FakeKvs::new(CHUNK)
        .file("liar", &noise(6 * 512, 1))
        .punch("liar", 2..4)
        .file("fine", b"fine");
    let inos = [kvs.ino("liar"), kvs.ino("fine")];
    let publication = kvs.log().publish().unwrap().unwrap();
    let lies = [Lie::NoMap, Lie::Gap, Lie::ShorterFile, Lie::LessData];
    for (lie, is_there) in lies.into_iter().zip([false, false, true, true]) {
        let fixture = Fixture::new(kvs.clone(), Keys::generate().unwrap());
        let inner = kvs.open_snapshot(&publication).unwrap();
        let mounted = LyingSnapshot { inner, about: inos[0], lie };
        let report = persist(&persister(&fixture, &fixture.index), &mounted, 1, &inos).unwrap();
        assert_eq!(report.failed, [inos[0]], "{lie:?}");
        assert_eq!(report.lost.n_ranges(), 0, "{lie:?}: what is stored may be whole");
        // Nothing of it passes for what it is not.
        assert_eq!(fixture.index.inode(inos[0]).unwrap().is_some(), is_there, "{lie:?}");
        for number in [0, 1, 4, 5] {
            let extent = fixture.index.find(inos[0], ChunkNo::new(number)).unwrap();
            let lost = is_there.then_some(ExtentContent::Lost);
            assert_eq!(extent.map(|extent| extent.content), lost, "{lie:?}: chunk {number}");
        }
        let fine = fixture.index.find(inos[1], ChunkNo::new(0)).unwrap();
        assert!(fine.is_some(), "{lie:?}");
        assert_eq!(fixture.regenerated(tier_persist::ScanMode::Full).unwrap(), fixture.dump());
    }
}

/// Answers are told apart by their places.
#[test]
fn a_snapshot_that_leaves_an_answer_out_is_not_persisted() {
    let kvs = FakeKvs::new(CHUNK).file("liar", b"liar").file("fine", b"fine");
    let inos = [kvs.ino("liar"), kvs.ino("fine")];
    let publication = kvs.log().publish().unwrap().unwrap();
    let fixture = Fixture::new(kvs.clone(), Keys::generate().unwrap());
    let inner = kvs.open_snapshot(&publication).unwrap();
    let mounted = LyingSnapshot { inner, about: inos[0], lie: Lie::FewerInodes };
    let persister = persister(&fixture, &fixture.index);
    let error = persist(&persister, &mounted, 1, &inos).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    assert_eq!(fixture.index.inode(inos[1]).unwrap(), None, "nothing is committed");
}

#[test]
fn a_snapshot_that_is_committed_is_not_written_again() {
    let kvs = FakeKvs::new(CHUNK).file("a", b"content");
    let mut fixture = Fixture::new(kvs, Keys::generate().unwrap());
    fixture.persist();
    fixture.change(|kvs| kvs.file("b", b"more"));
    fixture.persist();
    let publication = fixture.kvs.log().publish().unwrap();
    assert_eq!(publication, None);
    let before = fixture.store().names(&Call::bulk(), "").unwrap();
    let kvs = FakeKvs::new(CHUNK).file("a", b"other");
    let publication = kvs.log().publish().unwrap().unwrap();
    let mounted = kvs.open_snapshot(&publication).unwrap();
    for snapshot in [1, 2] {
        let persister = persister(&fixture, &fixture.index);
        let error = persist(&persister, mounted.as_ref(), snapshot, &[]).unwrap_err();
        assert!(matches!(error, PersistError::BrokenChain { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
    assert_eq!(fixture.store().names(&Call::bulk(), "").unwrap(), before, "nothing was removed");
}

#[test]
fn an_index_of_another_chunk_size_is_refused_before_anything_is_written() {
    let kvs = FakeKvs::new(CHUNK).file("a", b"content");
    let publication = kvs.log().publish().unwrap().unwrap();
    let mounted = kvs.open_snapshot(&publication).unwrap();
    let inos = [kvs.ino("a")];
    let fixture = Fixture::new(kvs, Keys::generate().unwrap());
    let path = fixture.dir.path().join("other");
    let index = Arc::new(Index::open(&path, 2 * CHUNK, &IndexOptions::default()).unwrap());
    let error = persist(&persister(&fixture, &index), mounted.as_ref(), 1, &inos).unwrap_err();
    assert!(
        matches!(error, PersistError::Index(IndexError::ChunkSize { index: 1024, contents: 512 })),
        "{error}"
    );
    assert!(fixture.store().names(&Call::bulk(), "").unwrap().is_empty());
}
