//! What is known of a tarball: enough to fetch any frame with one ranged read, and to tell whether
//! what came is that frame.
//!
//! A manifest says of each tarball what the object is and where its last frame lies, which lists
//! the others ([`super::toc::root`]): so a manifest stays small however much its tarballs hold. The
//! index keeps both together as a row, so that a recall reads neither the manifest nor the
//! tarball's own header and frame table. Frames follow each other without gaps, so that their
//! lengths are enough to know where each starts. A frame's digest is over its compressed bytes: it
//! is checked before the decompressor sees any of them.

use serde::{Deserialize, Serialize};
use tier_index::TarballId;
use tier_types::{ByteRange, Epoch, ObjectName, SnapshotId, to_u64, to_usize};
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

use crate::error::PersistError;
use crate::format::digest::{ContentDigest, frame_digest};
use crate::format::names::{self, FilesystemId, NameToken, TarballName};
use crate::format::postcard;
use crate::format::tarball::layout::FRAME_BYTES_MAX;

/// The most that a frame of [`FRAME_BYTES_MAX`] can come to when it does not compress.
pub(crate) const COMPRESSED_BYTES_MAX: u32 = FRAME_BYTES_MAX + (FRAME_BYTES_MAX >> 8) + 1024;

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

/// A tarball as an object, as its manifest says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TarballObject {
    pub(crate) name: TarballName,
    pub(crate) content: ContentDigest,
    /// The age header with the payload nonce; empty for a tarball in clear.
    pub(crate) header: Vec<u8>,
    /// Short names of the recipients that it is encrypted for.
    pub(crate) recipients: Vec<[u8; 8]>,
    pub(crate) n_members: u64,
    /// The last frame, which lists those before it.
    pub(crate) root: FrameRow,
    /// Compressed bytes of the table of contents, with the root.
    pub(crate) table_bytes: u64,
}

/// A tarball with its frames, as the index keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TarballRow {
    /// The index's key for it: that of its name, unless another tarball has the same.
    pub(crate) id: TarballId,
    pub(crate) object: TarballObject,
    /// All frames, the last one included.
    pub(crate) frames: Vec<FrameRow>,
}

/// What is known of a frame besides where it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct WireFrame {
    compressed: u32,
    decompressed: u32,
    digest: [u8; 16],
}

/// A frame with its place.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WireRoot {
    offset: u64,
    frame: WireFrame,
}

#[derive(Serialize, Deserialize)]
struct WireRow {
    id: WireId,
    name: WireId,
    token: [u8; 8],
    encrypted: bool,
    object_bytes: u64,
    sha256: [u8; 32],
    crc32c: u32,
    header: Vec<u8>,
    recipients: Vec<[u8; 8]>,
    n_members: u64,
    root: WireRoot,
    table_bytes: u64,
    frames: Vec<WireFrame>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct WireId {
    epoch: u64,
    snapshot: u64,
    part: u32,
}

impl From<TarballId> for WireId {
    fn from(id: TarballId) -> Self {
        Self { epoch: id.epoch.get(), snapshot: id.snapshot.get(), part: id.part }
    }
}

impl From<WireId> for TarballId {
    fn from(wire: WireId) -> Self {
        let WireId { epoch, snapshot, part } = wire;
        Self { epoch: Epoch::new(epoch), snapshot: SnapshotId::new(snapshot), part }
    }
}

impl From<&FrameRow> for WireFrame {
    fn from(frame: &FrameRow) -> Self {
        let FrameRow { compressed, decompressed, digest, .. } = *frame;
        Self { compressed, decompressed, digest }
    }
}

impl WireFrame {
    /// The frame, if it starts here.
    fn at(self, offset: u64) -> FrameRow {
        let Self { compressed, decompressed, digest } = self;
        FrameRow { offset, compressed, decompressed, digest }
    }
}

impl From<&FrameRow> for WireRoot {
    fn from(frame: &FrameRow) -> Self {
        Self { offset: frame.offset, frame: WireFrame::from(frame) }
    }
}

impl From<WireRoot> for FrameRow {
    fn from(wire: WireRoot) -> Self {
        wire.frame.at(wire.offset)
    }
}

/// Frames that follow each other from the start of the tarball.
pub(crate) fn place_frames(frames: impl IntoIterator<Item = WireFrame>) -> Vec<FrameRow> {
    // Cannot overflow: there are fewer frames than bytes in what lists them, of 32 bits each.
    let mut offset = 0_u64;
    let place = |frame: WireFrame| {
        let frame = frame.at(offset);
        offset += u64::from(frame.compressed);
        frame
    };
    frames.into_iter().map(place).collect()
}

impl TarballObject {
    /// The name of the object.
    pub(crate) fn object_name(&self, filesystem: FilesystemId) -> ObjectName {
        names::tarball_name(filesystem, self.name)
    }
}

/// Version of the row's bytes, which stands before them.
const ROW_VERSION: u8 = 1;

impl TarballRow {
    /// A tarball under its own number, with the frames that its root lists before itself.
    pub(crate) fn new(object: TarballObject, mut frames: Vec<FrameRow>) -> Self {
        frames.push(object.root);
        Self { id: object.name.id, object, frames }
    }

