//! What a manifest keeps of a tarball: enough to fetch any frame with one ranged read, and to tell
//! whether it is the right one.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tier_index::TarballId;
use tier_types::{Epoch, SnapshotId, to_u64, to_usize};
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

use crate::error::PersistError;
use crate::format::tarball::layout::FRAME_BYTES_MAX;

/// One frame of a tarball.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameRow {
    /// Where it starts in the tarball's plaintext.
    pub(crate) offset: u64,
    pub(crate) compressed: u32,
    pub(crate) decompressed: u32,
    /// First half of the SHA-256 of the compressed frame.
    pub(crate) digest: [u8; 16],
}

/// One tarball.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TarballRow {
    pub(crate) id: TarballId,
    pub(crate) encrypted: bool,
    pub(crate) object_bytes: u64,
    pub(crate) sha256: [u8; 32],
    /// The age header with the payload nonce; empty for a tarball in clear.
    pub(crate) header: Vec<u8>,
    pub(crate) n_members: u64,
    pub(crate) frames: Vec<FrameRow>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct WireRow {
    epoch: u64,
    snapshot: u64,
    part: u32,
    encrypted: bool,
    object_bytes: u64,
    sha256: [u8; 32],
    header: Vec<u8>,
    n_members: u64,
    frames: Vec<(u32, u32, [u8; 16])>,
}

impl From<&TarballRow> for WireRow {
    fn from(row: &TarballRow) -> Self {
        Self {
            epoch: row.id.epoch.get(),
            snapshot: row.id.snapshot.get(),
            part: row.id.part,
            encrypted: row.encrypted,
            object_bytes: row.object_bytes,
            sha256: row.sha256,
            header: row.header.clone(),
            n_members: row.n_members,
            frames: row.frames.iter().map(|f| (f.compressed, f.decompressed, f.digest)).collect(),
        }
    }
}

impl From<WireRow> for TarballRow {
    fn from(wire: WireRow) -> Self {
        let mut offset = 0_u64;
        let frames = wire.frames.into_iter().map(|(compressed, decompressed, digest)| {
            let frame = FrameRow { offset, compressed, decompressed, digest };
            offset = offset.saturating_add(u64::from(compressed));
            frame
        });
        Self {
            id: TarballId {
                epoch: Epoch::new(wire.epoch),
                snapshot: SnapshotId::new(wire.snapshot),
                part: wire.part,
            },
            encrypted: wire.encrypted,
            object_bytes: wire.object_bytes,
            sha256: wire.sha256,
            header: wire.header,
            n_members: wire.n_members,
            frames: frames.collect(),
        }
    }
}

impl TarballRow {
    /// The bytes that the index keeps.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&WireRow::from(self)).unwrap_or_default()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes::<WireRow>(bytes).ok().map(Self::from)
    }
}

/// The digest that a manifest keeps of a frame.
pub(crate) fn frame_digest(compressed: &[u8]) -> [u8; 16] {
    let full = digest(&SHA256, compressed);
    full.as_ref().first_chunk::<16>().copied().unwrap_or_default()
}

/// The frame's plaintext; an error that names `object` if it is not exactly this frame.
pub(crate) fn decompress(
    compressed: &[u8],
    frame: &FrameRow,
    object: &dyn Fn() -> String,
) -> Result<Vec<u8>, PersistError> {
    check_frame(compressed, frame, object)?;
    decompress_unchecked(compressed, frame.decompressed, object)
}

/// The first `len` bytes of the frame's plaintext, or all of it if it has fewer.
pub(crate) fn decompress_start(
    compressed: &[u8],
    frame: &FrameRow,
    len: usize,
    object: &dyn Fn() -> String,
) -> Result<Vec<u8>, PersistError> {
    let whole = to_usize(u64::from(frame.decompressed));
    // Ending early saves less than streaming costs if it is not early enough.
    if len >= whole - whole / 8 {
        return decompress(compressed, frame, object);
    }
    check_frame(compressed, frame, object)?;
    let damaged = || PersistError::damaged(object(), "a frame cannot be decompressed");
    let mut decoder = zstd::stream::raw::Decoder::new().map_err(|_| damaged())?;
    let mut plain = vec![0; len];
    let mut input = InBuffer::around(compressed);
    let mut output = OutBuffer::around(plain.as_mut_slice());
    while output.pos() < len {
        let before = (input.pos(), output.pos());
        decoder.run(&mut input, &mut output).map_err(|_| damaged())?;
        if before == (input.pos(), output.pos()) {
            return Err(damaged());
        }
    }
    Ok(plain)
}

fn check_frame(
    compressed: &[u8],
    frame: &FrameRow,
    object: &dyn Fn() -> String,
) -> Result<(), PersistError> {
    if frame_digest(compressed) != frame.digest {
        return Err(PersistError::damaged(object(), "a frame's digest is wrong"));
    }
    if frame.decompressed > FRAME_BYTES_MAX {
        return Err(PersistError::damaged(object(), "a frame is larger than any may be"));
    }
    Ok(())
}

/// The same for a frame whose digest is not known.
pub(crate) fn decompress_unchecked(
    compressed: &[u8],
    decompressed: u32,
    object: &dyn Fn() -> String,
) -> Result<Vec<u8>, PersistError> {
    if decompressed > FRAME_BYTES_MAX {
        return Err(PersistError::damaged(object(), "a frame is larger than any may be"));
    }
    let plain = zstd::bulk::decompress(compressed, to_usize(u64::from(decompressed)));
    let plain = plain.ok().filter(|plain| to_u64(plain.len()) == u64::from(decompressed));
    plain.ok_or_else(|| PersistError::damaged(object(), "a frame cannot be decompressed"))
}
