//! The value of a chunk row: its bytes, or where they lie and what was patched since.
//!
//! ```text
//!      content = 0x00 bytes
//!              | 0x01 file (u32) offset (u64) len (u32) crc32c (u32) patch*
//!      patch   = within (u32) len (u32) bytes
//! ```
//!
//! Numbers are little-endian. A chunk that is written as a whole and is large enough lies in an
//! extent file; its row says where, and carries the checksum. Other chunks lie in the row.
//!
//! A small write must not rewrite its chunk, and RocksDB's merge operator cannot read files: it
//! adds the patch to the row, where it is joined with those that are there, so that patches never
//! take more bytes than a chunk. They are in order and neither overlap nor touch; a row with other
//! ones is damaged.

use tier_types::{ChunkNo, Ino, to_usize};

/// The largest size of a chunk in bytes.
pub(crate) const CHUNK_BYTES_MAX: usize = 1 << 20;

const TAG_INLINE: u8 = 0;
const TAG_EXTENT: u8 = 1;

/// Where a chunk's bytes start in the extent files. No place is used twice, and places are in order
/// of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) offset: u64,
}

/// No file is so long that an offset in it is greater.
const OFFSET_MAX: u64 = 1 << 62;

impl Place {
    /// A place that was read; `None` if no file can have it.
    pub(in crate::store) fn parse(file: u32, offset: u64) -> Option<Self> {
        (offset <= OFFSET_MAX).then_some(Self { file, offset })
    }
}

/// The bytes of one chunk in an extent file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileExtent {
    pub(crate) place: Place,
    pub(crate) len: u32,
    /// CRC-32C of the bytes.
    pub(crate) checksum: u32,
}

/// An extent, and the chunk whose row refers to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChunkExtent {
    pub(crate) ino: Ino,
    pub(crate) chunk: ChunkNo,
    pub(crate) extent: FileExtent,
}

/// A chunk row, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content<'a> {
    Inline(&'a [u8]),
    InFile(FileExtent, Patches<'a>),
}

/// What was written into a chunk since it was put into a file, encoded and known to be valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Patches<'a>(&'a [u8]);

impl FileExtent {
    /// Where the bytes end in their file.
    pub(crate) fn end_offset(self) -> u64 {
        self.place.offset + u64::from(self.len)
    }
}

/// The row of a chunk that lies in it.
pub(crate) fn inline_to_bytes(content: &[u8]) -> Vec<u8> {
    assert!(content.len() <= CHUNK_BYTES_MAX, "{} bytes for a chunk", content.len());
    [&[TAG_INLINE], content].concat()
}

/// The row of a chunk that lies in a file, without patches.
pub(crate) fn extent_to_bytes(extent: FileExtent) -> Vec<u8> {
    let FileExtent { place, len, checksum } = extent;
    let fits = (1..=CHUNK_BYTES_MAX).contains(&to_usize(u64::from(len)));
    assert!(fits, "{len} bytes for a chunk");
    let mut row = vec![TAG_EXTENT];
    row.extend(place.file.to_le_bytes());
    row.extend(place.offset.to_le_bytes());
    row.extend(len.to_le_bytes());
    row.extend(checksum.to_le_bytes());
    row
}

impl<'a> Content<'a> {
    /// `None` for what is no chunk row.
    pub(crate) fn from_bytes(row: &'a [u8]) -> Option<Self> {
        match row.split_first()? {
            (&TAG_INLINE, content) if content.len() <= CHUNK_BYTES_MAX => {
                Some(Self::Inline(content))
            }
            (&TAG_EXTENT, rest) => {
                let (file, rest) = take_u32(rest)?;
                let (offset, rest) = rest.split_first_chunk::<8>()?;
                let place = Place::parse(file, u64::from_le_bytes(*offset))?;
                let (len, rest) = take_u32(rest)?;
                let (checksum, rest) = take_u32(rest)?;
                let extent = FileExtent { place, len, checksum };
                let fits = (1..=CHUNK_BYTES_MAX).contains(&to_usize(u64::from(len)));
                let patches = Patches::from_bytes(rest).filter(|_| fits)?;
                Some(Self::InFile(extent, patches))
            }
            _ => None,
        }
    }
}

impl<'a> Patches<'a> {
    pub(in crate::store) fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let patches = Self(bytes);
        let mut end = None;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (within, len, after) = take_head(rest)?;
            let (_, after) = after.split_at_checked(len)?;
            let is_behind = end.is_none_or(|end| end < within);
            if !is_behind || len == 0 || within.checked_add(len)? > CHUNK_BYTES_MAX {
                return None;
            }
            end = Some(within + len);
            rest = after;
        }
        Some(patches)
    }

    /// The encoding.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Each with its place in the chunk, in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = (usize, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (within, len, after) = take_head(rest)?;
            let (bytes, after) = after.split_at_checked(len)?;
            rest = after;
            Some((within, bytes))
        })
    }

    /// Writes them into the bytes that lie in the file, which grow as far as a patch reaches.
    pub(crate) fn apply(self, content: &mut Vec<u8>, start: usize) {
        for (within, bytes) in self.iter() {
            overwrite(content, start + within, bytes);
        }
    }

    /// The encoding of these patches with another one on top.
    pub(in crate::store) fn with(self, within: usize, bytes: &[u8]) -> Vec<u8> {
        let end = within + bytes.len();
        let mut joined_start = within;
        let mut joined = bytes.to_vec();
        let mut before = Vec::new();
        let mut after = Vec::new();
        for (at, old) in self.iter() {
            let old_end = at + old.len();
            if old_end < within {
                append(&mut before, at, old);
            } else if end < at {
                append(&mut after, at, old);
            } else {
                // They overlap or touch: what is left of the old one goes on both sides.
                let (head, _) = old.split_at(within.saturating_sub(at));
                let (_, tail) = old.split_at(old.len() - old_end.saturating_sub(end));
                joined_start = joined_start.min(at);
                joined = [head, &joined, tail].concat();
            }
        }
        append(&mut before, joined_start, &joined);
        before.extend(after);
        before
    }
}

/// Puts bytes at a place of a buffer, which grows with zeros as far as it must.
pub(in crate::store) fn overwrite(buffer: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if buffer.len() < end {
        buffer.resize(end, 0);
    }
    if let Some(place) = buffer.get_mut(at..end) {
        place.copy_from_slice(bytes);
    }
}

#[expect(clippy::expect_used, reason = "a chunk has at most 1 MiB")]
fn append(row: &mut Vec<u8>, within: usize, bytes: &[u8]) {
    let number = |n: usize| u32::try_from(n).expect("a place within a chunk").to_le_bytes();
    row.extend(number(within));
    row.extend(number(bytes.len()));
    row.extend(bytes);
}

/// Place and length of a patch, and what follows.
fn take_head(bytes: &[u8]) -> Option<(usize, usize, &[u8])> {
    let (within, rest) = take_u32(bytes)?;
    let (len, rest) = take_u32(rest)?;
    Some((to_usize(u64::from(within)), to_usize(u64::from(len)), rest))
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}
