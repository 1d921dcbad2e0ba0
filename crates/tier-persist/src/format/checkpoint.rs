//! The contents of a checkpoint: inodes as an index knows them, with their metadata, and the steps
//! of the history up to it (`docs/formats/manifest.md`).
//!
//! Content is a version and values, each with its length in front, so that one of a later version
//! can be gone past.

use serde::{Deserialize, Serialize};
use tier_index::{
    Extent, ExtentContent, InodeLocation, InodeRecord, Location, StoredData, TarballId,
};
use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, InodeState, SnapshotId, Xid};

use crate::format::postcard;
use crate::format::tarball::toc::inode::WireInode;
use crate::format::tarball::toc::piece::{less, more};

const VERSION: u8 = 1;

/// What a checkpoint says of an inode, or of a part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CheckpointInode {
    pub(crate) record: InodeRecord,
    /// Its newest metadata; `None` where only the tarball has it.
    pub(crate) metadata: Option<InodeState>,
}

/// A step of the history with what the index keeps of it and of its tarballs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct CheckpointStep {
    pub(crate) link: Vec<u8>,
    pub(crate) tarballs: Vec<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct WireRecord<'a> {
    ino: u64,
    #[serde(borrow)]
    newest: WireNewest<'a>,
    extents: Vec<WireExtent>,
}

#[derive(Serialize, Deserialize)]
enum WireNewest<'a> {
    Unknown,
    /// Transaction less the inode number.
    Gone(i64),
    /// The same, location, metadata.
    At(i64, WireLocation, #[serde(borrow)] Option<WireInode<'a>>),
}

#[derive(Serialize, Deserialize)]
struct WireLocation {
    epoch: u64,
    snapshot: u64,
    part: u32,
    frame: u32,
    offset: u32,
}

#[derive(Serialize, Deserialize)]
struct WireExtent {
    start: u64,
    /// Chunks before the last one.
    n_before_last: u64,
    /// Less the inode number.
    data_xid: i64,
    content: WireContent,
}

#[derive(Serialize, Deserialize)]
enum WireContent {
    Hole,
    Lost,
    /// Location, and bytes by which the last chunk is short.
    Data(WireLocation, u32),
}

/// Content without any value yet.
pub(crate) fn begin() -> Vec<u8> {
    vec![VERSION]
}

pub(crate) fn append_inode(inode: &CheckpointInode, content: &mut Vec<u8>) {
    let CheckpointInode { record: InodeRecord { ino, newest, extents }, metadata } = inode;
    let newest = match newest {
        None => WireNewest::Unknown,
        Some(InodeLocation::Gone { xid }) => WireNewest::Gone(less(xid.get(), *ino)),
        Some(InodeLocation::At { xid, location }) => WireNewest::At(
            less(xid.get(), *ino),
            WireLocation::from(*location),
            metadata.as_ref().map(WireInode::from),
        ),
    };
    let extents = extents.iter().map(WireExtent::from).collect();
    postcard::append_with_length(&WireRecord { ino: ino.get(), newest, extents }, content);
}

pub(crate) fn append_step(step: &CheckpointStep, content: &mut Vec<u8>) {
    postcard::append_with_length(step, content);
}

/// The inodes in some content; `None` if that cannot be.
pub(crate) fn read_inodes(content: &[u8]) -> Option<Vec<CheckpointInode>> {
    let mut rest = values(content)?;
    let mut inodes = Vec::new();
    while !rest.is_empty() {
        let (wire, behind) = postcard::take_with_length::<WireRecord<'_>>(rest)?;
        inodes.push(wire.into_inode()?);
        rest = behind;
    }
    inodes.is_sorted_by_key(|inode| inode.record.ino).then_some(inodes)
}

/// The steps in some content; `None` if that cannot be.
pub(crate) fn read_steps(content: &[u8]) -> Option<Vec<CheckpointStep>> {
    let mut rest = values(content)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, behind) = postcard::take_with_length(rest)?;
        steps.push(step);
        rest = behind;
    }
    Some(steps)
}

fn values(content: &[u8]) -> Option<&[u8]> {
    let (version, values) = content.split_first()?;
    (*version == VERSION).then_some(values)
}

impl WireRecord<'_> {
    fn into_inode(self) -> Option<CheckpointInode> {
        let ino = Ino::new(self.ino);
        let (newest, metadata) = match self.newest {
            WireNewest::Unknown => (None, None),
            WireNewest::Gone(xid) => {
                (Some(InodeLocation::Gone { xid: Xid::new(more(xid, ino)) }), None)
            }
            WireNewest::At(xid, location, metadata) => {
                let (xid, location) = (Xid::new(more(xid, ino)), Location::from(location));
                let metadata = match metadata {
                    Some(wire) => Some(wire.into_inode(ino)?),
                    None => None,
                };
                // It is the metadata of exactly that transaction.
                metadata.as_ref().is_none_or(|inode| inode.attr.xid == xid).then_some(())?;
                (Some(InodeLocation::At { xid, location }), metadata)
            }
        };
        let extents = self.extents.into_iter().map(|extent| extent.into_extent(ino));
        let extents = extents.collect::<Option<_>>()?;
        Some(CheckpointInode { record: InodeRecord { ino, newest, extents }, metadata })
    }
}

