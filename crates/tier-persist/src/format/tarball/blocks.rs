//! The tar blocks of one decompressed frame, trusting nothing.

use std::borrow::Cow;

use tar::{EntryType, Header};
use tier_types::{to_u64, to_usize};

use crate::format::tarball::layout::{BLOCK_BYTES, padding};
use crate::format::tarball::pax::PaxRecords;

/// One member's headers.
#[derive(Debug)]
pub(crate) struct RawMember<'a> {
    /// Where its first header block is in the frame.
    pub(crate) start: usize,
    pub(crate) records: PaxRecords<'a>,
    pub(crate) header: &'a Header,
    pub(crate) path: Cow<'a, [u8]>,
    pub(crate) content_bytes: u64,
    /// Where its content starts in the frame. It may go on in the frames that follow.
    pub(crate) content_at: usize,
}

impl RawMember<'_> {
    /// Content and padding that lie in frames after one of this length.
    pub(crate) fn bytes_beyond(&self, frame_bytes: usize) -> u64 {
        let here = to_u64(frame_bytes.saturating_sub(self.content_at));
        let padding = to_u64(padding(self.content_bytes));
        self.content_bytes.saturating_add(padding).saturating_sub(here)
    }
}

/// Goes from member to member.
pub(crate) struct Blocks<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Blocks<'a> {
    /// Starts at a byte of the frame where a member does.
    pub(crate) fn new(frame: &'a [u8], at: usize) -> Self {
        Self { frame, at }
    }

    /// The next member; `None` at the end of the frame and at the end of the archive.
    pub(crate) fn next_member(&mut self) -> Result<Option<RawMember<'a>>, &'static str> {
        let start = self.at;
        let mut records = PaxRecords::default();
        loop {
            if self.at >= self.frame.len() {
                return if self.at == start { Ok(None) } else { Err("it ends too early") };
            }
            let block = self.take(to_u64(BLOCK_BYTES))?;
            if block.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            let header = header(block)?;
            let content_bytes = header.entry_size().map_err(|_| "a size is wrong")?;
            if header.entry_type() == EntryType::XHeader {
                let bytes = self.take(content_bytes)?;
                self.take(to_u64(padding(content_bytes)))?;
                records = PaxRecords::parse(bytes).ok_or("an extended header is wrong")?;
                continue;
            }
            let path = records.get("GNU.sparse.name").or(records.get("path"));
            let path = path.map_or_else(|| header.path_bytes(), Cow::Borrowed);
            let content_at = self.at;
            let whole = content_bytes.saturating_add(to_u64(padding(content_bytes)));
            self.at = content_at.saturating_add(to_usize(whole)).min(self.frame.len());
            let member = RawMember { start, records, header, path, content_bytes, content_at };
            return Ok(Some(member));
        }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], &'static str> {
        let rest = self.frame.get(self.at..).unwrap_or_default();
        if len > to_u64(rest.len()) {
            return Err("it ends too early");
        }
        let taken = rest.get(..to_usize(len)).unwrap_or_default();
        self.at += taken.len();
        Ok(taken)
    }
}

fn header(block: &[u8]) -> Result<&Header, &'static str> {
    let header = block.first_chunk::<BLOCK_BYTES>().map(|block| Header::from_byte_slice(block));
    let header = header.ok_or("it ends too early")?;
    let sum = |range: std::ops::Range<usize>| {
        let part = block.get(range).unwrap_or_default();
        part.iter().map(|&byte| u32::from(byte)).sum::<u32>()
    };
    // The checksum field itself counts as eight spaces.
    let expected = sum(0..148) + 8 * u32::from(b' ') + sum(156..BLOCK_BYTES);
    match header.cksum() {
        Ok(stored) if stored == expected => Ok(header),
        _ => Err("a member's header is wrong"),
    }
}
