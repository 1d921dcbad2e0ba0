//! The contract of [`MountedInstance::restore_inode`]. Called by the suite of the instance.
//!
//! A filesystem that was restored inode by inode, in an order of no kind, has the same states,
//! names and chunk maps with everything cold, gives its data back as it is read, and goes on behind
//! the transactions and inode numbers of the lost one. What the archive has as lost is lost there
//! too, until newer content takes its place. What cannot be put back is refused and leaves nothing:
//! an archive that fails half way, runs out of order, resident runs, an inode twice.

use std::sync::Arc;

use tier_types::{
    ChunkRun, ChunkState, ErrorKind, EvictOutcome, Ino, InodeState, MountedInstance, PortError,
    ResidentExtent, Usage, Xid, to_u64, to_usize,
};

use super::filesystem::{Subject, TestFilesystem, TestFilesystems, all_runs, chunks};
use crate::OneByOne;

/// Everything of a filesystem that a restore puts back.
struct Lost {
    inodes: Vec<(InodeState, Vec<ChunkRun>)>,
    last: Xid,
}

impl Lost {
    fn of<F: TestFilesystem>(subject: &Subject<F>, inos: &[Ino]) -> Self {
        let publication = subject.persist(inos);
        let snapshot = subject.instance().open_snapshot(&publication).unwrap();
        let mut reader = snapshot.reader();
        let mut inodes = Vec::new();
        for ino in inos {
            let mut runs = all_runs(reader.as_mut(), *ino);
            for run in runs.iter_mut().filter(|run| run.state != ChunkState::Hole) {
                run.state = ChunkState::Cold;
            }
            inodes.push((reader.inode(*ino).unwrap().unwrap(), runs));
        }
        Self { inodes, last: publication.range.last() }
    }

    /// Puts every inode back. What was never written is not said, as a restore may leave it out.
    fn restore(&self, instance: &dyn MountedInstance) {
        for (state, runs) in &self.inodes {
            let said = runs.iter().filter(|run| run.data_xid > Xid::new(0));
            instance.restore_inode(state, &mut said.map(|run| Ok(*run))).unwrap();
        }
    }
}

pub(super) fn check(filesystems: &impl TestFilesystems) {
    a_restored_filesystem_is_the_same(filesystems);
    what_is_lost_stays_lost_until_it_is_replaced(filesystems);
    what_cannot_be_restored_is_refused(filesystems);
}

fn a_restored_filesystem_is_the_same(filesystems: &impl TestFilesystems) {
    let subject = Subject::create(filesystems);
    let Subject { fs, chunk, archive } = &subject;
    let (whole, tail) = (subject.bytes(1, 3, 7), subject.bytes(3, 1, 0));
    let whole_file = fs.write("whole", 0, &whole);
    let sparse = fs.write("sparse", 6 * chunk, &tail);
    let cut = fs.write("cut", 0, &whole);
    fs.truncate("cut", chunk + 1);
    let empty = fs.write("empty", 0, b"");
    // Not in the order in which they were made: a file may come before its directory.
    let lost = Lost::of(&subject, &[sparse, empty, whole_file, Ino::ROOT, cut]);
    let restored = filesystems.restore(archive.clone(), lost.last, &|empty| lost.restore(empty));
    let usage = restored.instance().usage().unwrap();
    assert_eq!(usage.n_inodes, to_u64(lost.inodes.len()));
    assert_eq!((usage.resident_bytes, usage.cold_bytes), (0, 3 * chunk + 7 + chunk + chunk + 1));
    let added = restored.write("added", 0, b"new");
    assert!(lost.inodes.iter().all(|(state, _)| state.attr.ino != added), "numbers are not reused");
    let publication = restored.log().publish().unwrap().expect("something was logged");
    assert!(publication.range.start() > lost.last, "transactions come after those restored");
    let snapshot = restored.instance().open_snapshot(&publication).unwrap();
    let mut reader = snapshot.reader();
    for (state, runs) in &lost.inodes {
        let ino = state.attr.ino;
        if ino != Ino::ROOT {
            assert_eq!(reader.inode(ino).unwrap().as_ref(), Some(state), "the same state");
            let name = state.links[0].name.as_bytes();
            assert_eq!(reader.path(ino).unwrap().as_deref(), Some(name), "the same name");
            assert_eq!(all_runs(reader.as_mut(), ino), *runs, "the same chunk map");
        }
    }
    drop(reader);
    assert!(restored.read("whole").unwrap() == whole, "its data comes back as it is read");
    assert!(restored.read("cut").unwrap() == fs.read("cut").unwrap());
    assert!(restored.read("sparse").unwrap() == fs.read("sparse").unwrap());
    assert_eq!(restored.read("empty").unwrap(), b"");
}

