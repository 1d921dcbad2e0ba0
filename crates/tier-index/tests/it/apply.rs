//! The index against a naive one that keeps every chunk by itself.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tier_index::{
    Applied, Contents, Entry, ExtentContent, Index, IndexError, IndexOptions, InodeRange,
    InodeRecord, TarballId,
};
use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, Persisted, SnapshotId, Xid, persisted_parts};

const CHUNK: u32 = 16;

fn tarball(snapshot: u64) -> TarballId {
    TarballId { epoch: Epoch::new(1), snapshot: SnapshotId::new(snapshot), part: 0 }
}

fn range(start: u64, end: u64) -> ChunkRange {
    ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end)).unwrap()
}

/// For one inode: what each snapshot says, with transactions that grow with the snapshots.
#[derive(Clone, Debug)]
struct Said {
    snapshot: u64,
    ino: u64,
    start: u64,
    len: u64,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Hole,
    Lost,
    Data,
}

fn what() -> impl Strategy<Value = What> {
    prop::sample::select(vec![What::Hole, What::Lost, What::Data])
}

fn said() -> impl Strategy<Value = Said> {
    (1..4_u64, 0..30_u64, 1..12_u64, what()).prop_map(|(ino, start, len, what)| Said {
        snapshot: 0,
        ino,
        start,
        len,
        what,
    })
}

fn numbered(said: Vec<Said>) -> Vec<Said> {
    said.into_iter().zip(1..).map(|(s, snapshot)| Said { snapshot, ..s }).collect()
}

fn contents(said: &Said) -> Contents {
    let (ino, data_xid) = (Ino::new(said.ino), Xid::new(said.snapshot * 10));
    let chunks = range(said.start, said.start + said.len);
    let (frame, offset) = (u32::try_from(said.snapshot).unwrap(), 1000);
    let entry = match said.what {
        What::Hole => Entry::Hole { ino, chunks, data_xid },
        What::Lost => Entry::Lost { ino, chunks, data_xid },
        What::Data => Entry::Data { ino, chunks, data_xid, frame, offset, short_bytes: 0 },
    };
    let inode = Entry::Inode { ino, xid: data_xid, frame, offset: 0 };
    let entries = vec![inode, entry];
    Contents { tarball: tarball(said.snapshot), chunk_bytes: CHUNK, entries }
}

fn fill(all: &[Contents]) -> (tempfile::TempDir, Index) {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    for contents in all {
        let mut writer = index.writer();
        writer.add_tarball(contents.tarball, b"row").unwrap();
        writer.apply(contents).unwrap();
    }
    (dir, index)
}

