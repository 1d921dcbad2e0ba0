//! What a persister refuses: a snapshot that contradicts itself, and one that must not be written.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tier_index::{ExtentContent, Index, IndexError, IndexOptions};
use tier_persist::{
    Archive, Keys, PersistError, PersistOptions, PersistReport, PersistRequest, Persister,
};
use tier_status::NullSink;
use tier_testkit::{FakeKvs, VirtualClock};
use tier_types::{
    Change, ChunkNo, ChunkRange, ChunkRun, Epoch, ErrorKind, FileUpdate, HasKind, Ino, InodeState,
    LogService, MountedInstance, MountedSnapshot, ObjectStore, PortError, SnapshotId,
    SnapshotReader, Xid,
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
    /// A chunk is out of reach, and nothing is known of what is stored.
    Away,
}

/// The chunk that is away.
const AWAY: ChunkNo = ChunkNo::new(4);

/// A snapshot that contradicts itself about one inode.
struct LyingSnapshot {
    inner: Arc<dyn MountedSnapshot>,
    about: Ino,
    lie: Lie,
    /// Of the error where a chunk is out of reach.
    kind: ErrorKind,
}

impl MountedSnapshot for LyingSnapshot {
    fn xid(&self) -> Xid {
        self.inner.xid()
    }

    fn chunk_bytes(&self) -> u32 {
        self.inner.chunk_bytes()
    }

    fn reader(&self) -> Box<dyn SnapshotReader + '_> {
        let Self { inner, about, lie, kind } = self;
        Box::new(LyingReader { inner: inner.reader(), about: *about, lie: *lie, kind: *kind })
    }
}

struct LyingReader<'a> {
    inner: Box<dyn SnapshotReader + 'a>,
    about: Ino,
    lie: Lie,
    kind: ErrorKind,
}

impl SnapshotReader for LyingReader<'_> {
    fn inode(&mut self, ino: Ino) -> Result<Option<InodeState>, PortError> {
        let mut inode = self.inner.inode(ino)?;
        if let (Some(inode), Lie::ShorterFile, true) = (&mut inode, self.lie, ino == self.about) {
            inode.attr.size_bytes = 10;
        }
        Ok(inode)
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
        match self.lie {
            Lie::NoMap if ino == self.about => runs.clear(),
            Lie::Gap if ino == self.about && runs.len() > 2 => drop(runs.remove(1)),
            Lie::NoMap | Lie::Gap | Lie::ShorterFile | Lie::LessData | Lie::Away => {}
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
        let is_away = matches!(self.lie, Lie::Away) && chunks.contains(AWAY);
        if ino == self.about && is_away {
            return Err(PortError::new(self.kind, "told to be out of reach"));
        }
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
        snapshot: SnapshotId::new(snapshot),
        range: tier_types::XidRange::new(Xid::new(1), last.next()).unwrap(),
        mounted,
        updates: &mut inos.iter().map(|ino| Ok(FileUpdate { ino: *ino, change: change() })),
        status: &NullSink,
        stop: &AtomicBool::new(false),
    })
}

#[test]
fn an_inode_of_which_the_snapshot_contradicts_itself_fails_alone() {
    let kvs = FakeKvs::new(CHUNK)
        .file("liar", &noise(6 * 512, 1))
        .punch("liar", 2..4)
        .file("fine", b"fine");
    let inos = [kvs.ino("liar"), kvs.ino("fine")];
    let publication = kvs.log().publish().unwrap().unwrap();
    for lie in [Lie::NoMap, Lie::Gap, Lie::ShorterFile, Lie::LessData, Lie::Away] {
        let fixture = Fixture::new(kvs.clone(), Keys::generate().unwrap());
        let inner = kvs.open_snapshot(&publication).unwrap();
        let mounted = LyingSnapshot { inner, about: inos[0], lie, kind: ErrorKind::Failed };
        let report = persist(&persister(&fixture, &fixture.index), &mounted, 1, &inos).unwrap();
        assert_eq!(report.failed, [inos[0]], "{lie:?}");
        assert_eq!(report.lost.n_ranges(), 0, "{lie:?}: what is stored may be whole");
        // Nothing of it passes for what it is not.
        assert_eq!(fixture.index.find(inos[0], ChunkNo::new(0)).unwrap(), None, "{lie:?}");
        let fine = fixture.index.find(inos[1], ChunkNo::new(0)).unwrap();
        assert!(fine.is_some(), "{lie:?}");
        assert_eq!(fixture.regenerated(tier_persist::ScanMode::Full).unwrap(), fixture.dump());
    }
}