fn what_is_lost_stays_lost_until_it_is_replaced(filesystems: &impl TestFilesystems) {
    let subject = Subject::create(filesystems);
    let (archive, chunk) = (Arc::clone(&subject.archive), subject.chunk);
    let mut content = subject.bytes(1, 3, 0);
    let ino = subject.fs.write("a", 0, &content);
    let mut all = Lost::of(&subject, &[Ino::ROOT, ino]);
    let cold = all.inodes[1].1[0];
    let [lost, last] = [(1, ChunkState::Lost), (2, ChunkState::Cold)].map(|(at, state)| ChunkRun {
        chunks: chunks(at, at + 1),
        state,
        ..cold
    });
    all.inodes[1].1.splice(..1, [ChunkRun { chunks: chunks(0, 1), ..cold }, lost, last]);
    let restored = filesystems.restore(archive, all.last, &|empty| all.restore(empty));
    let instance = restored.instance();
    let counted = |usage: Usage| (usage.cold_bytes, usage.lost_bytes);
    assert_eq!(counted(instance.usage().unwrap()), (2 * chunk, chunk));
    let error = restored.read("a").expect_err("what is lost never reads as zeros");
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    let extent = ResidentExtent { ino, chunks: lost.chunks, data_xid: lost.data_xid };
    assert_eq!(instance.evict_extent(&extent).unwrap(), EvictOutcome::Skipped);
    restored.write("b", 0, b"so that there is something to publish");
    let publication = restored.log().publish().unwrap().expect("something was logged");
    let snapshot = instance.open_snapshot(&publication).unwrap();
    let mut reader = snapshot.reader();
    assert!(all_runs(reader.as_mut(), ino).contains(&lost), "the snapshot shows it as it was");
    let error = reader.read_chunks(ino, lost.chunks, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    drop(reader);
    let new = subject.bytes(9, 1, 0);
    restored.write("a", chunk, &new);
    content[to_usize(chunk)..to_usize(2 * chunk)].copy_from_slice(&new);
    assert!(restored.read("a").unwrap() == content, "newer content takes its place");
    assert_eq!(instance.usage().unwrap().lost_bytes, 0);
}

fn what_cannot_be_restored_is_refused(filesystems: &impl TestFilesystems) {
    let subject = Subject::create(filesystems);
    let ino = subject.fs.write("a", 0, &subject.bytes(1, 2, 0));
    let lost = Lost::of(&subject, &[ino, Ino::ROOT]);
    let (state, cold) = (lost.inodes[0].0.clone(), lost.inodes[0].1[0]);
    let archive = Arc::clone(&subject.archive);
    filesystems.restore(archive, lost.last, &|instance| {
        let broken = || Err(PortError::new(ErrorKind::Away, "the archive is away"));
        let error = instance.restore_inode(&state, &mut [Ok(cold), broken()].into_iter());
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Away, "an error of the runs");
        let resident = ChunkRun { state: ChunkState::Hot, ..cold };
        for runs in [[cold, cold], [resident, ChunkRun { chunks: chunks(9, 10), ..cold }]] {
            let refused = instance.restore_inode(&state, &mut runs.into_iter().map(Ok));
            refused.expect_err("runs are in order, and none is resident");
        }
        assert_eq!(instance.facts_of(ino).unwrap(), None, "a broken one is not there");
        lost.restore(instance);
        let (state, runs) = &lost.inodes[0];
        let again = instance.restore_inode(state, &mut runs.iter().map(|run| Ok(*run)));
        again.expect_err("an inode is put back once");
        assert!(instance.facts_of(ino).unwrap().is_some(), "the first one stays");
    });
}
