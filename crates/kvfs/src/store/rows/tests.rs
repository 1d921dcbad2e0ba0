//! Rows survive, and their bytes are the format.

use proptest::prelude::*;

use super::*;
use crate::testing;

fn kind() -> impl Strategy<Value = FileKind> {
    let device = any::<(u32, u32)>().prop_map(|(major, minor)| DeviceNumber { major, minor });
    prop_oneof![
        Just(FileKind::Regular),
        Just(FileKind::Directory),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(FileKind::Symlink),
        Just(FileKind::Fifo),
        Just(FileKind::Socket),
        device.clone().prop_map(FileKind::CharDevice),
        device.prop_map(FileKind::BlockDevice),
    ]
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

prop_compose! {
    fn attr()(
        kind in kind(),
        (mode, uid, gid, nlink) in any::<(u16, u32, u32, u32)>(),
        size_bytes in 0..=FILE_BYTES_MAX,
        times in prop::array::uniform4(timestamp()),
        xid in any::<u64>(),
    ) -> FileAttr {
        let [accessed, modified, changed, created] = times;
        let (ino, xid) = (Ino::new(7), Xid::new(xid));
        FileAttr {
            ino, kind, mode, uid, gid, nlink, size_bytes, accessed, modified, changed, created,
            xid,
        }
    }
}

fn state() -> impl Strategy<Value = ChunkState> {
    use ChunkState::{Cold, Hole, Hot, Warm};
    prop::sample::select(vec![Hole, Hot, Warm, Cold])
}

proptest! {
    #[test]
    fn attributes_survive(attr in attr()) {
        let bytes = attr_to_bytes(&attr);
        prop_assert_eq!(attr_from_bytes(Ino::new(7), &bytes), Some(attr));
        let cut = &bytes[..bytes.len() - 1];
        prop_assert_eq!(attr_from_bytes(Ino::new(7), cut), None);
        prop_assert_eq!(attr_from_bytes(Ino::new(7), &[&bytes[..], b"x"].concat()), None);
    }

    #[test]
    fn small_rows_survive(
        (ino, cookie, number) in any::<(u64, u64, u64)>(),
        state in state(),
        totals in any::<[i64; 6]>(),
        bytes in prop::array::uniform3(0..=FILE_BYTES_MAX),
        marks in prop::collection::vec((1..5_u64, 1..5_u64, any::<u64>()), 0..5),
    ) {
        let entry = Entry { ino: Ino::new(ino), cookie };
        prop_assert_eq!(entry_from_bytes(&entry_to_bytes(entry)), Some(entry));
        let run = RunState { state, data_xid: Xid::new(number) };
        prop_assert_eq!(run_from_bytes(&run_to_bytes(run)), Some(run));
        let [n_inodes, resident_bytes, warm_bytes, cold_bytes, dying_bytes, n_pins] = totals;
        let counters = Counters {
            n_inodes, resident_bytes, warm_bytes, cold_bytes, dying_bytes, n_pins,
        };
        prop_assert_eq!(counters_from_bytes(&counters_to_bytes(&counters)), Some(counters));
        prop_assert_eq!(number_from_bytes(&number_to_bytes(number)), Some(number));
        let [resident_bytes, warm_bytes, cold_bytes] = bytes;
        let sums = DataSums { resident_bytes, warm_bytes, cold_bytes };
        prop_assert_eq!(sums_from_bytes(&sums_to_bytes(sums)), Some(sums));
        let dying = Dying { next: ChunkNo::new(number), resident_bytes };
        prop_assert_eq!(dying_from_bytes(&dying_to_bytes(dying)), Some(dying));
        let mut at = 0;
        let marks = marks.into_iter().map(|(gap, len, xid)| {
            let start = at + gap;
            at = start + len;
            let chunks = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(at)).unwrap();
            CutMark { chunks, xid: Xid::new(xid) }
        });
        let cuts = CutMarks::new(marks.collect()).unwrap();
        prop_assert_eq!(cuts_from_bytes(&cuts_to_bytes(&cuts)), Some(cuts));
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = attr_from_bytes(Ino::new(1), &bytes);
        let _ = entry_from_bytes(&bytes);
        let _ = run_from_bytes(&bytes);
        let _ = counters_from_bytes(&bytes);
        let _ = sums_from_bytes(&bytes);
        let _ = dying_from_bytes(&bytes);
        drop(cuts_from_bytes(&bytes));
    }
}

/// What is on disks must stay readable: these bytes are the format.
#[test]
fn rows_are_the_bytes_that_they_always_were() {
    let time = |seconds| Timestamp { seconds, nanos: 300 };
    let attr = FileAttr {
        mode: 0o644,
        uid: 1,
        gid: 300,
        nlink: 2,
        size_bytes: 70_000,
        accessed: time(1),
        modified: time(-1),
        changed: time(3),
        created: time(4),
        xid: Xid::new(129),
        ..testing::attr(7, FileKind::Symlink(b"to".to_vec()))
    };
    let expected = [
        &[2, 2, b't', b'o'][..],
        &[0xa4, 0x03, 1, 0xac, 0x02, 2, 0xf0, 0xa2, 0x04],
        &[2, 0xac, 0x02, 1, 0xac, 0x02, 6, 0xac, 0x02, 8, 0xac, 0x02],
        &[0x81, 0x01],
    ];
    assert_eq!(attr_to_bytes(&attr), expected.concat());
    let entry = Entry { ino: Ino::new(300), cookie: 5 };
    assert_eq!(entry_to_bytes(entry), [0xac, 0x02, 5]);
    let states = [ChunkState::Hole, ChunkState::Hot, ChunkState::Warm, ChunkState::Cold];
    for (number, state) in (0..).zip(states) {
        assert_eq!(run_to_bytes(RunState { state, data_xid: Xid::new(9) }), [number, 9]);
    }
    let counters = Counters {
        n_inodes: 1,
        resident_bytes: -1,
        warm_bytes: 3,
        cold_bytes: 64,
        dying_bytes: 2,
        n_pins: 0,
    };
    assert_eq!(counters_to_bytes(&counters), [2, 1, 6, 0x80, 0x01, 4, 0]);
    assert_eq!(number_to_bytes(513), [1, 2, 0, 0, 0, 0, 0, 0]);
    let sums = DataSums { resident_bytes: 300, warm_bytes: 2, cold_bytes: 1 };
    assert_eq!(sums_to_bytes(sums), [0xac, 0x02, 2, 1]);
    let dying = Dying { next: ChunkNo::new(7), resident_bytes: 300 };
    assert_eq!(dying_to_bytes(dying), [7, 0xac, 0x02]);
    let chunks = ChunkRange::new(ChunkNo::new(2), ChunkNo::new(5)).unwrap();
    let cuts = CutMarks::new(vec![CutMark { chunks, xid: Xid::new(9) }]).unwrap();
    assert_eq!(cuts_to_bytes(&cuts), [1, 2, 5, 9]);
    assert_eq!(chunk_size_to_bytes(512), [0, 2, 0, 0]);
}

#[test]
fn sizes_that_no_file_can_have_are_damage() {
    let attr = FileAttr { size_bytes: FILE_BYTES_MAX + 1, ..testing::attr(7, FileKind::Regular) };
    assert_eq!(attr_from_bytes(Ino::new(7), &attr_to_bytes(&attr)), None);
    assert_eq!(chunk_size_from_bytes(&[0; 4]), None, "no chunk has no bytes");
    assert_eq!(chunk_size_from_bytes(&[0, 2, 0]), None);
    assert_eq!(number_from_bytes(&[0; 7]), None);
}