    /// The bytes that the index keeps.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self { id, object, frames } = self;
        let mut out = vec![ROW_VERSION];
        let wire = WireRow {
            id: WireId::from(*id),
            name: WireId::from(object.name.id),
            token: object.name.token.0,
            encrypted: object.name.encrypted,
            object_bytes: object.content.len_bytes,
            sha256: object.content.sha256,
            crc32c: object.content.crc32c,
            header: object.header.clone(),
            recipients: object.recipients.clone(),
            n_members: object.n_members,
            root: WireRoot::from(&object.root),
            table_bytes: object.table_bytes,
            frames: frames.iter().map(WireFrame::from).collect(),
        };
        postcard::append(&wire, &mut out);
        out
    }

    /// From the bytes that the index keeps; `None` if they are none, or of another version.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, bytes) = bytes.split_first()?;
        (*version == ROW_VERSION).then_some(())?;
        let wire: WireRow = postcard::parse(bytes)?;
        let (id, token) = (wire.name.into(), NameToken(wire.token));
        let object = TarballObject {
            name: TarballName { id, token, encrypted: wire.encrypted },
            content: ContentDigest {
                len_bytes: wire.object_bytes,
                sha256: wire.sha256,
                crc32c: wire.crc32c,
            },
            header: wire.header,
            recipients: wire.recipients,
            n_members: wire.n_members,
            root: wire.root.into(),
            table_bytes: wire.table_bytes,
        };
        Some(Self { id: wire.id.into(), object, frames: place_frames(wire.frames) })
    }

    /// The name of the object.
    pub(crate) fn object_name(&self, filesystem: FilesystemId) -> ObjectName {
        self.object.object_name(filesystem)
    }
}

impl FrameRow {
    /// Where the compressed frame lies in the tarball's plaintext; an error that names `object` if
    /// no frame has this size. To be asked before anything of that size is allocated.
    pub(crate) fn range(&self, object: &dyn Fn() -> String) -> Result<ByteRange, PersistError> {
        if self.compressed > COMPRESSED_BYTES_MAX || self.decompressed > FRAME_BYTES_MAX {
            return Err(PersistError::damaged(object(), "a frame is larger than any may be"));
        }
        Ok(ByteRange { offset: self.offset, len: u64::from(self.compressed) })
    }

    /// The frame's plaintext, which is whole; an error that names `object` if the bytes are not
    /// exactly this frame.
    pub(crate) fn decompress(
        &self,
        compressed: &[u8],
        object: &dyn Fn() -> String,
    ) -> Result<Vec<u8>, PersistError> {
        self.check_digest(compressed, object)?;
        self.decompress_unchecked(compressed, object)
    }

    /// The same for a frame whose digest is not known.
    pub(crate) fn decompress_unchecked(
        &self,
        compressed: &[u8],
        object: &dyn Fn() -> String,
    ) -> Result<Vec<u8>, PersistError> {
        // The decompressor allocates as much as the row says, so that the limit comes first.
        self.range(object)?;
        // The length is a limit for the decompressor, and must be reached.
        zstd::bulk::decompress(compressed, self.decompressed_bytes())
            .ok()
            .filter(|plain| plain.len() == self.decompressed_bytes())
            .ok_or_else(|| PersistError::damaged(object(), "a frame cannot be decompressed"))
    }

    /// The first `len` bytes of the frame's plaintext, or all of it if it has fewer.
    pub(crate) fn decompress_start(
        &self,
        compressed: &[u8],
        len: usize,
        object: &dyn Fn() -> String,
    ) -> Result<Vec<u8>, PersistError> {
        let whole = self.decompressed_bytes();
        // Ending early saves less than streaming costs if it is not early enough.
        if len >= whole - whole / 8 {
            return self.decompress(compressed, object);
        }
        self.range(object)?;
        // The frame's own checksum is at its end, which is not reached: the digest takes its place.
        self.check_digest(compressed, object)?;
        let damaged = || PersistError::damaged(object(), "a frame cannot be decompressed");
        let mut decoder = zstd::stream::raw::Decoder::new().map_err(|_| damaged())?;
        // Shorter than the frame, whose length was compared with the limit above.
        let mut plain = vec![0; len];
        let mut input = InBuffer::around(compressed);
        let mut output = OutBuffer::around(plain.as_mut_slice());
        while output.pos() < len {
            let before = (input.pos(), output.pos());
            decoder.run(&mut input, &mut output).map_err(|_| damaged())?;
            // The frame ends before its row says so: what it lacks must not read as zeros.
            if before == (input.pos(), output.pos()) {
                return Err(damaged());
            }
        }
        Ok(plain)
    }

