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

pub(crate) fn inode_to_bytes(inode: &InodePlace) -> Vec<u8> {
    let (xid, place) = inode.rank();
    encode(&WireInode { xid: xid.get(), place: place.map(place_to_wire) })
}

pub(crate) fn inode_from_bytes(bytes: &[u8]) -> Option<InodePlace> {
    let wire: WireInode = decode(bytes)?;
    let xid = Xid::new(wire.xid);
    Some(match wire.place {
        Some(place) => InodePlace::At { xid, place: place_from_wire(&place) },
        None => InodePlace::Gone { xid },
    })
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
