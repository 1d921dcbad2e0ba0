//! The parser of a member's header: what it says of an inode, trusting nothing.
//!
//! A record that is absent means what the format says; one that is there and cannot be read is an
//! error of the whole member, never a default.

use tar::Header;
use tier_types::{
    ChunkNo, ChunkRange, DeviceNumber, FileAttr, FileKind, Ino, InodeState, Xattr, Xid,
};

use crate::format::tarball::member::{Member, Run};
use crate::format::tarball::pax::{self, PaxRecords};

/// What the headers of one member say. The data follows after `map_bytes`.
#[derive(Debug)]
pub(crate) struct ParsedMember {
    pub(crate) member: Member,
    pub(crate) map_bytes: u64,
}

/// The member. `content_bytes` is what follows the header.
pub(crate) fn parse_member(
    records: &PaxRecords<'_>,
    header: &Header,
    content_bytes: u64,
) -> Result<ParsedMember, &'static str> {
    let unreadable = "a member's records cannot be read";
    let parsed = parse_records(records, header).ok_or(unreadable)?;
    let map_bytes = if records.get(pax::MAP_BYTES).is_some() {
        records.number(pax::MAP_BYTES).ok_or(unreadable)?
    } else {
        0
    };
    let data_bytes = content_bytes.checked_sub(map_bytes).ok_or("a member is too short")?;
    Ok(ParsedMember { member: Member { data_bytes, ..parsed }, map_bytes })
}

fn parse_records(records: &PaxRecords<'_>, header: &Header) -> Option<Member> {
    let ino = Ino::new(records.number(pax::INO)?);
    // What a record's presence says and what its value says are looked at apart, so that one that
    // cannot be read is not taken for one that is absent.
    let gone = match records.get(pax::GONE) {
        Some(_) => Some(Xid::new(records.number(pax::GONE)?)),
        None => None,
    };
    let metadata = match records.get(pax::XID) {
        Some(_) => Some(parse_metadata(ino, records, header)?),
        None => None,
    };
    let data = parse_runs(records, pax::DATA)?;
    let holes = parse_runs(records, pax::HOLES)?;
    Some(Member { gone, metadata, data, holes, ..Member::of(ino) })
}

fn parse_metadata(ino: Ino, records: &PaxRecords<'_>, header: &Header) -> Option<InodeState> {
    // The header's field holds seven octal digits; a larger owner has a record.
    let id = |key, field: std::io::Result<u64>| match records.get(key) {
        Some(_) => u32::try_from(records.number(key)?).ok(),
        None => u32::try_from(field.ok()?).ok(),
    };
    let attr = FileAttr {
        ino,
        kind: parse_kind(records)?,
        mode: u16::try_from(header.mode().ok()? & 0o7777).ok()?,
        uid: id("uid", header.uid())?,
        gid: id("gid", header.gid())?,
        nlink: u32::try_from(records.number(pax::NLINK)?).ok()?,
        size_bytes: records.number(pax::SIZE)?,
        accessed: records.time("atime")?,
        modified: records.time("mtime")?,
        changed: records.time("ctime")?,
        created: records.time(pax::CREATED)?,
        xid: Xid::new(records.number(pax::XID)?),
    };
    let links = pax::parse_links(records.get(pax::LINKS)?)?;
    Some(InodeState { attr, links, xattrs: parse_xattrs(records)? })
}

fn parse_kind(records: &PaxRecords<'_>) -> Option<FileKind> {
    Some(match records.text(pax::TYPE)? {
        "file" => FileKind::Regular,
        "directory" => FileKind::Directory,
        "symlink" => FileKind::Symlink(records.get(pax::TARGET)?.to_vec()),
        "fifo" => FileKind::Fifo,
        "socket" => FileKind::Socket,
        "char-device" => FileKind::CharDevice(parse_device(records)?),
        "block-device" => FileKind::BlockDevice(parse_device(records)?),
        _ => return None,
    })
}

fn parse_device(records: &PaxRecords<'_>) -> Option<DeviceNumber> {
    let (major, minor) = records.text(pax::DEVICE)?.split_once(':')?;
    Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

fn parse_xattrs(records: &PaxRecords<'_>) -> Option<Vec<Xattr>> {
    let prefix = pax::XATTR_PREFIX.as_bytes();
    let mut xattrs: Vec<_> = records
        .iter()
        .filter_map(|(key, value)| {
            let name = key.strip_prefix(prefix)?.to_vec();
            Some(Xattr { name, value: value.to_vec() })
        })
        .collect();
    // Attributes whose names hold an equals sign, which ends the key of a record. Few inodes have
    // any.
    let mut unnameable = records.get(pax::XATTRS).unwrap_or_default();
    while !unnameable.is_empty() {
        let name = pax::take_counted(&mut unnameable)?.to_vec();
        let value = pax::take_counted(&mut unnameable)?.to_vec();
        xattrs.push(Xattr { name, value });
    }
    // As an inode's state has them; the records are in the order of writing.
    xattrs.sort();
    Some(xattrs)
}

/// Sorted, disjoint runs.
fn parse_runs(records: &PaxRecords<'_>, key: &str) -> Option<Vec<Run>> {
    if records.get(key).is_none() {
        return Some(Vec::new());
    }
    let mut at = ChunkNo::new(0);
    let mut runs = Vec::new();
    for text in records.text(key)?.split(',') {
        let (chunks, xid) = text.split_once('@')?;
        let (start, end) = chunks.split_once('-')?;
        let start = ChunkNo::new(start.parse().ok()?);
        let end = ChunkNo::new(end.parse().ok()?);
        // In order and disjoint, because the data of one follows that of the other.
        let chunks = ChunkRange::new(start, end).filter(|_| start >= at)?;
        runs.push(Run { chunks, data_xid: Xid::new(xid.parse().ok()?) });
        at = end;
    }
    Some(runs)
}