/// Of a large file all other parts are persisted. It is tried again; in a restore what is not there
/// is lost, and no hole, and so it is in the snapshots that the restored filesystem takes.
#[test]
fn what_is_out_of_reach_is_tried_again_and_is_no_hole_after_a_restore() {
    let kvs = FakeKvs::new(CHUNK).file("big", &noise(20_000, 1));
    let ino = kvs.ino("big");
    let publication = kvs.log().publish().unwrap().unwrap();
    let inner = kvs.open_snapshot(&publication).unwrap();
    let xid = inner.reader().inode(ino).unwrap().unwrap().attr.xid;
    let fixture = Fixture::new(kvs, Keys::generate().unwrap());
    let mounted = LyingSnapshot { inner, about: ino, lie: Lie::Away, kind: ErrorKind::Failed };
    let report = persist(&persister(&fixture, &fixture.index), &mounted, 1, &[ino]).unwrap();
    assert_eq!((report.failed, report.lost.n_ranges()), (vec![ino], 0));
    let store = fixture.store();
    let archive = Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap();
    assert_eq!(archive.snapshots().next().unwrap().failed, [ino]);
    let restored = FakeKvs::new(CHUNK);
    let inodes = archive.restore_into(&fixture.index, &restored, &mut |_| {}).unwrap();
    assert_eq!((inodes.n_inodes, inodes.lost.n_ranges()), (1, 1));
    assert_eq!(restored.read_chunk("big", AWAY.get()).unwrap_err().kind(), ErrorKind::Damaged);
    let publication = restored.log().publish().unwrap().unwrap();
    let mounted = restored.open_snapshot(&publication).unwrap();
    let persister = persister(&fixture, &fixture.index);
    let report = persist(&persister, mounted.as_ref(), 2, &[ino]).unwrap();
    assert_eq!((report.failed, report.lost.n_ranges()), (Vec::new(), 0));
    let lost = fixture.index.find(ino, AWAY).unwrap().unwrap();
    assert_eq!((lost.content, lost.data_xid), (ExtentContent::Lost, xid));
}

/// A store that is opened again in the middle, say: all inodes that follow would fail as well.
#[test]
fn a_snapshot_that_is_away_commits_nothing() {
    let kvs = FakeKvs::new(CHUNK).file("big", &noise(20_000, 1)).file("other", b"other");
    let inos = [kvs.ino("big"), kvs.ino("other")];
    let publication = kvs.log().publish().unwrap().unwrap();
    let inner = kvs.open_snapshot(&publication).unwrap();
    let fixture = Fixture::new(kvs, Keys::generate().unwrap());
    for kind in [ErrorKind::Unavailable, ErrorKind::Cancelled] {
        let inner = Arc::clone(&inner);
        let mounted = LyingSnapshot { inner, about: inos[0], lie: Lie::Away, kind };
        let error = persist(&persister(&fixture, &fixture.index), &mounted, 1, &inos).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let store = fixture.store();
        let archive = Archive::open(&store, &fixture.keys, FILESYSTEM).unwrap();
        assert_eq!(archive.snapshots().count(), 0);
    }
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
    let before = fixture.store().list("").unwrap();
    let kvs = FakeKvs::new(CHUNK).file("a", b"other");
    let publication = kvs.log().publish().unwrap().unwrap();
    let mounted = kvs.open_snapshot(&publication).unwrap();
    for snapshot in [1, 2] {
        let persister = persister(&fixture, &fixture.index);
        let error = persist(&persister, mounted.as_ref(), snapshot, &[]).unwrap_err();
        assert!(matches!(error, PersistError::BrokenChain { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
    assert_eq!(fixture.store().list("").unwrap(), before, "nothing was removed");
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
    assert!(fixture.store().list("").unwrap().is_empty());
}
