//! Values of the tables, converted by hand between wire types and domain types.
//!
//! Wire types are private: a domain type can change without the format, and the format cannot
//! change without this file (`docs/adr/0001`). Every decoder takes any bytes and answers `None` for
//! those that are not exactly one value; the reader says of which row that was.

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use tier_types::{
    ChunkNo, ChunkRange, ChunkState, DeviceNumber, FileAttr, FileKind, Ino, Timestamp, Xid,
};

use super::cuts::{CutMark, CutMarks};
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
    /// Those of them that were recalled and did not change since.
    pub(crate) warm_bytes: i64,
    /// Bytes of evicted chunks.
    pub(crate) cold_bytes: i64,
    /// The same of chunks that are lost.
    pub(crate) lost_bytes: i64,
    /// Bytes of chunks of dying inodes, which the reaper has yet to delete.
    pub(crate) dying_bytes: i64,
    pub(crate) n_pins: i64,
}

/// Where the bytes of an inode's data are. What cuts made dead counts, with whole chunks, until the
/// reaper has deleted it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "units come last in a name")]
pub struct DataSums {
    /// Bytes in the store.
    pub(crate) resident_bytes: u64,
    /// Those of them that were recalled and did not change since.
    pub(crate) warm_bytes: u64,
    /// Evicted bytes.
    pub(crate) cold_bytes: u64,
    /// Bytes that are lost.
    pub(crate) lost_bytes: u64,
}

impl fmt::Display for DataSums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident_bytes, warm_bytes, cold_bytes, lost_bytes } = self;
        write!(f, "{resident_bytes} bytes, {warm_bytes} recalled, {cold_bytes} evicted")?;
        if *lost_bytes > 0 { write!(f, ", {lost_bytes} lost") } else { Ok(()) }
    }
}

/// How far the reaper is with a dying inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dying {
    /// Everything of its map before this chunk is deleted.
    pub(crate) next: ChunkNo,
    /// Bytes of its chunks that are still in the store.
    pub(crate) resident_bytes: u64,
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
    Lost,
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
        ChunkState::Lost => WireState::Lost,
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
        WireState::Lost => ChunkState::Lost,
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
    Place::parse(file, offset)
}

pub(crate) fn counters_to_bytes(counters: &Counters) -> Vec<u8> {
    let Counters {
        n_inodes,
        resident_bytes,
        warm_bytes,
        cold_bytes,
        lost_bytes,
        dying_bytes,
        n_pins,
    } = *counters;
    encode(&(n_inodes, resident_bytes, warm_bytes, cold_bytes, lost_bytes, dying_bytes, n_pins))
}

pub(crate) fn counters_from_bytes(bytes: &[u8]) -> Option<Counters> {
    let (n_inodes, resident_bytes, warm_bytes, cold_bytes, lost_bytes, dying_bytes, n_pins) =
        decode(bytes)?;
    Some(Counters {
        n_inodes,
        resident_bytes,
        warm_bytes,
        cold_bytes,
        lost_bytes,
        dying_bytes,
        n_pins,
    })
}

pub(crate) fn sums_to_bytes(sums: DataSums) -> Vec<u8> {
    encode(&(sums.resident_bytes, sums.warm_bytes, sums.cold_bytes, sums.lost_bytes))
}

pub(crate) fn sums_from_bytes(bytes: &[u8]) -> Option<DataSums> {
    let (resident_bytes, warm_bytes, cold_bytes, lost_bytes) = decode(bytes)?;
    // No file has more bytes, and every total relies on it.
    let all = [resident_bytes, warm_bytes, cold_bytes, lost_bytes];
    let can_be = all.iter().all(|sum| *sum <= FILE_BYTES_MAX);
    can_be.then_some(DataSums { resident_bytes, warm_bytes, cold_bytes, lost_bytes })
}

pub(crate) fn dying_to_bytes(dying: Dying) -> Vec<u8> {
    encode(&(dying.next.get(), dying.resident_bytes))
}

pub(crate) fn dying_from_bytes(bytes: &[u8]) -> Option<Dying> {
    let (next, resident_bytes) = decode(bytes)?;
    let dying = Dying { next: ChunkNo::new(next), resident_bytes };
    (resident_bytes <= FILE_BYTES_MAX).then_some(dying)
}

pub(crate) fn cuts_to_bytes(cuts: &CutMarks) -> Vec<u8> {
    let wire =
        |mark: &CutMark| (mark.chunks.start().get(), mark.chunks.end().get(), mark.xid.get());
    encode(&cuts.marks().iter().map(wire).collect::<Vec<_>>())
}

/// `None` also for marks that overlap: none are written so.
pub(crate) fn cuts_from_bytes(bytes: &[u8]) -> Option<CutMarks> {
    let wire: Vec<(u64, u64, u64)> = decode(bytes)?;
    let mark = |(start, end, xid)| {
        let chunks = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end))?;
        Some(CutMark { chunks, xid: Xid::new(xid) })
    };
    CutMarks::new(wire.into_iter().map(mark).collect::<Option<_>>()?)
}

/// A transaction id.
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
