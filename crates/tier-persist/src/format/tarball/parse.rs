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
    let lost = parse_runs(records, pax::LOST)?;
    Some(Member { gone, metadata, data, holes, lost, ..Member::of(ino) })
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
        // Some programs put a file type into the bits above; here the type has its own record.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tier_types::{FileName, Link, Timestamp, to_u64};

    use super::*;
    use crate::format::tarball::blocks::Blocks;
    use crate::format::tarball::header::append_plain_header;
    use crate::format::tarball::pax::PaxWriter;

    const CHUNK_BYTES: u32 = 512;

    fn any_time() -> impl Strategy<Value = Timestamp> {
        (-1_i64 << 40..1 << 40, 0_u32..1_000_000_000)
            .prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
    }

    fn any_kind() -> impl Strategy<Value = FileKind> {
        let device = (any::<u32>(), any::<u32>());
        let device = device.prop_map(|(major, minor)| DeviceNumber { major, minor }).boxed();
        prop_oneof![
            4 => Just(FileKind::Regular),
            1 => Just(FileKind::Directory),
            1 => prop::collection::vec(1_u8.., 1..200).prop_map(FileKind::Symlink),
            1 => Just(FileKind::Fifo),
            1 => Just(FileKind::Socket),
            1 => device.clone().prop_map(FileKind::CharDevice),
            1 => device.prop_map(FileKind::BlockDevice),
        ]
    }

    fn any_link() -> impl Strategy<Value = Link> {
        (any::<u64>(), prop::collection::vec(any::<u8>(), 1..255))
            .prop_filter_map("not a name", |(parent, name)| {
                Some(Link { parent: Ino::new(parent), name: FileName::new(&name)? })
            })
    }

    fn any_xattrs() -> impl Strategy<Value = Vec<Xattr>> {
        let bytes = || prop::collection::vec(any::<u8>(), 1..40);
        prop::collection::btree_map(bytes(), bytes(), 0..4).prop_map(|xattrs| {
            xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect()
        })
    }

    fn any_inode(size_bytes: u64) -> impl Strategy<Value = InodeState> {
        let numbers = (any::<u64>(), 0_u16..0o10000, any::<u32>(), any::<u32>(), any::<u32>());
        let times = (any_time(), any_time(), any_time(), any_time(), any::<u64>());
        let links = prop::collection::vec(any_link(), 0..3);
        (numbers, any_kind(), times, links, any_xattrs()).prop_map(
            move |((ino, mode, uid, gid, nlink), kind, times, links, xattrs)| {
                let (accessed, modified, changed, created, xid) = times;
                let (ino, xid) = (Ino::new(ino), Xid::new(xid));
                let attr = FileAttr {
                    ino,
                    kind,
                    mode,
                    uid,
                    gid,
                    nlink,
                    size_bytes,
                    accessed,
                    modified,
                    changed,
                    created,
                    xid,
                };
                InodeState { attr, links, xattrs }
            },
        )
    }

    fn any_runs() -> impl Strategy<Value = Vec<Run>> {
        prop::collection::vec((0_u64..9, 1_u64..9, any::<u64>()), 0..5).prop_map(|lens| {
            let mut at = 0;
            let run = |(gap, len, xid)| {
                let start = at + gap;
                at = start + len;
                let chunks = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(at)).unwrap();
                Run { chunks, data_xid: Xid::new(xid) }
            };
            lens.into_iter().map(run).collect()
        })
    }

    fn any_member() -> impl Strategy<Value = Member> {
        let runs = (any_runs(), any_runs(), any_runs());
        let parts = (runs, any::<Option<u64>>(), any::<Option<bool>>());
        parts.prop_flat_map(|((data, holes, lost), gone, whole)| {
            let size_bytes = data.last().map_or(0, |run| run.chunks.end().get() * 512);
            let n_chunks: u64 = data.iter().map(|run| run.chunks.len()).sum();
            any_inode(size_bytes).prop_map(move |inode| Member {
                ino: inode.attr.ino,
                gone: gone.map(Xid::new),
                whole_path: (whole == Some(true)).then(|| b"directory/file".to_vec()),
                metadata: whole.is_some().then_some(inode),
                other_paths: Vec::new(),
                data: data.clone(),
                data_bytes: n_chunks * 512,
                holes: holes.clone(),
                lost: lost.clone(),
            })
        })
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(member in any_member()) {
            let mut blocks = Vec::new();
            member.append_header(CHUNK_BYTES, None, &mut blocks);
            let raw = Blocks::new(&blocks, 0).next_member().unwrap().unwrap();
            let parsed = parse_member(&raw.records, raw.header, raw.content_bytes).unwrap();
            prop_assert_eq!(raw.path.into_owned(), member.path());
            // The map of a sparse file is part of the header, and the data follows.
            let map_bytes = to_u64(blocks.len() - raw.content_at);
            prop_assert_eq!(parsed.map_bytes, map_bytes);
            // The path is not what counts, and is not read back.
            let expected = Member { whole_path: None, ..member };
            prop_assert_eq!(parsed.member, expected);
        }
    }

    /// Parses a member that has an inode number and one more record.
    fn parsed(key: &str, value: &str) -> Result<ParsedMember, &'static str> {
        let mut pax = PaxWriter::default();
        pax.number(pax::INO, 7);
        pax.add(key.as_bytes(), value.as_bytes());
        let mut blocks = Vec::new();
        append_plain_header(b"x", pax, 1024, &mut blocks);
        let raw = Blocks::new(&blocks, 0).next_member().unwrap().unwrap();
        parse_member(&raw.records, raw.header, raw.content_bytes)
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_taken_for_one_that_is_absent() {
        assert_eq!(parsed("other", "x").unwrap().map_bytes, 0);
        assert_eq!(parsed(pax::MAP_BYTES, "512").unwrap().member.data_bytes, 512);
        for (key, value) in [
            (pax::MAP_BYTES, "many"),
            (pax::MAP_BYTES, "2000"),
            (pax::GONE, "-1"),
            (pax::DATA, "3-2@9"),
            (pax::DATA, "0-2@9,1-3@9"),
            (pax::HOLES, "0-2"),
            (pax::LOST, "0-2@x"),
            (pax::XID, "5"),
        ] {
            parsed(key, value).unwrap_err();
        }
    }
}
