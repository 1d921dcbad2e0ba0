//! The contract of [`MountedInstance`].
//!
//! An eviction takes exactly the version that is named, in part where a part has changed, and
//! nothing of an inode that is gone; it is no operation. What was evicted comes back as it was and
//! is warm; what does not come is an error and never zeros. Resident extents come in pages, warm
//! inodes in order, facts and usage are of the present, and usage adds up through writing,
//! evicting, recalling, cutting and removing.

use tier_types::{
    ChunkNo, ChunkPlace, ChunkRun, ChunkState, ErrorKind, EvictOutcome, Ino, MountedInstance,
    ResidentExtent, Usage, Xid, to_u64,
};

use super::filesystem::{Subject, TestFilesystem, TestFilesystems, all_runs, chunks};
use super::{mounted_snapshot, restore};
use crate::OneByOne;

/// Runs the contract of [`MountedInstance`], of the snapshots that it opens and of their readers
/// on filesystems that the driver makes.
pub fn check_mounted_instance(filesystems: &impl TestFilesystems) {
    mounted_snapshot::check(filesystems);
    exactly_one_version_is_evicted(&Subject::create(filesystems));
    what_changed_is_skipped(&Subject::create(filesystems));
    what_was_evicted_comes_back_and_is_warm(&Subject::create(filesystems));
    data_that_does_not_come_is_an_error(&Subject::create(filesystems));
    resident_extents_come_in_pages(&Subject::create(filesystems));
    facts_are_of_the_present(&Subject::create(filesystems));
    answers_about_many_come_in_order(&Subject::create(filesystems));
    usage_adds_up(&Subject::create(filesystems));
    restore::check(filesystems);
}

fn evict(instance: &dyn MountedInstance, extent: ResidentExtent) -> u64 {
    match instance.evict_extent(&extent).unwrap() {
        EvictOutcome::Evicted { bytes } => bytes,
        EvictOutcome::Skipped => 0,
    }
}

/// The runs of an inode's present chunk map.
fn present_runs<F: TestFilesystem>(subject: &Subject<F>, ino: Ino) -> Vec<ChunkRun> {
    subject.fs.write("publish", 0, b"something");
    let (publication, snapshot) = subject.publish();
    let runs = all_runs(snapshot.reader().as_mut(), ino);
    subject.fs.log().release(&publication).unwrap();
    runs
}

fn exactly_one_version_is_evicted<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, .. } = subject;
    let bytes = subject.bytes(1, 3, 5);
    let ino = fs.write("a", 0, &bytes);
    let publication = subject.persist(&[ino]);
    let extents = subject.resident(ino);
    assert_eq!(extents.len(), 1, "one write is one run: {extents:?}");
    let extent = extents[0];
    assert_eq!((extent.ino, extent.chunks), (ino, chunks(0, 4)));
    let before = present_runs(subject, ino);
    for xid in [Xid::new(extent.data_xid.get() - 1), extent.data_xid.next()] {
        let other = ResidentExtent { data_xid: xid, ..extent };
        let outcome = subject.instance().evict_extent(&other).unwrap();
        assert_eq!(outcome, EvictOutcome::Skipped, "another version is not evicted");
    }
    assert_eq!(present_runs(subject, ino), before, "nothing was evicted");
    let last_xid = fs.log().last_xid();
    assert_eq!(evict(subject.instance(), extent), to_u64(bytes.len()), "bytes that left");
    assert_eq!(fs.log().last_xid(), last_xid, "an eviction is no operation");
    assert_eq!(subject.resident(ino), []);
    let runs = present_runs(subject, ino);
    assert_eq!(runs[0].chunks, extent.chunks);
    assert_eq!(runs[0].state, ChunkState::Cold, "a detour is in its place");
    assert_eq!(runs[0].data_xid, extent.data_xid, "the data is what it was");
    let outcome = subject.instance().evict_extent(&extent).unwrap();
    assert_eq!(outcome, EvictOutcome::Skipped, "it is cold already");
    let held = subject.instance().open_snapshot(&publication).unwrap();
    assert!(mounted_snapshot::content(held.as_ref(), ino).unwrap() == bytes);
    subject.instance().reclaim(&|| false).expect("the space of it is given back");
    assert!(fs.read("a").unwrap() == bytes);
}

fn what_changed_is_skipped<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, chunk, .. } = subject;
    let ino = fs.write("a", 0, &subject.bytes(1, 5, 0));
    subject.persist(&[ino]);
    let old = subject.resident(ino)[0];
    fs.write("a", 2 * chunk, &subject.bytes(2, 1, 0));
    assert_eq!(evict(subject.instance(), old), 4 * chunk, "all of this version and nothing else");
    let left: Vec<_> = subject.resident(ino).iter().map(|extent| extent.chunks).collect();
    assert_eq!(left, [chunks(2, 3)], "what changed since stays");
    let (mut expected, new) = (subject.bytes(1, 5, 0), subject.bytes(2, 1, 0));
    expected[2 * new.len()..3 * new.len()].copy_from_slice(&new);
    assert!(fs.read("a").unwrap() == expected);
    let extent = subject.resident(ino)[0];
    fs.remove("a");
    let outcome = subject.instance().evict_extent(&extent).unwrap();
    assert_eq!(outcome, EvictOutcome::Skipped, "the inode is gone");
    assert_eq!(subject.resident(ino), [], "an inode that is gone has nothing resident");
}