    /// Length of the frame as it is stored.
    pub(crate) fn compressed_bytes(&self) -> usize {
        to_usize(u64::from(self.compressed))
    }

    /// Length of the frame's plaintext.
    pub(crate) fn decompressed_bytes(&self) -> usize {
        to_usize(u64::from(self.decompressed))
    }

    pub(crate) fn check_digest(
        &self,
        compressed: &[u8],
        object: &dyn Fn() -> String,
    ) -> Result<(), PersistError> {
        // Before a decompressor sees any of it.
        let right = to_u64(compressed.len()) == u64::from(self.compressed)
            && frame_digest(compressed) == self.digest;
        if right {
            return Ok(());
        }
        Err(PersistError::damaged(object(), "a frame's digest is wrong"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::compress::FrameCompressor;

    fn frame(plain: &[u8]) -> (FrameRow, Vec<u8>) {
        let bytes = FrameCompressor::new(3).unwrap().frame(plain).unwrap();
        let row = FrameRow {
            offset: 0,
            compressed: u32::try_from(bytes.len()).unwrap(),
            decompressed: u32::try_from(plain.len()).unwrap(),
            digest: frame_digest(&bytes),
        };
        (row, bytes)
    }

    fn object() -> String {
        "x in frame 0".into()
    }

    fn is_damage<T>(result: Result<T, PersistError>) -> bool {
        result.is_err_and(|error| matches!(error, PersistError::Damaged { .. }))
    }

    #[test]
    fn any_start_of_a_frame_is_decompressed() {
        let plain: Vec<u8> = (0..40_000).flat_map(|n: u32| n.to_le_bytes()).collect();
        let (row, bytes) = frame(&plain);
        for len in [0, 1, 1000, plain.len() / 2, plain.len() - 1, plain.len(), usize::MAX] {
            let start = row.decompress_start(&bytes, len, &object).unwrap();
            assert!(start.len() >= len.min(plain.len()) && start == plain[..start.len()], "{len}");
        }
    }

    #[test]
    fn a_frame_that_is_shorter_than_its_row_says_is_damage_and_never_zeros() {
        let (row, bytes) = frame(&[7; 5000]);
        let longer = FrameRow { decompressed: 90_000, ..row };
        for len in [5001, 60_000, 90_000] {
            assert!(is_damage(longer.decompress_start(&bytes, len, &object)), "{len}");
        }
        assert!(is_damage(longer.decompress(&bytes, &object)));
        let shorter = FrameRow { decompressed: 4000, ..row };
        assert!(is_damage(shorter.decompress(&bytes, &object)));
    }

    #[test]
    fn another_frame_or_one_of_an_impossible_size_is_damage() {
        let (row, bytes) = frame(&[7; 5000]);
        let (_, other) = frame(&[8; 5000]);
        assert!(is_damage(row.decompress(&other, &object)));
        assert!(is_damage(row.decompress(&bytes[1..], &object)));
        let huge = FrameRow { decompressed: u32::MAX, ..row };
        assert!(is_damage(huge.decompress_start(&bytes, 10, &object)));
        let huge = FrameRow { compressed: u32::MAX, ..row };
        assert!(is_damage(huge.range(&object)));
    }

    #[test]
    fn a_row_survives_a_round_trip_and_another_version_is_none() {
        let id = TarballId { epoch: Epoch::new(1), snapshot: SnapshotId::new(2), part: 3 };
        let (first, bytes) = frame(&[7; 5000]);
        let second = FrameRow { offset: u64::from(first.compressed), ..first };
        let root = FrameRow { offset: 2 * second.offset, ..first };
        let object = TarballObject {
            name: TarballName { id, token: NameToken([9; 8]), encrypted: true },
            content: ContentDigest::of(&bytes),
            header: vec![1, 2],
            recipients: vec![[4; 8]],
            n_members: 4,
            root,
            table_bytes: 5,
        };
        let row = TarballRow::new(object, vec![first, second]);
        assert_eq!(TarballRow::from_bytes(&row.to_bytes()), Some(row.clone()));
        let renumbered = TarballRow { id: TarballId { part: 4, ..id }, ..row.clone() };
        assert_eq!(TarballRow::from_bytes(&renumbered.to_bytes()), Some(renumbered));
        let mut later = row.to_bytes();
        later[0] += 1;
        assert_eq!(TarballRow::from_bytes(&later), None);
        assert_eq!(TarballRow::from_bytes(b"no row"), None);
    }
}
