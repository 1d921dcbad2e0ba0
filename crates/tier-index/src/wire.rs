//! Values, converted by hand (`docs/formats/index.md`).

use serde::{Deserialize, Serialize};
use tier_types::{ChunkNo, ChunkRange, Epoch, Ino, SnapshotId, Xid};

use crate::index::Applied;
use crate::{Extent, InodePlace, Place, TarballId};

#[derive(Serialize, Deserialize)]
struct WirePlace(u64, u64, u32, u32, u32);

#[derive(Serialize, Deserialize)]
struct WireExtent {
    /// Chunks before the last one; the key holds the last.
    n_before_last: u64,
    data_xid: u64,
    place: Option<WirePlace>,
    short_bytes: u32,
}

#[derive(Serialize, Deserialize)]
struct WireInode {
    xid: u64,
    place: Option<WirePlace>,
    whole: Option<WireWhole>,
}

/// An extent from the first chunk on, in the frame of the inode's metadata.
#[derive(Serialize, Deserialize)]
struct WireWhole {
    n_before_last: u64,
    data_xid: u64,
    offset: u32,
    short_bytes: u32,
}

#[derive(Serialize, Deserialize)]
struct WireTarball<'a> {
    live_chunks: u64,
    row: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct WireApplied {
    epoch: u64,
    snapshot: u64,
    digest: [u8; 32],
}

/// Most values fit into so many bytes, and then are written without growing.
const VALUE_BYTES: usize = 64;

/// Serialising plain values into memory has no way to fail.
fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, Vec::with_capacity(VALUE_BYTES)).unwrap_or_default()
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes)
        .ok()
        .filter(|(_, rest)| rest.is_empty())
        .map(|(value, _)| value)
}

fn place_to_wire(place: Place) -> WirePlace {
    let Place { tarball: TarballId { epoch, snapshot, part }, frame, offset } = place;
    WirePlace(epoch.get(), snapshot.get(), part, frame, offset)
}

fn place_from_wire(wire: &WirePlace) -> Place {
    let WirePlace(epoch, snapshot, part, frame, offset) = *wire;
    let tarball = TarballId { epoch: Epoch::new(epoch), snapshot: SnapshotId::new(snapshot), part };
    Place { tarball, frame, offset }
}

pub(crate) fn extent_to_bytes(extent: &Extent) -> Vec<u8> {
    encode(&WireExtent {
        n_before_last: extent.chunks.len() - 1,
        data_xid: extent.data_xid.get(),
        place: extent.place.map(place_to_wire),
        short_bytes: extent.short_bytes,
    })
}

pub(crate) fn extent_from_bytes(ino: Ino, last: ChunkNo, bytes: &[u8]) -> Option<Extent> {
    let wire: WireExtent = decode(bytes)?;
    let start = last.get().checked_sub(wire.n_before_last)?;
    Some(Extent {
        ino,
        chunks: ChunkRange::new(ChunkNo::new(start), last.next())?,
        data_xid: Xid::new(wire.data_xid),
        place: wire.place.as_ref().map(place_from_wire),
        short_bytes: wire.short_bytes,
    })
}

/// `whole` lies in the frame of the metadata and begins with the first chunk.
pub(crate) fn inode_to_bytes(inode: &InodePlace, whole: Option<&Extent>) -> Vec<u8> {
    let (xid, place) = inode.rank();
    let whole = whole.map(|extent| WireWhole {
        n_before_last: extent.chunks.len() - 1,
        data_xid: extent.data_xid.get(),
        offset: extent.place.map_or(0, |place| place.offset),
        short_bytes: extent.short_bytes,
    });
    encode(&WireInode { xid: xid.get(), place: place.map(place_to_wire), whole })
}

/// What is known of an inode, with the extent that its entry holds.
pub(crate) fn inode_from_bytes(ino: Ino, bytes: &[u8]) -> Option<(InodePlace, Option<Extent>)> {
    let wire: WireInode = decode(bytes)?;
    let xid = Xid::new(wire.xid);
    let Some(place) = wire.place.as_ref().map(place_from_wire) else {
        return wire.whole.is_none().then_some((InodePlace::Gone { xid }, None));
    };
    let whole = match wire.whole {
        None => None,
        Some(whole) => Some(Extent {
            ino,
            chunks: ChunkRange::new(
                ChunkNo::new(0),
                ChunkNo::new(whole.n_before_last.checked_add(1)?),
            )?,
            data_xid: Xid::new(whole.data_xid),
            place: Some(Place { offset: whole.offset, ..place }),
            short_bytes: whole.short_bytes,
        }),
    };
    Some((InodePlace::At { xid, place }, whole))
}

pub(crate) fn tarball_to_bytes(live_chunks: u64, row: &[u8]) -> Vec<u8> {
    encode(&WireTarball { live_chunks, row })
}

pub(crate) fn tarball_from_bytes(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let wire: WireTarball<'_> = decode(bytes)?;
    Some((wire.live_chunks, wire.row))
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