fn what_was_evicted_comes_back_and_is_warm<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, .. } = subject;
    let bytes = subject.bytes(1, 5, 9);
    let inos = ["a", "b", "c"].map(|name| fs.write(name, 0, &bytes));
    subject.persist(&inos);
    let warm = |after, n_max| subject.instance().warm_inodes(after, n_max).unwrap();
    let mut sorted = inos;
    sorted.sort();
    let [first, second, third] = sorted;
    assert_eq!(warm(Ino::new(0), 10), [], "what was never evicted is not warm");
    for ino in inos {
        let extents = subject.resident(ino);
        subject.evict_all(ino);
        assert_eq!(warm(Ino::new(0), 10), []);
        assert_eq!(extents.len(), 1);
    }
    for name in ["c", "a", "b"] {
        assert!(fs.read(name).unwrap() == bytes, "what was evicted comes back as it was");
    }
    assert_eq!(warm(Ino::new(0), 10), [first, second, third], "in order");
    assert_eq!(warm(Ino::new(0), 2), [first, second], "at most so many");
    assert_eq!(warm(first, 10), [second, third], "above one");
    assert_eq!(warm(third, 10), []);
    for run in &present_runs(subject, first)[..1] {
        assert_eq!((run.chunks, run.state), (chunks(0, 6), ChunkState::Warm));
    }
    // Evicting it again needs no new snapshot.
    subject.evict_all(second);
    assert_eq!(warm(Ino::new(0), 10), [first, third]);
    assert!(["a", "b", "c"].iter().all(|name| fs.read(name).unwrap() == bytes));
    // A change of a part makes hot what it changes, and keeps the rest.
    subject.evict_all(inos[0]);
    fs.write("a", 1, b"changed");
    let mut expected = bytes;
    expected[1..8].copy_from_slice(b"changed");
    assert!(fs.read("a").unwrap() == expected, "what was not written is as it was");
    assert_eq!(present_runs(subject, inos[0])[0].state, ChunkState::Hot);
}

fn data_that_does_not_come_is_an_error<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, .. } = subject;
    let ino = fs.write("a", 0, &subject.bytes(1, 3, 0));
    subject.persist(&[ino]);
    subject.evict_all(ino);
    subject.archive.lose(ino);
    let error = fs.read("a").expect_err("an archive that lost the data gives no zeros");
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
    assert_eq!(present_runs(subject, ino)[0].state, ChunkState::Cold, "nothing is kept of it");
}

fn resident_extents_come_in_pages<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, chunk, .. } = subject;
    let ino = fs.write("a", 0, &subject.bytes(1, 2, 0));
    for start in [2, 5, 9] {
        fs.write("a", start * chunk, &subject.bytes(2, 2, 0));
    }
    subject.persist(&[ino]);
    let all = subject.resident(ino);
    let starts: Vec<_> = all.iter().map(|extent| extent.chunks).collect();
    assert_eq!(starts, [chunks(0, 2), chunks(2, 4), chunks(5, 7), chunks(9, 11)]);
    let page = |from, n_max| subject.instance().resident_of(ino, from, n_max).unwrap();
    let (mut paged, mut from) = (Vec::new(), ChunkNo::new(0));
    while let Some(extent) = page(from, 1).pop() {
        from = extent.chunks.end();
        paged.push(extent);
    }
    assert_eq!(paged, all, "from the end of one page on comes the next");
    assert_eq!(page(ChunkNo::new(0), 3), all[..3]);
    assert_eq!(page(ChunkNo::new(1), 1)[0].chunks, chunks(1, 2), "cut at `from`");
    assert_eq!(page(ChunkNo::new(7), 9), all[3..], "from a hole on");
    assert_eq!(page(ChunkNo::new(11), 9), []);
    evict(subject.instance(), all[1]);
    assert_eq!(subject.resident(ino), [all[0], all[2], all[3]], "cold runs are not resident");
}

fn facts_are_of_the_present<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, chunk, .. } = subject;
    let bytes = subject.bytes(1, 3, 4);
    let ino = fs.write("a", 0, &bytes);
    let facts = || subject.instance().facts_of(ino).unwrap();
    let first = facts().expect("the inode is there");
    assert_eq!((first.ino, first.pinned), (ino, false));
    assert_eq!((first.size_bytes, first.resident_bytes), (to_u64(bytes.len()), 3 * chunk + 4));
    subject.persist(&[ino]);
    subject.evict_all(ino);
    let evicted = facts().unwrap();
    assert_eq!((evicted.size_bytes, evicted.resident_bytes), (first.size_bytes, 0));
    assert!(fs.read("a").unwrap() == bytes);
    assert_eq!(facts().unwrap().resident_bytes, first.resident_bytes, "it came back");
    fs.write("a", 0, b"later");
    assert!(facts().unwrap().last_used >= first.last_used, "a write is a use");
    fs.remove("a");
    assert_eq!(facts(), None, "the inode is gone");
}

