//! The bytes of one record (`docs/formats/log-segment.md`).
//!
//! The wire types here mirror the format and nothing else: the order of their fields and variants
//! is part of it. They are converted by hand from and to the domain types, which are therefore free
//! to change, and are private to this module. Decoding trusts nothing: a name that cannot be one, a
//! time that is none, or bytes that are left over are errors. The xid is not among the bytes; it is
//! the record's key in the store, or follows from its place in a segment.

use serde::{Deserialize, Serialize};
use tier_types::{Ino, Link, Timestamp, Xid};

use crate::error::LogError;
use crate::record::{LogRecord, NodeKind, Operation, checked_name};

#[derive(Serialize, Deserialize)]
struct WireRecord<'a> {
    seconds: i64,
    nanos: u32,
    #[serde(borrow)]
    operation: WireOperation<'a>,
}

#[derive(Serialize, Deserialize)]
struct WireLink<'a>(u64, &'a [u8]);

#[derive(Serialize, Deserialize)]
enum WireNode {
    // The order is part of the format here as well.
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
enum WireOperation<'a> {
    Create(u64, #[serde(borrow)] Option<WireLink<'a>>),
    Mkdir(u64, #[serde(borrow)] Option<WireLink<'a>>),
    Mknod(u64, #[serde(borrow)] WireLink<'a>, WireNode),
    Symlink(u64, #[serde(borrow)] WireLink<'a>),
    Link(u64, #[serde(borrow)] WireLink<'a>),
    Unlink(u64, #[serde(borrow)] WireLink<'a>),
    Rename(u64, #[serde(borrow)] WireLink<'a>, #[serde(borrow)] WireLink<'a>, Option<u64>),
    Exchange(u64, #[serde(borrow)] WireLink<'a>, #[serde(borrow)] WireLink<'a>, u64),
    Write(u64, u64, u64),
    Truncate(u64, u64, u64),
    PunchHole(u64, u64, u64),
    SetAttr(u64),
    SetXattr(u64, &'a [u8]),
    RemoveXattr(u64, &'a [u8]),
    Gone(u64),
}

impl LogRecord {
    /// The bytes that a key-value store keeps; the xid is in its key and not among them.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made. Bytes that it could not have made are a
    /// [`DamagedRecord`](LogError::DamagedRecord).
    pub fn from_bytes(xid: Xid, bytes: &[u8]) -> Result<Self, LogError> {
        decode(xid, bytes).map_err(LogError::DamagedRecord)
    }
}

#[expect(clippy::expect_used, reason = "plain values are serialised into memory")]
pub(crate) fn encode(record: &LogRecord) -> Vec<u8> {
    debug_assert!(record.time.nanos < 1_000_000_000, "a time that can be read back");
    let wire = WireRecord {
        seconds: record.time.seconds,
        nanos: record.time.nanos,
        operation: to_wire(&record.operation),
    };
    postcard::to_allocvec(&wire).expect("serialising into memory cannot fail")
}

pub(crate) fn decode(xid: Xid, bytes: &[u8]) -> Result<LogRecord, &'static str> {
    // Names stay borrowed from the block, and are copied once they have proved to be names.
    let (wire, rest): (WireRecord<'_>, _) =
        postcard::take_from_bytes(bytes).map_err(|_| "not a log record")?;
    // A record that decodes from the first part of its bytes is not the one that was written.
    if !rest.is_empty() {
        return Err("bytes after the end of a log record");
    }
    // The format allows any 32 bits; a time does not.
    if wire.nanos >= 1_000_000_000 {
        return Err("a time with too many nanoseconds");
    }
    let time = Timestamp { seconds: wire.seconds, nanos: wire.nanos };
    Ok(LogRecord { xid, time, operation: from_wire(&wire.operation)? })
}

fn link_to_wire(link: &Link) -> WireLink<'_> {
    WireLink(link.parent.get(), link.name.as_bytes())
}

fn to_wire(operation: &Operation) -> WireOperation<'_> {
    match operation {
        Operation::Create { ino, link } => {
            WireOperation::Create(ino.get(), link.as_ref().map(link_to_wire))
        }
        Operation::Mkdir { ino, link } => {
            WireOperation::Mkdir(ino.get(), link.as_ref().map(link_to_wire))
        }
        Operation::Mknod { ino, link, kind } => {
            let kind = match kind {
                NodeKind::Fifo => WireNode::Fifo,
                NodeKind::Socket => WireNode::Socket,
                NodeKind::CharDevice => WireNode::CharDevice,
                NodeKind::BlockDevice => WireNode::BlockDevice,
            };
            WireOperation::Mknod(ino.get(), link_to_wire(link), kind)
        }
        Operation::Symlink { ino, link } => WireOperation::Symlink(ino.get(), link_to_wire(link)),
        Operation::Link { ino, link } => WireOperation::Link(ino.get(), link_to_wire(link)),
        Operation::Unlink { ino, link } => WireOperation::Unlink(ino.get(), link_to_wire(link)),
        Operation::Rename { ino, from, to, replaced } => WireOperation::Rename(
            ino.get(),
            link_to_wire(from),
            link_to_wire(to),
            replaced.map(Ino::get),
        ),
        Operation::Exchange { ino, from, to, other } => {
            WireOperation::Exchange(ino.get(), link_to_wire(from), link_to_wire(to), other.get())
        }
        Operation::Write { ino, offset, len } => WireOperation::Write(ino.get(), *offset, *len),
        Operation::Truncate { ino, old_size, new_size } => {
            WireOperation::Truncate(ino.get(), *old_size, *new_size)
        }
        Operation::PunchHole { ino, offset, len } => {
            WireOperation::PunchHole(ino.get(), *offset, *len)
        }
        Operation::SetAttr { ino } => WireOperation::SetAttr(ino.get()),
        Operation::SetXattr { ino, name } => WireOperation::SetXattr(ino.get(), name),
        Operation::RemoveXattr { ino, name } => WireOperation::RemoveXattr(ino.get(), name),
        Operation::Gone { ino } => WireOperation::Gone(ino.get()),
    }
}

fn link_from_wire(wire: &WireLink<'_>) -> Result<Link, &'static str> {
    Ok(Link { parent: Ino::new(wire.0), name: checked_name(wire.1)? })
}

fn from_wire(wire: &WireOperation<'_>) -> Result<Operation, &'static str> {
    let i = |ino: &u64| Ino::new(*ino);
    let link = link_from_wire;
    let maybe = |wire: &Option<WireLink<'_>>| wire.as_ref().map(link_from_wire).transpose();
    Ok(match wire {
        WireOperation::Create(ino, l) => Operation::Create { ino: i(ino), link: maybe(l)? },
        WireOperation::Mkdir(ino, l) => Operation::Mkdir { ino: i(ino), link: maybe(l)? },
        WireOperation::Mknod(ino, l, kind) => {
            let kind = match kind {
                WireNode::Fifo => NodeKind::Fifo,
                WireNode::Socket => NodeKind::Socket,
                WireNode::CharDevice => NodeKind::CharDevice,
                WireNode::BlockDevice => NodeKind::BlockDevice,
            };
            Operation::Mknod { ino: i(ino), link: link(l)?, kind }
        }
        WireOperation::Symlink(ino, l) => Operation::Symlink { ino: i(ino), link: link(l)? },
        WireOperation::Link(ino, l) => Operation::Link { ino: i(ino), link: link(l)? },
        WireOperation::Unlink(ino, l) => Operation::Unlink { ino: i(ino), link: link(l)? },
        WireOperation::Rename(ino, from, to, replaced) => Operation::Rename {
            ino: i(ino),
            from: link(from)?,
            to: link(to)?,
            replaced: replaced.as_ref().map(i),
        },
        WireOperation::Exchange(ino, from, to, other) => {
            Operation::Exchange { ino: i(ino), from: link(from)?, to: link(to)?, other: i(other) }
        }
        // Any 64 bits pass: the fold computes chunks from them without overflow, and a range beyond
        // the file only makes the persister look where nothing is.
        WireOperation::Write(ino, offset, len) => {
            Operation::Write { ino: i(ino), offset: *offset, len: *len }
        }
        WireOperation::Truncate(ino, old_size, new_size) => {
            Operation::Truncate { ino: i(ino), old_size: *old_size, new_size: *new_size }
        }
        WireOperation::PunchHole(ino, offset, len) => {
            Operation::PunchHole { ino: i(ino), offset: *offset, len: *len }
        }
        WireOperation::SetAttr(ino) => Operation::SetAttr { ino: i(ino) },
        // No file name, so that slashes are allowed; what else it must be, the filesystem knows.
        WireOperation::SetXattr(ino, name) => {
            Operation::SetXattr { ino: i(ino), name: name.to_vec() }
        }
        WireOperation::RemoveXattr(ino, name) => {
            Operation::RemoveXattr { ino: i(ino), name: name.to_vec() }
        }
        WireOperation::Gone(ino) => Operation::Gone { ino: i(ino) },
    })
}
