//! The reader of a stored tarball: any of its frames, decompressed.
//!
//! The last frame is the root, which lists the frames before it with their digests. A manifest has
//! the digest of the root, so that a tarball which a manifest lists is opened by reading one frame,
//! and then each frame must have the digest that it should. One whose manifest is lost is opened by
//! what it says itself: its own age header and its seek table. Then encryption tells whether a
//! frame is what was written, or without encryption the checksum within the frame.

use tier_index::TarballId;
use tier_types::{ByteRange, ErrorKind, HasKind, ObjectName, ObjectStore, to_u64, to_usize};

use crate::error::PersistError;
use crate::format::age::CHUNK_BYTES;
use crate::format::digest::{ContentDigest, frame_digest};
use crate::format::keys::Keys;
use crate::format::names::TarballName;
use crate::format::object::{ObjectHeader, SealedObject};
use crate::format::seekable::{self, FOOTER_BYTES, FrameSize};
use crate::format::tarball::blocks::Blocks;
use crate::format::tarball::row::{COMPRESSED_BYTES_MAX, FrameRow, TarballObject, TarballRow};
use crate::format::tarball::toc::root::{ROOT_PATH, TocRoot};

/// No tarball has so many frames: 128 MiB of the smallest ones come to less.
const TABLE_BYTES_MAX: u64 = 64 << 20;

/// What is read at a time where frames are looked for one by one.
const WALK_BYTES: u64 = 1 << 20;

/// A tarball, open for reading.
pub(crate) struct TarballReader<'a> {
    object: SealedObject<'a>,
    frames: Vec<FrameRow>,
    /// Whether the frames' digests are known from a manifest.
    trusted: bool,
}

impl<'a> TarballReader<'a> {
    /// Opens a tarball that a manifest lists: reads its root.
    pub(crate) fn of_manifest(
        store: &'a dyn ObjectStore,
        name: &ObjectName,
        tarball: &TarballObject,
        keys: &Keys,
    ) -> Result<(Self, TocRoot), PersistError> {
        let TarballObject { header, content, root, .. } = tarball;
        let object = SealedObject::with_header(store, name, header, content.len_bytes, keys)?;
        let mut reader = Self { object, frames: vec![*root], trusted: true };
        let toc = reader.parse_root(&reader.frame(0)?)?;
        reader.frames = toc.frames();
        reader.frames.push(*root);
        Ok((reader, toc))
    }

    /// Opens a tarball whose frames are known.
    pub(crate) fn with_row(
        store: &'a dyn ObjectStore,
        name: &ObjectName,
        row: &TarballRow,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let TarballObject { header, content, .. } = &row.object;
        let object = SealedObject::with_header(store, name, header, content.len_bytes, keys)?;
        // The row's word is that of a manifest, which is signed.
        Ok(Self { object, frames: row.frames.clone(), trusted: true })
    }

    /// Opens a tarball by what it says itself: header and seek table.
    pub(crate) fn open(
        store: &'a dyn ObjectStore,
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let object = SealedObject::open(store, name, keys)?;
        let frames = find_frames(&object)?;
        Ok(Self { object, frames, trusted: false })
    }

    /// The root of the tables: the last frame holds it as its only member, and the end of the
    /// archive.
    pub(crate) fn root(&self) -> Result<TocRoot, PersistError> {
        let wrong = || self.damaged("it has no table of contents");
        let last = self.n_frames().checked_sub(1).ok_or_else(wrong)?;
        self.parse_root(&self.frame(last)?)
    }

    fn parse_root(&self, frame: &[u8]) -> Result<TocRoot, PersistError> {
        let wrong = || self.damaged("it has no table of contents");
        let mut blocks = Blocks::new(frame, 0);
        let damaged = |problem| self.damaged(problem);
        let member = blocks.next_member().map_err(damaged)?.ok_or_else(wrong)?;
        let is_root = member.path.as_ref() == ROOT_PATH && member.bytes_beyond(frame.len()) == 0;
        if !is_root || blocks.next_member().map_err(damaged)?.is_some() {
            return Err(wrong());
        }
        // Nothing goes on behind the frame, so that the content lies in it.
        let (_, content) = frame.split_at(member.content_at);
        assert!(member.content_bytes <= to_u64(content.len()), "the content was seen to be here");
        let (content, _) = content.split_at(to_usize(member.content_bytes));
        TocRoot::from_bytes(content).ok_or_else(wrong)
    }

