//! Values of the tables as bytes (`docs/formats/index.md`).
//!
//! The wire types are private to this module and converted by hand from and to the values. Decoding
//! says `None` to bytes that are too short, too long, or say what cannot be; the caller knows which
//! row it was. What depends on the size of a chunk is checked by the caller too.

use serde::{Deserialize, Serialize};
use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, SnapshotId, Xid};

use crate::location::{Extent, ExtentContent, InodeLocation, Location, StoredData, TarballId};
use crate::rows::{Applied, IndexedTarball, InodeRow};

/// Epoch, snapshot, part, frame, offset.
#[derive(Serialize, Deserialize)]
struct WireLocation(u64, u64, u32, u32, u32);

#[derive(Serialize, Deserialize)]
struct WireExtent {
    /// Chunks before the last one; the key holds the last.
    n_before_last: u64,
    data_xid: u64,
    content: WireContent,
}

#[derive(Serialize, Deserialize)]
enum WireContent {
    Hole,
    Lost,
    /// Location, and bytes by which the last chunk is short.
    Data(WireLocation, u32),
}

#[derive(Serialize, Deserialize)]
struct WireInode {
    xid: u64,
    location: Option<WireLocation>,
    inline: Option<WireInline>,
}

/// An extent from the first chunk on, in the frame of the inode's metadata.
#[derive(Serialize, Deserialize)]
struct WireInline {
    n_before_last: u64,
    data_xid: u64,
    offset: u32,
    short_bytes: u32,
}

#[derive(Serialize, Deserialize)]
struct WireTarball<'a> {
    live_chunks: u64,
    reader_row: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct WireApplied {
    epoch: u64,
    snapshot: u64,
    digest: [u8; 32],
}

/// Most values fit into so many bytes, and then are written without growing.
const VALUE_BYTES: usize = 64;

#[expect(clippy::expect_used, reason = "plain values are serialised into memory")]
fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, Vec::with_capacity(VALUE_BYTES))
        .expect("serialising into memory cannot fail")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes)
        .ok()
        // A decoder of postcard stops behind the value: what follows was never written with it.
        .filter(|(_, rest)| rest.is_empty())
        .map(|(value, _)| value)
}

fn location_to_wire(location: Location) -> WireLocation {
    let Location { tarball: TarballId { epoch, snapshot, part }, frame, offset } = location;
    WireLocation(epoch.get(), snapshot.get(), part, frame, offset)
}

fn location_from_wire(wire: &WireLocation) -> Location {
    let WireLocation(epoch, snapshot, part, frame, offset) = *wire;
    let tarball = TarballId { epoch: Epoch::new(epoch), snapshot: SnapshotId::new(snapshot), part };
    Location { tarball, frame, offset }
}

pub(crate) fn extent_to_bytes(extent: &Extent) -> Vec<u8> {
    encode(&WireExtent {
        // Not the length: no bytes can then say that an extent is empty.
        n_before_last: extent.chunks.len() - 1,
        data_xid: extent.data_xid.get(),
        content: match extent.content {
            ExtentContent::Hole => WireContent::Hole,
            ExtentContent::Lost => WireContent::Lost,
            ExtentContent::Data(StoredData { location, short_bytes }) => {
                WireContent::Data(location_to_wire(location), short_bytes)
            }
        },
    })
}

pub(crate) fn extent_from_bytes(ino: Ino, last: ChunkNo, bytes: &[u8]) -> Option<Extent> {
    let wire: WireExtent = decode(bytes)?;
    let start = last.get().checked_sub(wire.n_before_last)?;
    // No chunk has the number behind all others.
    let end = last.get().checked_add(1)?;
    Some(Extent {
        ino,
        chunks: ChunkRange::new(ChunkNo::new(start), ChunkNo::new(end))?,
        data_xid: Xid::new(wire.data_xid),
        content: match wire.content {
            WireContent::Hole => ExtentContent::Hole,
            WireContent::Lost => ExtentContent::Lost,
            WireContent::Data(location, short_bytes) => {
                let location = location_from_wire(&location);
                ExtentContent::Data(StoredData { location, short_bytes })
            }
        },
    })
}

