//! Values of the tables, converted by hand between wire types and domain types.
//!
//! Wire types are private: a domain type can change without the format, and the format cannot
//! change without this file (`docs/adr/0001`). Every decoder takes any bytes and answers `None` for
//! those that are not exactly one value; the reader says of which row that was.

use serde::{Deserialize, Serialize};
use tier_types::{ChunkNo, ChunkState, DeviceNumber, FileAttr, FileKind, Ino, Timestamp, Xid};

use super::extents::Place;

/// What an entry of a directory leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) ino: Ino,
    /// Where the entry is in the directory's listing.
    pub(crate) cookie: u64,
}

/// Where a run of chunks is, and since which transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RunState {
    pub(crate) state: ChunkState,
    pub(crate) data_xid: Xid,
}

impl RunState {
    /// What no run covers reads as zeros and has no transaction.
    pub(crate) const NEVER_WRITTEN: Self = Self { state: ChunkState::Hole, data_xid: Xid::new(0) };
}

/// An extent that no sync is known to cover: which chunk it is of, and what that was before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unsynced {
    pub(crate) ino: Ino,
    pub(crate) chunk: ChunkNo,
    pub(crate) len: u32,
    pub(crate) before: ChunkBefore,
}

/// What a chunk was before it was replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ChunkBefore {
    /// It was not in the store.
    Away(RunState),
    /// It had this row.
    Row(Vec<u8>),
}

/// Totals of the filesystem, or a change of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    pub(crate) n_inodes: i64,
    /// Bytes of chunks in the store, up to the ends of their files.
    pub(crate) resident_bytes: i64,
    /// The same of evicted chunks.
    pub(crate) cold_bytes: i64,
    pub(crate) n_pins: i64,
}

/// The largest size of a file in bytes, as Linux has it.
pub(crate) const FILE_BYTES_MAX: u64 = i64::MAX.unsigned_abs();

