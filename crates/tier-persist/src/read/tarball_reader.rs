//! The reader of a stored tarball: any of its frames, decompressed.
//!
//! A tarball that a manifest lists is opened by its row, and each frame must have the digest that
//! the row gives it. One whose manifest is lost is opened by what it says itself: its own age
//! header and its seek table. Then encryption tells whether a frame is what was written, or without
//! encryption the checksum within the frame.

use tier_index::TarballId;
use tier_types::{ByteRange, ErrorKind, HasKind, ObjectName, ObjectStore, to_u64, to_usize};

use crate::error::PersistError;
use crate::format::digest::frame_digest;
use crate::format::keys::Keys;
use crate::format::object::{ObjectHeader, SealedObject};
use crate::format::seekable::{self, FOOTER_BYTES};
use crate::format::tarball::row::{FrameRow, TarballRow};

/// A tarball, open for reading.
pub(crate) struct TarballReader<'a> {
    object: SealedObject<'a>,
    frames: Vec<FrameRow>,
    /// Whether the frames' digests are known from a manifest.
    trusted: bool,
}

impl<'a> TarballReader<'a> {
    /// Opens a tarball that a manifest lists.
    pub(crate) fn with_row(
        store: &'a dyn ObjectStore,
        name: &ObjectName,
        row: &TarballRow,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let object = SealedObject::with_header(store, name, &row.header, row.object_bytes, keys)?;
        // The row's word is the manifest's, which is signed.
        Ok(Self { object, frames: row.frames.clone(), trusted: true })
    }

    /// Opens a tarball by what it says itself: header and seek table.
    pub(crate) fn open(
        store: &'a dyn ObjectStore,
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let object = SealedObject::open(store, name, keys)?;
        let frames = read_seek_table(&object)?;
        Ok(Self { object, frames, trusted: false })
    }

    /// How many frames there are.
    #[expect(clippy::expect_used, reason = "rows and seek tables have lengths that hold fewer")]
    pub(crate) fn n_frames(&self) -> u32 {
        u32::try_from(self.frames.len()).expect("there are fewer than 2^32 frames")
    }

    /// Decompressed content of one frame.
    pub(crate) fn frame(&self, number: u32) -> Result<Vec<u8>, PersistError> {
        let object = || format!("{} in frame {number}", self.object.name());
        let frame = self
            .frames
            .get(to_usize(u64::from(number)))
            .ok_or_else(|| PersistError::damaged(object(), "no such frame"))?;
        let compressed = match self.object.read(frame.range(&object)?) {
            Ok(compressed) => compressed,
            // Said of the frame, not of the bytes in which it lies.
            Err(PersistError::Damaged { problem, .. }) => {
                return Err(PersistError::damaged(object(), problem));
            }
            Err(error) => return Err(error),
        };
        if self.trusted {
            frame.decompress(&compressed, &object)
        } else {
            frame.decompress_unchecked(&compressed, &object)
        }
    }

    pub(crate) fn name(&self) -> &ObjectName {
        self.object.name()
    }

    /// The row of a tarball whose manifest is lost, as far as it can be told: everything but the
    /// digest of the whole object, which costs reading it.
    pub(crate) fn recovered_row(
        store: &dyn ObjectStore,
        name: &ObjectName,
        id: TarballId,
        keys: &Keys,
    ) -> Result<TarballRow, PersistError> {
        let ObjectHeader { header, object_bytes } = ObjectHeader::read(store, name)?;
        let encrypted = !header.is_empty();
        let object = SealedObject::with_header(store, name, &header, object_bytes, keys)?;
        // A row has digests, and nothing else knows them: every frame is read once for that.
        let mut frames = read_seek_table(&object)?;
        for frame in &mut frames {
            let in_object = || name.to_string();
            let compressed = frame.range(&in_object).and_then(|range| {
                let compressed = object.read(range)?;
                // Without encryption nothing but the frame's own checksum tells whether it is what
                // was written.
                if !encrypted {
                    frame.decompress_unchecked(&compressed, &in_object)?;
                }
                Ok(compressed)
            });
            // A damaged one keeps a digest that it cannot have, so that a reader hears of it.
            match compressed {
                Ok(compressed) => frame.digest = frame_digest(&compressed),
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    tracing::debug!(%name, %error, "a damaged frame gets no digest");
                }
                Err(error) => return Err(error),
            }
        }
        // Neither is asked of a row that no manifest commits.
        let sha256 = [0; 32];
        Ok(TarballRow { id, encrypted, object_bytes, sha256, header, n_members: 0, frames })
    }
}

/// The frames as the seek table at the end of the plaintext lists them, without digests.
fn read_seek_table(object: &SealedObject<'_>) -> Result<Vec<FrameRow>, PersistError> {
    let damaged = |problem| PersistError::damaged(object.name(), problem);
    let total = object.plain_bytes();
    let footer_bytes = to_u64(FOOTER_BYTES);
    let footer_at = total.checked_sub(footer_bytes).ok_or_else(|| damaged("it is too short"))?;
    let end = object.read(ByteRange { offset: footer_at, len: footer_bytes })?;
    let footer = end.first_chunk().ok_or_else(|| damaged("it is too short"))?;
    let table_bytes = seekable::table_len(footer).map_err(damaged)?;
    // The footer may be damaged: the length that it gives is compared with the object's before
    // memory is taken for so much.
    let table_at = total
        .checked_sub(table_bytes)
        .ok_or_else(|| damaged("its seek table is longer than itself"))?;
    let table = object.read(ByteRange { offset: table_at, len: table_bytes })?;
    // The frames are all there is before the table, and nothing lies between them.
    let mut offset = 0;
    let mut frames = Vec::new();
    for size in seekable::decode(&table).map_err(damaged)? {
        let (compressed, decompressed) = (size.compressed, size.decompressed);
        frames.push(FrameRow { offset, compressed, decompressed, digest: [0; 16] });
        offset += u64::from(compressed);
    }
    if offset == table_at { Ok(frames) } else { Err(damaged("its seek table does not add up")) }
}