impl From<&Extent> for WireExtent {
    fn from(extent: &Extent) -> Self {
        let content = match extent.content {
            ExtentContent::Hole => WireContent::Hole,
            ExtentContent::Lost => WireContent::Lost,
            ExtentContent::Data(StoredData { location, short_bytes }) => {
                WireContent::Data(WireLocation::from(location), short_bytes)
            }
        };
        Self {
            start: extent.chunks.start().get(),
            n_before_last: extent.chunks.len() - 1,
            data_xid: less(extent.data_xid.get(), extent.ino),
            content,
        }
    }
}

impl WireExtent {
    fn into_extent(self, ino: Ino) -> Option<Extent> {
        let end = self.start.checked_add(self.n_before_last)?.checked_add(1)?;
        let chunks = ChunkRange::new(ChunkNo::new(self.start), ChunkNo::new(end))?;
        let content = match self.content {
            WireContent::Hole => ExtentContent::Hole,
            WireContent::Lost => ExtentContent::Lost,
            WireContent::Data(location, short_bytes) => {
                ExtentContent::Data(StoredData { location: location.into(), short_bytes })
            }
        };
        Some(Extent { ino, chunks, data_xid: Xid::new(more(self.data_xid, ino)), content })
    }
}

impl From<Location> for WireLocation {
    fn from(location: Location) -> Self {
        let Location { tarball: TarballId { epoch, snapshot, part }, frame, offset } = location;
        Self { epoch: epoch.get(), snapshot: snapshot.get(), part, frame, offset }
    }
}

impl From<WireLocation> for Location {
    fn from(wire: WireLocation) -> Self {
        let WireLocation { epoch, snapshot, part, frame, offset } = wire;
        let (epoch, snapshot) = (Epoch::new(epoch), SnapshotId::new(snapshot));
        Self { tarball: TarballId { epoch, snapshot, part }, frame, offset }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tier_types::{FileAttr, FileKind, Timestamp};

    use super::*;

    fn metadata(ino: Ino, xid: Xid) -> InodeState {
        let time = Timestamp { seconds: 7, nanos: 8 };
        let attr = FileAttr {
            ino,
            kind: FileKind::Symlink(b"target".to_vec()),
            mode: 0o777,
            uid: 1,
            gid: 2,
            nlink: 1,
            size_bytes: 6,
            accessed: time,
            modified: time,
            changed: time,
            created: time,
            xid,
        };
        InodeState { attr, links: Vec::new(), xattrs: Vec::new() }
    }

    fn location() -> impl Strategy<Value = Location> {
        (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
            |(epoch, snapshot, part, frame, offset)| {
                let (epoch, snapshot) = (Epoch::new(epoch), SnapshotId::new(snapshot));
                Location { tarball: TarballId { epoch, snapshot, part }, frame, offset }
            },
        )
    }

    fn content() -> impl Strategy<Value = ExtentContent> {
        prop_oneof![
            Just(ExtentContent::Hole),
            Just(ExtentContent::Lost),
            (location(), any::<u32>()).prop_map(|(location, short_bytes)| {
                ExtentContent::Data(StoredData { location, short_bytes })
            }),
        ]
    }

    fn inode() -> impl Strategy<Value = CheckpointInode> {
        let extents = prop::collection::vec((0..99_u64, 1..9_u64, any::<u64>(), content()), 0..5);
        (any::<u64>(), 0..4_u8, any::<u64>(), location(), extents).prop_map(
            |(ino, what, xid, location, extents)| {
                let (ino, xid) = (Ino::new(ino), Xid::new(xid));
                let newest = match what {
                    0 => None,
                    1 => Some(InodeLocation::Gone { xid }),
                    _ => Some(InodeLocation::At { xid, location }),
                };
                let extents = extents.into_iter().map(|(start, len, data_xid, content)| {
                    let end = ChunkNo::new(start + len);
                    let chunks = ChunkRange::new(ChunkNo::new(start), end).unwrap();
                    Extent { ino, chunks, data_xid: Xid::new(data_xid), content }
                });
                let record = InodeRecord { ino, newest, extents: extents.collect() };
                let metadata = (what == 3).then(|| metadata(ino, xid));
                CheckpointInode { record, metadata }
            },
        )
    }

    proptest! {
        #[test]
        fn inodes_survive_as_bytes_and_no_cut_of_them_is_taken(
            mut inodes in prop::collection::vec(inode(), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            inodes.sort_by_key(|inode| inode.record.ino);
            let mut content = begin();
            for inode in &inodes {
                append_inode(inode, &mut content);
            }
            prop_assert_eq!(read_inodes(&content), Some(inodes.clone()));
            // A cut between two of them is found by the length that the manifest has.
            let cut = &content[..cut.index(content.len())];
            prop_assert_ne!(read_inodes(cut), Some(inodes));
        }

        #[test]
        fn any_bytes_are_values_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            drop((read_inodes(&bytes), read_steps(&bytes)));
            let content = [&[VERSION][..], &bytes].concat();
            drop((read_inodes(&content), read_steps(&content)));
        }
    }

    #[test]
    fn steps_survive_as_bytes_and_another_version_is_none() {
        let step = CheckpointStep { link: vec![1, 2], tarballs: vec![vec![], vec![3]] };
        let mut content = begin();
        append_step(&step, &mut content);
        append_step(&step, &mut content);
        assert_eq!(read_steps(&content), Some(vec![step.clone(), step]));
        content[0] += 1;
        assert_eq!(read_steps(&content), None);
        assert_eq!(read_steps(&[]), None);
    }
}