#[derive(Serialize, Deserialize)]
enum WireKind {
    Regular,
    Directory,
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

type WireTime = (i64, u32);

#[derive(Serialize, Deserialize)]
enum WireBefore {
    Away(WireState, u64),
    Row(Vec<u8>),
}

#[derive(Serialize, Deserialize)]
struct WireAttr {
    kind: WireKind,
    mode: u16,
    uid: u32,
    gid: u32,
    nlink: u32,
    size_bytes: u64,
    accessed: WireTime,
    modified: WireTime,
    changed: WireTime,
    created: WireTime,
    xid: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum WireState {
    Hole,
    Hot,
    Warm,
    Cold,
}

#[expect(clippy::expect_used, reason = "serialising plain values into memory cannot fail")]
fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain values are serialised into memory")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes)
        .ok()
        .filter(|(_, rest)| rest.is_empty())
        .map(|(value, _)| value)
}

/// `None` for nanoseconds that are a second and more: no time is written so.
fn time(wire: WireTime) -> Option<Timestamp> {
    let (seconds, nanos) = wire;
    (nanos < 1_000_000_000).then_some(Timestamp { seconds, nanos })
}

fn wire_time(time: Timestamp) -> WireTime {
    (time.seconds, time.nanos)
}

pub(crate) fn attr_to_bytes(attr: &FileAttr) -> Vec<u8> {
    let kind = match &attr.kind {
        FileKind::Regular => WireKind::Regular,
        FileKind::Directory => WireKind::Directory,
        FileKind::Symlink(target) => WireKind::Symlink(target.clone()),
        FileKind::Fifo => WireKind::Fifo,
        FileKind::Socket => WireKind::Socket,
        FileKind::CharDevice(d) => WireKind::CharDevice(d.major, d.minor),
        FileKind::BlockDevice(d) => WireKind::BlockDevice(d.major, d.minor),
    };
    encode(&WireAttr {
        kind,
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        size_bytes: attr.size_bytes,
        accessed: wire_time(attr.accessed),
        modified: wire_time(attr.modified),
        changed: wire_time(attr.changed),
        created: wire_time(attr.created),
        xid: attr.xid.get(),
    })
}

pub(crate) fn attr_from_bytes(ino: Ino, bytes: &[u8]) -> Option<FileAttr> {
    let wire: WireAttr = decode(bytes)?;
    // Every sum and every offset further up relies on it.
    if wire.size_bytes > FILE_BYTES_MAX {
        return None;
    }
    let kind = match wire.kind {
        WireKind::Regular => FileKind::Regular,
        WireKind::Directory => FileKind::Directory,
        WireKind::Symlink(target) => FileKind::Symlink(target),
        WireKind::Fifo => FileKind::Fifo,
        WireKind::Socket => FileKind::Socket,
        WireKind::CharDevice(major, minor) => FileKind::CharDevice(DeviceNumber { major, minor }),
        WireKind::BlockDevice(major, minor) => FileKind::BlockDevice(DeviceNumber { major, minor }),
    };
    Some(FileAttr {
        ino,
        kind,
        mode: wire.mode,
        uid: wire.uid,
        gid: wire.gid,
        nlink: wire.nlink,
        size_bytes: wire.size_bytes,
        accessed: time(wire.accessed)?,
        modified: time(wire.modified)?,
        changed: time(wire.changed)?,
        created: time(wire.created)?,
        xid: Xid::new(wire.xid),
    })
}

pub(crate) fn entry_to_bytes(entry: Entry) -> Vec<u8> {
    encode(&(entry.ino.get(), entry.cookie))
}

pub(crate) fn entry_from_bytes(bytes: &[u8]) -> Option<Entry> {
    let (ino, cookie) = decode(bytes)?;
    Some(Entry { ino: Ino::new(ino), cookie })
}

pub(crate) fn run_to_bytes(run: RunState) -> Vec<u8> {
    encode(&(state_to_wire(run.state), run.data_xid.get()))
}

fn state_to_wire(state: ChunkState) -> WireState {
    match state {
        ChunkState::Hole => WireState::Hole,
        ChunkState::Hot => WireState::Hot,
        ChunkState::Warm => WireState::Warm,
        ChunkState::Cold => WireState::Cold,
    }
}

pub(crate) fn run_from_bytes(bytes: &[u8]) -> Option<RunState> {
    let (state, xid): (WireState, u64) = decode(bytes)?;
    Some(run_from_wire(state, xid))
}

fn run_from_wire(state: WireState, xid: u64) -> RunState {
    let state = match state {
        WireState::Hole => ChunkState::Hole,
        WireState::Hot => ChunkState::Hot,
        WireState::Warm => ChunkState::Warm,
        WireState::Cold => ChunkState::Cold,
    };
    RunState { state, data_xid: Xid::new(xid) }
}

pub(crate) fn unsynced_to_bytes(unsynced: &Unsynced) -> Vec<u8> {
    let before = match &unsynced.before {
        ChunkBefore::Away(run) => WireBefore::Away(state_to_wire(run.state), run.data_xid.get()),
        ChunkBefore::Row(row) => WireBefore::Row(row.clone()),
    };
    encode(&(unsynced.ino.get(), unsynced.chunk.get(), unsynced.len, before))
}

pub(crate) fn unsynced_from_bytes(bytes: &[u8]) -> Option<Unsynced> {
    let (ino, chunk, len, before): (u64, u64, u32, WireBefore) = decode(bytes)?;
    let before = match before {
        WireBefore::Away(state, xid) => ChunkBefore::Away(run_from_wire(state, xid)),
        WireBefore::Row(row) => ChunkBefore::Row(row),
    };
    Some(Unsynced { ino: Ino::new(ino), chunk: ChunkNo::new(chunk), len, before })
}

/// Which chunk a free extent was of, and its bytes.
pub(crate) fn freed_to_bytes(ino: Ino, chunk: ChunkNo, len: u32) -> Vec<u8> {
    encode(&(ino.get(), chunk.get(), len))
}

pub(crate) fn freed_from_bytes(bytes: &[u8]) -> Option<(Ino, ChunkNo, u32)> {
    let (ino, chunk, len) = decode(bytes)?;
    Some((Ino::new(ino), ChunkNo::new(chunk), len))
}

pub(crate) fn place_to_bytes(place: Place) -> Vec<u8> {
    encode(&(place.file, place.offset))
}

pub(crate) fn place_from_bytes(bytes: &[u8]) -> Option<Place> {
    let (file, offset) = decode(bytes)?;
    Some(Place { file, offset })
}

pub(crate) fn counters_to_bytes(counters: &Counters) -> Vec<u8> {
    let Counters { n_inodes, resident_bytes, cold_bytes, n_pins } = *counters;
    encode(&(n_inodes, resident_bytes, cold_bytes, n_pins))
}

pub(crate) fn counters_from_bytes(bytes: &[u8]) -> Option<Counters> {
    let (n_inodes, resident_bytes, cold_bytes, n_pins) = decode(bytes)?;
    Some(Counters { n_inodes, resident_bytes, cold_bytes, n_pins })
}

/// A sum of bytes, or a transaction id.
pub(crate) fn number_to_bytes(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

pub(crate) fn number_from_bytes(bytes: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(bytes).ok().map(u64::from_le_bytes)
}

pub(crate) fn chunk_size_to_bytes(chunk_bytes: u32) -> Vec<u8> {
    assert!(chunk_bytes > 0, "a chunk has bytes");
    chunk_bytes.to_le_bytes().to_vec()
}

/// A chunk size; zero is none.
pub(crate) fn chunk_size_from_bytes(bytes: &[u8]) -> Option<u32> {
    <[u8; 4]>::try_from(bytes).ok().map(u32::from_le_bytes).filter(|&n| n > 0)
}

#[cfg(test)]
mod tests {
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
        (any::<i64>(), 0..1_000_000_000_u32)
            .prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
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
            totals in any::<[i64; 4]>(),
        ) {
            let entry = Entry { ino: Ino::new(ino), cookie };
            prop_assert_eq!(entry_from_bytes(&entry_to_bytes(entry)), Some(entry));
            let run = RunState { state, data_xid: Xid::new(number) };
            prop_assert_eq!(run_from_bytes(&run_to_bytes(run)), Some(run));
            let [n_inodes, resident_bytes, cold_bytes, n_pins] = totals;
            let counters = Counters { n_inodes, resident_bytes, cold_bytes, n_pins };
            prop_assert_eq!(counters_from_bytes(&counters_to_bytes(&counters)), Some(counters));
            prop_assert_eq!(number_from_bytes(&number_to_bytes(number)), Some(number));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = attr_from_bytes(Ino::new(1), &bytes);
            let _ = entry_from_bytes(&bytes);
            let _ = run_from_bytes(&bytes);
            let _ = counters_from_bytes(&bytes);
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
        let counters = Counters { n_inodes: 1, resident_bytes: -1, cold_bytes: 64, n_pins: 0 };
        assert_eq!(counters_to_bytes(&counters), [2, 1, 0x80, 0x01, 0]);
        assert_eq!(number_to_bytes(513), [1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(chunk_size_to_bytes(512), [0, 2, 0, 0]);
    }

    #[test]
    fn sizes_that_no_file_can_have_are_damage() {
        let attr =
            FileAttr { size_bytes: FILE_BYTES_MAX + 1, ..testing::attr(7, FileKind::Regular) };
        assert_eq!(attr_from_bytes(Ino::new(7), &attr_to_bytes(&attr)), None);
        assert_eq!(chunk_size_from_bytes(&[0; 4]), None, "no chunk has no bytes");
        assert_eq!(chunk_size_from_bytes(&[0, 2, 0]), None);
        assert_eq!(number_from_bytes(&[0; 7]), None);
    }
}