    pub(crate) fn damaged(&self, problem: &'static str) -> PersistError {
        PersistError::damaged(self.name(), problem)
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
    /// digest of the whole object, which costs reading it. `id` is the index's key for it.
    pub(crate) fn recovered_row(
        store: &dyn ObjectStore,
        name: &ObjectName,
        tarball: TarballName,
        id: TarballId,
        keys: &Keys,
    ) -> Result<TarballRow, PersistError> {
        let ObjectHeader { header, object_bytes } = ObjectHeader::read(store, name)?;
        let object = SealedObject::with_header(store, name, &header, object_bytes, keys)?;
        let frames = find_frames(&object)?;
        let reader = TarballReader { object, frames, trusted: false };
        let frames = reader.recovered_frames()?;
        let root = *frames.last().ok_or_else(|| reader.damaged("it has no frames"))?;
        let object = TarballObject {
            name: tarball,
            // Neither digest is asked of a row that no manifest commits.
            content: ContentDigest { len_bytes: object_bytes, sha256: [0; 32], crc32c: 0 },
            recipients: Vec::new(),
            n_members: 0,
            table_bytes: 0,
            root,
            header,
        };
        Ok(TarballRow { id, object, frames })
    }

    /// The frames with their digests, from the root; or, if that is damaged, from the frames
    /// themselves.
    fn recovered_frames(&self) -> Result<Vec<FrameRow>, PersistError> {
        let with_digest = |frame: &FrameRow, compressed: &[u8]| FrameRow {
            digest: frame_digest(compressed),
            ..*frame
        };
        let mut frames = match self.root() {
            Ok(root) => root.frames(),
            Err(error) if error.kind() == ErrorKind::Damaged => Vec::new(),
            Err(error) => return Err(error),
        };
        for frame in self.frames.iter().skip(frames.len()) {
            let in_object = || self.name().to_string();
            let compressed = frame.range(&in_object).and_then(|range| {
                let compressed = self.object.read(range)?;
                // Without encryption nothing but the frame's own checksum tells whether it is what
                // was written; with it, decompressing costs little beside.
                frame.decompress_unchecked(&compressed, &in_object)?;
                Ok(compressed)
            });
            // A damaged one keeps a digest that it cannot have, so that a reader hears of it.
            frames.push(match compressed {
                Ok(compressed) => with_digest(frame, &compressed),
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    tracing::debug!(name = %self.name(), %error, "a damaged frame gets no digest");
                    *frame
                }
                Err(error) => return Err(error),
            });
        }
        Ok(frames)
    }
}

/// The frames without their digests: by the seek table, or one after another from the first on if
/// that is damaged.
fn find_frames(object: &SealedObject<'_>) -> Result<Vec<FrameRow>, PersistError> {
    match read_seek_table(object) {
        Err(error) if error.kind() == ErrorKind::Damaged => {
            tracing::debug!(name = %object.name(), %error, "frames are looked for one by one");
            let frames = walk_frames(object)?;
            if frames.is_empty() { Err(error) } else { Ok(frames) }
        }
        frames => frames,
    }
}

/// The frames from the first on, up to one that is damaged. What lies behind that has a number that
/// cannot be told.
fn walk_frames(object: &SealedObject<'_>) -> Result<Vec<FrameRow>, PersistError> {
    let mut frames = Vec::new();
    let (mut offset, mut window_bytes) = (0, WALK_BYTES);
    while offset < object.plain_bytes() {
        let len = window_bytes.min(object.plain_bytes() - offset);
        let window = read_undamaged(object, ByteRange { offset, len })?;
        let mut rest = window.as_slice();
        while let Some(FrameSize { compressed, decompressed }) = seekable::frame_size(rest) {
            frames.push(FrameRow { offset, compressed, decompressed, digest: [0; 16] });
            offset += u64::from(compressed);
            (_, rest) = rest.split_at(to_usize(u64::from(compressed)));
            window_bytes = WALK_BYTES;
        }
        // A frame that is longer than the window, unless that is already as long as any frame.
        if rest.len() == window.len() {
            let longest = u64::from(COMPRESSED_BYTES_MAX);
            if window_bytes >= longest || to_u64(window.len()) < len {
                break;
            }
            window_bytes = longest;
        }
    }
    Ok(frames)
}

/// Plaintext from the start of a range to the first piece of it that is damaged.
fn read_undamaged(object: &SealedObject<'_>, range: ByteRange) -> Result<Vec<u8>, PersistError> {
    let mut read = Vec::new();
    while to_u64(read.len()) < range.len {
        let offset = range.offset + to_u64(read.len());
        // Up to where the next piece of the encryption begins: each opens by itself.
        let piece_bytes = to_u64(CHUNK_BYTES) - offset % to_u64(CHUNK_BYTES);
        let len = piece_bytes.min(range.len - to_u64(read.len()));
        match object.read(ByteRange { offset, len }) {
            Err(error) if error.kind() == ErrorKind::Damaged => break,
            piece => read.extend(piece?),
        }
    }
    Ok(read)
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
    if table_bytes > TABLE_BYTES_MAX {
        return Err(damaged("its seek table is longer than any may be"));
    }
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
