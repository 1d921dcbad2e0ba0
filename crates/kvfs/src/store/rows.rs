//! Values of the tables, converted by hand.

use serde::{Deserialize, Serialize};
use tier_types::{ChunkState, DeviceNumber, FileAttr, FileKind, Ino, Timestamp, Xid};

use crate::counters::Counters;

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

#[derive(Serialize, Deserialize)]
enum WireState {
    Hole,
    Hot,
    Warm,
    Cold,
}

/// Serialising plain values into memory has no way to fail.
fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).unwrap_or_default()
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes)
        .ok()
        .filter(|(_, rest)| rest.is_empty())
        .map(|(value, _)| value)
}

fn time(wire: WireTime) -> Timestamp {
    Timestamp { seconds: wire.0, nanos: wire.1 }
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
        accessed: time(wire.accessed),
        modified: time(wire.modified),
        changed: time(wire.changed),
        created: time(wire.created),
        xid: Xid::new(wire.xid),
    })
}

pub(crate) fn entry_to_bytes(ino: Ino, cookie: u64) -> Vec<u8> {
    encode(&(ino.get(), cookie))
}

pub(crate) fn entry_from_bytes(bytes: &[u8]) -> Option<(Ino, u64)> {
    let (ino, cookie) = decode(bytes)?;
    Some((Ino::new(ino), cookie))
}

pub(crate) fn run_to_bytes(state: ChunkState, data_xid: Xid) -> Vec<u8> {
    let state = match state {
        ChunkState::Hole => WireState::Hole,
        ChunkState::Hot => WireState::Hot,
        ChunkState::Warm => WireState::Warm,
        ChunkState::Cold => WireState::Cold,
    };
    encode(&(state, data_xid.get()))
}

pub(crate) fn run_from_bytes(bytes: &[u8]) -> Option<(ChunkState, Xid)> {
    let (state, xid): (WireState, u64) = decode(bytes)?;
    let state = match state {
        WireState::Hole => ChunkState::Hole,
        WireState::Hot => ChunkState::Hot,
        WireState::Warm => ChunkState::Warm,
        WireState::Cold => ChunkState::Cold,
    };
    Some((state, Xid::new(xid)))
}

pub(crate) fn counters_to_bytes(counters: &Counters) -> Vec<u8> {
    let Counters { n_inodes, resident_bytes, cold_bytes, n_pins } = *counters;
    encode(&(n_inodes, resident_bytes, cold_bytes, n_pins))
}

pub(crate) fn counters_from_bytes(bytes: &[u8]) -> Option<Counters> {
    let (n_inodes, resident_bytes, cold_bytes, n_pins) = decode(bytes)?;
    Some(Counters { n_inodes, resident_bytes, cold_bytes, n_pins })
}