/// # Panics
/// If an inline extent does not begin with the first chunk, in the frame of the metadata.
pub(crate) fn inode_to_bytes(row: &InodeRow) -> Vec<u8> {
    let (xid, metadata) = row.newest.rank();
    let inline = row.inline.map(|extent| inline_to_wire(&extent, metadata));
    encode(&WireInode { xid: xid.get(), location: metadata.map(location_to_wire), inline })
}

#[expect(clippy::expect_used, reason = "the merge makes inline what has a location")]
fn inline_to_wire(extent: &Extent, metadata: Option<Location>) -> WireInline {
    let StoredData { location, short_bytes } = extent.data().expect("an inline extent is data");
    let together = metadata.is_some_and(|metadata| {
        (metadata.tarball, metadata.frame) == (location.tarball, location.frame)
    });
    assert!(together, "an inline extent lies in the frame of the metadata");
    assert_eq!(extent.chunks.start(), ChunkNo::new(0), "it begins with the first chunk");
    WireInline {
        n_before_last: extent.chunks.len() - 1,
        data_xid: extent.data_xid.get(),
        offset: location.offset,
        short_bytes,
    }
}

pub(crate) fn inode_from_bytes(ino: Ino, bytes: &[u8]) -> Option<InodeRow> {
    let wire: WireInode = decode(bytes)?;
    let xid = Xid::new(wire.xid);
    let Some(location) = wire.location.as_ref().map(location_from_wire) else {
        let gone = InodeRow { newest: InodeLocation::Gone { xid }, inline: None };
        // An inode that is gone has no data: a row that says both is damaged.
        return wire.inline.is_none().then_some(gone);
    };
    let inline = match wire.inline {
        Some(inline) => Some(inline_from_wire(ino, &inline, location)?),
        None => None,
    };
    Some(InodeRow { newest: InodeLocation::At { xid, location }, inline })
}

fn inline_from_wire(ino: Ino, wire: &WireInline, metadata: Location) -> Option<Extent> {
    let end = ChunkNo::new(wire.n_before_last.checked_add(1)?);
    // Tarball and frame are those of the metadata, which is why the row need not hold them twice.
    let location = Location { offset: wire.offset, ..metadata };
    Some(Extent {
        ino,
        chunks: ChunkRange::new(ChunkNo::new(0), end)?,
        data_xid: Xid::new(wire.data_xid),
        content: ExtentContent::Data(StoredData { location, short_bytes: wire.short_bytes }),
    })
}

pub(crate) fn tarball_to_bytes(tarball: &IndexedTarball) -> Vec<u8> {
    let IndexedTarball { live_chunks, reader_row } = tarball;
    encode(&WireTarball { live_chunks: *live_chunks, reader_row })
}

pub(crate) fn tarball_from_bytes(bytes: &[u8]) -> Option<IndexedTarball> {
    let wire: WireTarball<'_> = decode(bytes)?;
    Some(IndexedTarball { live_chunks: wire.live_chunks, reader_row: wire.reader_row.to_vec() })
}

pub(crate) fn applied_to_bytes(applied: &Applied) -> Vec<u8> {
    encode(&WireApplied {
        epoch: applied.epoch.get(),
        snapshot: applied.snapshot.get(),
        digest: applied.manifest_digest,
    })
}

