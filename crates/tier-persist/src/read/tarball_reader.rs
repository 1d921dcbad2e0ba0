//! Reads frames and tables of contents of a stored tarball.

use tier_types::{ErrorKind, HasKind, ObjectName, ObjectStore, to_u64, to_usize};

use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::object::{SealedObject, read_header};
use crate::format::seekable::{self, FOOTER_BYTES};
use crate::format::tarball::blocks::Blocks;
use crate::format::tarball::row::{
    FrameRow, TarballRow, decompress, decompress_unchecked, frame_digest,
};
use crate::format::tarball::toc::entry as toc;
use crate::format::tarball::toc::entry::{StoredEntry, TocRoot};

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
        Ok(Self { object, frames: row.frames.clone(), trusted: true })
    }

    /// Opens a tarball by what it says itself: header and seek table.
    pub(crate) fn open(
        store: &'a dyn ObjectStore,
        name: &ObjectName,
        keys: &Keys,
    ) -> Result<Self, PersistError> {
        let object = SealedObject::open(store, name, keys)?;
        let damaged = |problem| PersistError::damaged(name, problem);
        let total = object.plain_bytes();
        let footer_at = total.checked_sub(to_u64(FOOTER_BYTES));
        let footer_at = footer_at.ok_or_else(|| damaged("it is too short"))?;
        let footer = object.read(footer_at, FOOTER_BYTES)?;
        let footer = footer.first_chunk().ok_or_else(|| damaged("it is too short"))?;
        let table_len = seekable::table_len(footer).map_err(damaged)?;
        let table_at = total.checked_sub(table_len);
        let table_at = table_at.ok_or_else(|| damaged("its seek table is longer than itself"))?;
        let sizes = seekable::decode(&object.read(table_at, to_usize(table_len))?);
        let mut offset = 0;
        let mut frames = Vec::new();
        for size in sizes.map_err(damaged)? {
            let (compressed, decompressed) = (size.compressed, size.decompressed);
            frames.push(FrameRow { offset, compressed, decompressed, digest: [0; 16] });
            offset += u64::from(compressed);
        }
        if offset != table_at {
            return Err(damaged("its seek table does not add up"));
        }
        Ok(Self { object, frames, trusted: false })
    }

    pub(crate) fn n_frames(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// Decompressed content of one frame.
    pub(crate) fn frame(&self, number: u32) -> Result<Vec<u8>, PersistError> {
        let object = || format!("{} in frame {number}", self.object.name());
        let frame = self.frames.get(to_usize(u64::from(number)));
        let frame = frame.ok_or_else(|| PersistError::damaged(object(), "no such frame"))?;
        let compressed = self.object.read(frame.offset, to_usize(u64::from(frame.compressed)));
        // Said of the frame, not of the bytes in which it lies.
        let compressed = match compressed {
            Err(PersistError::Damaged { problem, .. }) => {
                return Err(PersistError::damaged(object(), problem));
            }
            compressed => compressed?,
        };
        if self.trusted {
            decompress(&compressed, frame, &object)
        } else {
            decompress_unchecked(&compressed, frame.decompressed, &object)
        }
    }

    pub(crate) fn name(&self) -> &ObjectName {
        self.object.name()
    }

    /// Calls `visit` for the entries of the table of contents, and returns how many there are.
    /// `visit` returns `None` for one that cannot be.
    pub(crate) fn read_toc(
        &self,
        visit: &mut dyn FnMut(StoredEntry<'_>) -> Option<Result<(), PersistError>>,
    ) -> Result<u64, PersistError> {
        let root = self.toc_root()?;
        let mut n_members = 0;
        for (frame, offset, len) in root.parts {
            let content = self.frame(frame)?;
            let wrong = || self.damaged("its table of contents is wrong");
            let start = to_usize(u64::from(offset));
            let end = start + to_usize(u64::from(len));
            let part = content.get(start..end).ok_or_else(wrong)?;
            let read = toc::read_groups(part, &mut |entry| {
                n_members += 1;
                visit(entry)
            });
            read.ok_or_else(wrong)??;
        }
        if n_members != root.n_members {
            return Err(self.damaged("its table of contents is not complete"));
        }
        Ok(n_members)
    }

    /// The last frame holds one member, the root of the table, and the end of the archive.
    fn toc_root(&self) -> Result<TocRoot, PersistError> {
        let wrong = || self.damaged("it has no table of contents");
        let last = self.n_frames().checked_sub(1).ok_or_else(wrong)?;
        let frame = self.frame(last)?;
        let mut blocks = Blocks::new(&frame, 0);
        let damaged = |problem| self.damaged(problem);
        let member = blocks.next_member().map_err(damaged)?;
        let member = member.filter(|member| member.path.as_ref() == toc::ROOT_PATH);
        let member = member.filter(|member| member.bytes_beyond(frame.len()) == 0);
        let member = member.ok_or_else(wrong)?;
        if blocks.next_member().map_err(damaged)?.is_some() {
            return Err(wrong());
        }
        let content_end = member.content_at + to_usize(member.content_bytes);
        let content = frame.get(member.content_at..content_end).ok_or_else(wrong)?;
        TocRoot::from_bytes(content).ok_or_else(wrong)
    }

    fn damaged(&self, problem: &'static str) -> PersistError {
        PersistError::damaged(self.object.name(), problem)
    }

    /// The row of a tarball whose manifest is lost, as far as it can be told: everything but the
    /// digest of the whole object, which costs reading it.
    pub(crate) fn recovered_row(
        store: &dyn ObjectStore,
        name: &ObjectName,
        id: tier_index::TarballId,
        keys: &Keys,
    ) -> Result<TarballRow, PersistError> {
        let reader = TarballReader::open(store, name, keys)?;
        let (header, object_bytes) = read_header(store, name)?;
        let encrypted = !header.is_empty();
        let mut frames = reader.frames.clone();
        for frame in &mut frames {
            let len = to_usize(u64::from(frame.compressed));
            let compressed = reader.object.read(frame.offset, len).and_then(|compressed| {
                // Without encryption nothing but the frame's own checksum tells whether it is what
                // was written.
                if !encrypted {
                    decompress_unchecked(&compressed, frame.decompressed, &|| name.to_string())?;
                }
                Ok(compressed)
            });
            // A damaged one keeps a digest that it cannot have; whoever reads it hears of it.
            match compressed {
                Ok(compressed) => frame.digest = frame_digest(&compressed),
                Err(error) if error.kind() == ErrorKind::Damaged => {}
                Err(error) => return Err(error),
            }
        }
        let sha256 = [0; 32];
        Ok(TarballRow { id, encrypted, object_bytes, sha256, header, n_members: 0, frames })
    }
}
