//! Constants and fixed parts of a segment file. The format is `docs/formats/log-segment.md`.
//!
//! The writer and the reader share these and nothing else. All numbers are little-endian. Header
//! and footer end with a CRC-32C of what precedes it; a block's checksum covers its header and its
//! payload together, so that neither can be exchanged alone.

use tier_types::{Xid, XidRange};

pub(crate) const MAGIC: [u8; 8] = *b"TIERLOG1";
pub(crate) const FOOTER_MAGIC: [u8; 8] = *b"TIERLOGF";
pub(crate) const BLOCK_MAGIC: [u8; 4] = *b"BLCK";
pub(crate) const HEADER_BYTES: usize = 48;
pub(crate) const BLOCK_HEADER_BYTES: usize = 24;
pub(crate) const FOOTER_BYTES: usize = 48;
/// A writer closes a block when its payload reaches this.
pub(crate) const BLOCK_PAYLOAD_BYTES: usize = 64 * 1024;
/// A reader refuses longer payloads: one record over the limit above fits.
pub(crate) const BLOCK_PAYLOAD_BYTES_MAX: u32 = 1024 * 1024;
pub(crate) const VERSION: u32 = 1;

/// Little-endian fields, read one after another from a slice that is long enough or not at all.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) range: XidRange,
    pub(crate) chunk_bytes: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.chunk_bytes.to_le_bytes());
        out.extend(self.range.start().get().to_le_bytes());
        out.extend(self.range.end().get().to_le_bytes());
        // Room for a later field, under the checksum and not looked at by this version.
        out.extend([0; 12]);
        seal(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, &'static str> {
        // The checksum before any field: a header that does not fit says nothing true.
        let mut fields = Fields(sealed(bytes).ok_or("the header's checksum is wrong")?);
        // The array is long enough, so that this error cannot occur; slicing would be a panic to
        // rule out.
        let short = "the header is too short";
        if fields.bytes::<8>().ok_or(short)? != MAGIC {
            return Err("not a log segment");
        }
        if fields.u32().ok_or(short)? != VERSION {
            return Err("a version of the format that this program does not know");
        }
        let chunk_bytes = fields.u32().ok_or(short)?;
        let start = Xid::new(fields.u64().ok_or(short)?);
        let end = Xid::new(fields.u64().ok_or(short)?);
        // The fold divides by it, and asserts that it is not zero.
        if chunk_bytes == 0 {
            return Err("a chunk size of zero");
        }
        let range = XidRange::new(start, end).ok_or("an empty xid range")?;
        Ok(Self { range, chunk_bytes })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) n_records: u32,
    pub(crate) first_xid: u64,
}

impl BlockHeader {
    /// The checksum covers header and payload.
    pub(crate) fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_HEADER_BYTES);
        out.extend(BLOCK_MAGIC);
        out.extend(self.payload_bytes.to_le_bytes());
        out.extend(self.n_records.to_le_bytes());
        out.extend(self.first_xid.to_le_bytes());
        // One after the other, so that no copy joins header and payload.
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&out), payload);
        out.extend(checksum.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        // A block that a disk brings back as zeros ends here, before its length is used.
        if fields.bytes::<4>()? != BLOCK_MAGIC {
            return None;
        }
        let header = Self {
            payload_bytes: fields.u32()?,
            n_records: fields.u32()?,
            first_xid: fields.u64()?,
        };
        (header.payload_bytes <= BLOCK_PAYLOAD_BYTES_MAX).then_some(header)
    }

    pub(crate) fn checksum_fits(bytes: &[u8; BLOCK_HEADER_BYTES], payload: &[u8]) -> bool {
        let (head, stored) = bytes.split_at(BLOCK_HEADER_BYTES - 4);
        crc32c::crc32c_append(crc32c::crc32c(head), payload).to_le_bytes() == stored
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footer {
    pub(crate) n_blocks: u64,
    pub(crate) n_records: u64,
    pub(crate) file_bytes: u64,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend(FOOTER_MAGIC);
        out.extend(self.n_blocks.to_le_bytes());
        out.extend(self.n_records.to_le_bytes());
        out.extend(self.file_bytes.to_le_bytes());
        out.extend([0; 12]);
        seal(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        let mut fields = Fields(sealed(bytes)?);
        if fields.bytes::<8>()? != FOOTER_MAGIC {
            return None;
        }
        Some(Self { n_blocks: fields.u64()?, n_records: fields.u64()?, file_bytes: fields.u64()? })
    }
}

/// Appends the CRC-32C of what is there.
fn seal(out: &mut Vec<u8>) {
    let checksum = crc32c::crc32c(out);
    out.extend(checksum.to_le_bytes());
}

/// What precedes a CRC-32C that fits.
fn sealed(bytes: &[u8]) -> Option<&[u8]> {
    let (content, stored) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(content) == u32::from_le_bytes(*stored)).then_some(content)
}