pub(crate) fn applied_from_bytes(bytes: &[u8]) -> Option<Applied> {
    let wire: WireApplied = decode(bytes)?;
    Some(Applied {
        epoch: Epoch::new(wire.epoch),
        snapshot: SnapshotId::new(wire.snapshot),
        manifest_digest: wire.digest,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key;

    fn location() -> impl Strategy<Value = Location> {
        (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
            |(epoch, snapshot, part, frame, offset)| {
                let (epoch, snapshot) = (Epoch::new(epoch), SnapshotId::new(snapshot));
                Location { tarball: TarballId { epoch, snapshot, part }, frame, offset }
            },
        )
    }

    fn content() -> impl Strategy<Value = ExtentContent> {
        let data = (location(), any::<u32>());
        prop_oneof![
            Just(ExtentContent::Hole),
            Just(ExtentContent::Lost),
            data.prop_map(|(location, short_bytes)| {
                ExtentContent::Data(StoredData { location, short_bytes })
            }),
        ]
    }

    fn extent() -> impl Strategy<Value = Extent> {
        let numbers = (any::<u64>(), 0..1_000_000_u64, 1..1000_u64, any::<u64>());
        (numbers, content()).prop_map(|((ino, start, len, data_xid), content)| {
            let chunks = ChunkRange::new(ChunkNo::new(start), ChunkNo::new(start + len)).unwrap();
            Extent { ino: Ino::new(ino), chunks, data_xid: Xid::new(data_xid), content }
        })
    }

    proptest! {
        #[test]
        fn an_extent_is_read_back(extent in extent()) {
            let key = key::extent(extent.ino, extent.chunks.last());
            let (ino, last) = key::parse_extent(&key).unwrap();
            let read = extent_from_bytes(ino, last, &extent_to_bytes(&extent));
            prop_assert_eq!(read, Some(extent));
        }

        #[test]
        fn an_inode_is_read_back(
            xid in any::<u64>(),
            extent in extent(),
            at in location(),
            (offset, short_bytes) in any::<(u32, u32)>(),
        ) {
            let (xid, ino) = (Xid::new(xid), extent.ino);
            let end = ChunkNo::new(extent.chunks.len());
            let chunks = ChunkRange::new(ChunkNo::new(0), end).unwrap();
            let location = Location { offset, ..at };
            let content = ExtentContent::Data(StoredData { location, short_bytes });
            let inline = Some(Extent { chunks, content, ..extent });
            let newest = InodeLocation::At { xid, location: at };
            let gone = InodeLocation::Gone { xid };
            for row in [
                InodeRow { newest, inline },
                InodeRow { newest, inline: None },
                InodeRow { newest: gone, inline: None },
            ] {
                prop_assert_eq!(inode_from_bytes(ino, &inode_to_bytes(&row)), Some(row));
            }
        }

        #[test]
        fn a_tarball_and_its_key_are_read_back(
            at in location(),
            live_chunks in any::<u64>(),
            reader_row in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            prop_assert_eq!(key::parse_tarball(&key::tarball(at.tarball)), Some(at.tarball));
            let tarball = IndexedTarball { live_chunks, reader_row };
            prop_assert_eq!(tarball_from_bytes(&tarball_to_bytes(&tarball)), Some(tarball));
        }

        #[test]
        fn any_bytes_are_a_value_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let (ino, last) = (Ino::new(1), ChunkNo::new(u64::MAX));
            let _ = extent_from_bytes(ino, last, &bytes);
            let _ = inode_from_bytes(ino, &bytes);
            let _ = (tarball_from_bytes(&bytes), applied_from_bytes(&bytes));
            let _ = (key::parse_extent(&bytes), key::parse_inode(&bytes), key::parse_tarball(&bytes));
        }
    }

    #[test]
    fn what_cannot_be_is_none() {
        let (epoch, snapshot) = (Epoch::new(1), SnapshotId::new(2));
        let applied = Applied { epoch, snapshot, manifest_digest: [7; 32] };
        let bytes = applied_to_bytes(&applied);
        assert_eq!(applied_from_bytes(&bytes), Some(applied));
        assert_eq!(applied_from_bytes(&bytes[..bytes.len() - 1]), None, "too short");
        assert_eq!(applied_from_bytes(&[&bytes[..], b"x"].concat()), None, "too long");
        let chunks = ChunkRange::new(ChunkNo::new(3), ChunkNo::new(9)).unwrap();
        let hole = Extent {
            ino: Ino::new(1),
            chunks,
            data_xid: Xid::new(4),
            content: ExtentContent::Hole,
        };
        let bytes = extent_to_bytes(&hole);
        assert_eq!(extent_from_bytes(hole.ino, ChunkNo::new(4), &bytes), None, "before chunk 0");
        assert_eq!(extent_from_bytes(hole.ino, ChunkNo::END, &bytes), None, "beyond the last");
        let inline = WireInline { n_before_last: 0, data_xid: 1, offset: 2, short_bytes: 3 };
        let gone = encode(&WireInode { xid: 1, location: None, inline: Some(inline) });
        assert_eq!(inode_from_bytes(Ino::new(1), &gone), None, "an inode that is gone has no data");
    }
}