fn dump(index: &Index) -> String {
    let mut out = Vec::new();
    index.dump(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The chunks that the index calls persisted in one version; its runs must be as long as they are.
fn persisted(index: &Index, ino: Ino, data_xid: Xid) -> Vec<u64> {
    let (mut found, mut before) = (Vec::new(), None);
    for part in persisted_parts(index, ino, range(0, 45), data_xid) {
        let part = part.unwrap();
        let is_persisted = part.is_persisted;
        assert_ne!(before.replace(is_persisted), Some(is_persisted), "a run ends where it does");
        let numbers = part.chunks.start().get()..part.chunks.end().get();
        found.extend(numbers.filter(|_| is_persisted));
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_newest_transaction_wins_in_any_order(
        said in prop::collection::vec(said(), 1..14),
        order in any::<u64>(),
    ) {
        let said = numbered(said);
        let mut all: Vec<_> = said.iter().map(contents).collect();
        let (_dir, index) = fill(&all);
        let mut naive: BTreeMap<(u64, u64), &Said> = BTreeMap::new();
        for s in &said {
            naive.extend((s.start..s.start + s.len).map(|chunk| ((s.ino, chunk), s)));
        }
        for ino in 1..4 {
            for chunk in 0..45 {
                let found = index.find(Ino::new(ino), ChunkNo::new(chunk)).unwrap();
                let expected = naive.get(&(ino, chunk));
                prop_assert_eq!(found.map(|e| e.data_xid.get()), expected.map(|s| s.snapshot * 10));
                let offset = found.and_then(|extent| {
                    let skipped = chunk - extent.chunks.start().get();
                    let location = extent.data()?.location;
                    Some(u64::from(location.offset) + skipped * u64::from(CHUNK))
                });
                let is_lost = found.is_some_and(|extent| extent.content == ExtentContent::Lost);
                prop_assert_eq!(is_lost, expected.is_some_and(|s| s.what == What::Lost));
                let expected = expected.filter(|s| s.what == What::Data);
                prop_assert_eq!(offset, expected.map(|s| 1000 + (chunk - s.start) * u64::from(CHUNK)));
            }
        }
        for s in &said {
            let is_its = |newest: &Said| newest.snapshot == s.snapshot && s.what == What::Data;
            let its = naive.iter().filter(|((ino, _), newest)| *ino == s.ino && is_its(newest));
            let expected: Vec<_> = its.map(|((_, chunk), _)| *chunk).collect();
            let version = Xid::new(s.snapshot * 10);
            prop_assert_eq!(persisted(&index, Ino::new(s.ino), version), expected);
        }
        let live: u64 = index.tarballs().unwrap().iter().map(|(_, live)| live).sum();
        prop_assert_eq!(live, u64::try_from(naive.values().filter(|s| s.what == What::Data).count()).unwrap());
        // Another order, and everything twice: the same index.
        let n = all.len();
        all.rotate_left(usize::try_from(order).unwrap() % n);
        all.reverse();
        let twice = [all.clone(), all].concat();
        let (_dir, other) = fill(&twice);
        prop_assert_eq!(dump(&other), dump(&index));
    }
}

#[test]
fn an_inode_that_is_gone_stays_gone() {
    let data = contents(&Said { snapshot: 1, ino: 5, start: 0, len: 4, what: What::Data });
    let gone = Contents {
        tarball: tarball(2),
        chunk_bytes: CHUNK,
        entries: vec![Entry::Gone { ino: Ino::new(5), xid: Xid::new(20) }],
    };
    let (_dir, index) = fill(&[data.clone(), gone.clone()]);
    let (_dir, late) = fill(&[gone, data]);
    assert_eq!(dump(&index), dump(&late));
    assert_eq!(index.find(Ino::new(5), ChunkNo::new(0)).unwrap(), None);
    insta::assert_snapshot!(dump(&index));
}

#[test]
fn only_exactly_the_archived_version_counts_as_persisted() {
    let said = Said { snapshot: 3, ino: 5, start: 2, len: 4, what: What::Data };
    let (_dir, index) = fill(&[contents(&said)]);
    let asked = |snapshot, start, end, xid| {
        let until = index.persisted_until(SnapshotId::new(snapshot));
        until.is_persisted(Ino::new(5), range(start, end), Xid::new(xid)).unwrap()
    };
    assert!(asked(3, 2, 6, 30));
    assert!(asked(9, 3, 4, 30));
    assert!(!asked(2, 2, 6, 30), "the snapshot is not safe yet");
    assert!(!asked(3, 2, 6, 29), "another version");
    assert!(!asked(3, 1, 6, 30), "more than is archived");
}

/// What two tarballs say of one version: a copy that could be read is enough, whichever of the two
/// is applied first, and a lost range is no copy.
#[test]
fn of_one_version_data_wins_over_lost() {
    let of_version = |snapshot, what| {
        let said = Said { snapshot, ino: 5, start: 2, len: 4, what };
        let mut contents = contents(&said);
        for entry in &mut contents.entries {
            if let Entry::Data { data_xid, .. } | Entry::Lost { data_xid, .. } = entry {
                *data_xid = Xid::new(7);
            }
        }
        contents
    };
    for (first, second) in [(What::Data, What::Lost), (What::Lost, What::Data)] {
        let all = [of_version(1, first), of_version(2, second)];
        let (_dir, index) = fill(&all);
        let [earlier, later] = all;
        let (_dir, other) = fill(&[later.clone(), earlier.clone(), later, earlier]);
        assert_eq!(dump(&index), dump(&other));
        assert!(index.is_persisted(Ino::new(5), range(2, 6), Xid::new(7)).unwrap());
    }
    let (_dir, index) = fill(&[of_version(1, What::Lost)]);
    assert!(!index.is_persisted(Ino::new(5), range(2, 6), Xid::new(7)).unwrap());
    let mut lost = Vec::new();
    index
        .visit_lost(&mut |extent| {
            lost.push((extent.ino, extent.chunks));
            Ok::<_, IndexError>(())
        })
        .unwrap();
    assert_eq!(lost, [(Ino::new(5), range(2, 6))]);
    insta::assert_snapshot!(dump(&index));
}

#[test]
fn an_index_remembers_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let applied =
        Applied { epoch: Epoch::new(1), snapshot: SnapshotId::new(4), manifest_digest: [7; 32] };
    {
        let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
        assert_eq!(index.applied().unwrap(), None);
        index.writer().set_applied(&applied, b"step").unwrap();
    }
    let index = Index::open(dir.path(), CHUNK, &IndexOptions::default()).unwrap();
    assert_eq!(index.applied().unwrap(), Some(applied));
    drop(index);
    assert!(Index::open(dir.path(), 2 * CHUNK, &IndexOptions::default()).is_err());
}

#[test]
fn contents_that_cannot_be_change_nothing() {
    let sound = contents(&Said { snapshot: 1, ino: 5, start: 0, len: 4, what: What::Data });
    let (_dir, index) = fill(std::slice::from_ref(&sound));
    let before = dump(&index);
    let mut broken = sound.clone();
    for entry in &mut broken.entries {
        if let Entry::Data { offset, data_xid, .. } = entry {
            *offset = u32::MAX;
            *data_xid = Xid::new(99);
        }
    }
    let error = index.writer().apply(&broken).unwrap_err();
    assert!(matches!(error, IndexError::Contents { .. }), "{error}");
    assert_eq!(dump(&index), before);
    let other = Contents { chunk_bytes: CHUNK + 1, ..sound };
    assert!(matches!(index.writer().apply(&other), Err(IndexError::ChunkSize { .. })));
}

fn records(index: &Index, inodes: InodeRange) -> Vec<InodeRecord> {
    let mut records = Vec::new();
    index
        .visit_inodes(inodes, &mut |record| -> Result<(), IndexError> {
            records.push(record.clone());
            Ok(())
        })
        .unwrap();
    records
}

proptest! {
    #[test]
    fn an_index_is_taken_in_again_by_its_records_in_any_pieces(
        all in prop::collection::vec(said(), 1..40),
        gone in any::<bool>(),
        cut in 0..5_u64,
    ) {
        let mut all: Vec<_> = numbered(all).iter().map(contents).collect();
        if gone && let Some(last) = all.last_mut() {
            last.entries.push(Entry::Gone { ino: Ino::new(1), xid: Xid::new(1000) });
        }
        let (_dir, index) = fill(&all);
        let (_other, copy) = fill(&[]);
        let mut writer = copy.writer();
        for (tarball, _) in index.tarballs().unwrap() {
            writer.add_tarball(tarball, b"row").unwrap();
        }
        // The later half first, and one inode twice.
        let (low, high) = (
            InodeRange { first: Ino::new(0), last: Ino::new(cut) },
            InodeRange { first: Ino::new(cut), last: InodeRange::ALL.last },
        );
        writer.load(&records(&index, high)).unwrap();
        writer.load(&records(&index, low)).unwrap();
        drop(writer);
        prop_assert_eq!(dump(&copy), dump(&index));
    }
}

#[test]
fn an_inode_of_many_extents_has_several_records() {
    let ino = Ino::new(1);
    let hole = |n: u64| Entry::Hole { ino, chunks: range(3 * n, 3 * n + 1), data_xid: Xid::new(1) };
    let entries = (0..3000).map(hole).collect();
    let (_dir, index) = fill(&[
        Contents { tarball: tarball(1), chunk_bytes: CHUNK, entries },
        contents(&Said { snapshot: 2, ino: 2, start: 0, len: 1, what: What::Data }),
    ]);
    let records = records(&index, InodeRange::ALL);
    let lengths: Vec<_> = records.iter().map(|record| record.extents.len()).collect();
    assert_eq!(lengths, [1024, 1024, 952, 1]);
    let (_other, copy) = fill(&[]);
    let mut writer = copy.writer();
    writer.add_tarball(tarball(1), b"row").unwrap();
    writer.add_tarball(tarball(2), b"row").unwrap();
    writer.load(&records).unwrap();
    drop(writer);
    assert_eq!(dump(&copy), dump(&index));
}

#[test]
fn what_lay_in_a_lost_tarball_is_lost_until_it_is_persisted_again() {
    let data = |snapshot, ino, start| Said { snapshot, ino, start, len: 2, what: What::Data };
    let mut inline = contents(&Said { snapshot: 1, ino: 3, start: 0, len: 1, what: What::Data });
    for entry in &mut inline.entries {
        if let Entry::Inode { frame, .. } | Entry::Data { frame, .. } = entry {
            *frame = 7;
        }
    }
    let all =
        [contents(&data(1, 1, 0)), inline, contents(&data(2, 1, 5)), contents(&data(2, 2, 0))];
    let (_dir, index) = fill(&all);
    let lost = std::collections::BTreeSet::from([tarball(1)]);
    assert_eq!(index.inodes_in(&lost).unwrap(), [Ino::new(1), Ino::new(3)]);
    index.writer().lose(&lost).unwrap();
    for (ino, chunks) in [(1, range(0, 2)), (3, range(0, 1))] {
        let found = index.find(Ino::new(ino), chunks.start()).unwrap().unwrap();
        assert_eq!((found.content, found.data_xid), (ExtentContent::Lost, Xid::new(10)));
        assert!(!index.is_persisted(Ino::new(ino), chunks, Xid::new(10)).unwrap());
    }
    assert_eq!(persisted(&index, Ino::new(1), Xid::new(20)), [5, 6]);
    assert!(dump(&index).contains("tarball 1/1/0 live=0"), "{}", dump(&index));
    // The same transaction, at a later place.
    let again = Contents { tarball: tarball(4), ..contents(&data(1, 1, 0)) };
    let mut writer = index.writer();
    writer.add_tarball(tarball(4), b"row").unwrap();
    writer.apply(&again).unwrap();
    drop(writer);
    assert_eq!(persisted(&index, Ino::new(1), Xid::new(10)), [0, 1]);
}