/// Where many are asked about at once, one that is gone is an answer as well.
fn answers_about_many_come_in_order<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, .. } = subject;
    let inodes = ["a", "b", "c", "d"].map(|name| fs.write(name, 0, &subject.bytes(2, 1, 7)));
    let [a, b, c, d] = inodes;
    fs.remove("b");
    fs.write("d", 0, &subject.bytes(8, 2, 5));
    subject.persist(&[a, c, d]);
    let instance = subject.instance();
    let asked = [d, b, a, c];
    let facts: Vec<_> = instance.eviction_facts(&asked).into_iter().map(Result::unwrap).collect();
    let about: Vec<_> = facts.iter().map(|facts| facts.as_ref().map(|facts| facts.ino)).collect();
    assert_eq!(about, [Some(d), None, Some(a), Some(c)], "facts come in order");
    let places = asked.map(ChunkPlace::start_of);
    let pages: Vec<_> =
        instance.resident_extents(&places, usize::MAX).into_iter().map(Result::unwrap).collect();
    let alone = asked.map(|ino| subject.resident(ino));
    assert_eq!(pages, alone, "pages of extents come in order");
    let (publication, snapshot) = {
        fs.write("publish", 0, b"something");
        subject.publish()
    };
    let shown: Vec<_> =
        snapshot.reader().inodes(&asked, 9).into_iter().map(Result::unwrap).collect();
    let about: Vec<_> =
        shown.iter().map(|inode| inode.as_ref().map(|i| i.state.attr.ino)).collect();
    let sentence = "an answer for each inode, in their order";
    assert_eq!(about, [Some(d), None, Some(a), Some(c)], "{sentence}");
    let listed = snapshot.reader().inodes_after(a, 2).unwrap();
    assert_eq!(listed, [c, d], "the inodes of a snapshot are listed in order");
    for inode in shown.iter().flatten() {
        let (ino, mut reader) = (inode.state.attr.ino, snapshot.reader());
        assert_eq!(inode.path, reader.path(ino).unwrap(), "the path of inode {ino}");
        let runs = reader.chunk_runs(ino, ChunkNo::new(0), 9).unwrap();
        assert_eq!(inode.runs, runs, "the runs of inode {ino}");
    }
    subject.fs.log().release(&publication).unwrap();
    let extents: Vec<_> = pages.concat();
    // The first inode's again at the end: what went is not there a second time.
    let twice: Vec<_> = extents.iter().chain(extents.first()).copied().collect();
    let outcomes = instance.evict_extents(&twice).into_iter().map(Result::unwrap);
    let bytes: Vec<_> = outcomes
        .map(|outcome| match outcome {
            EvictOutcome::Evicted { bytes } => bytes,
            EvictOutcome::Skipped => 0,
        })
        .collect();
    let size_of = |ino| facts.iter().flatten().find(|facts| facts.ino == ino).unwrap().size_bytes;
    let of_extent = |extent: &ResidentExtent| {
        extent.chunks.len_bytes(snapshot.chunk_bytes(), size_of(extent.ino))
    };
    let expected: Vec<_> = extents.iter().map(of_extent).chain([0]).collect();
    assert_eq!(bytes, expected, "an outcome for each extent, in their order");
}

fn usage_adds_up<F: TestFilesystem>(subject: &Subject<F>) {
    let Subject { fs, chunk, .. } = subject;
    let usage = || subject.instance().usage().unwrap();
    let counted = |usage: Usage| (usage.n_inodes, usage.resident_bytes, usage.cold_bytes);
    let (n, resident, cold) = counted(usage());
    assert!(n >= 2, "the root and a file");
    assert_eq!(cold, 0);
    let a = fs.write("a", 0, &subject.bytes(1, 3, 4));
    // A hole takes nothing.
    let b = fs.write("b", 10 * chunk, &subject.bytes(1, 1, 0));
    let whole = resident + 4 * chunk + 4;
    assert_eq!(counted(usage()), (n + 2, whole, 0));
    subject.persist(&[a, b]);
    subject.evict_all(a);
    assert_eq!(counted(usage()), (n + 2, whole - 3 * chunk - 4, 3 * chunk + 4), "evicted is cold");
    fs.read("a").unwrap();
    assert_eq!(counted(usage()), (n + 2, whole, 0), "warm is resident");
    subject.evict_all(a);
    fs.truncate("a", *chunk);
    assert_eq!(counted(usage()), (n + 2, resident + chunk, *chunk), "what is cut counts no more");
    fs.remove("a");
    fs.remove("b");
    assert_eq!(counted(usage()), (n, resident, 0));
}
