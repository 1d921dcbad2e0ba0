//! The tar blocks of one decompressed frame, trusting nothing.
//!
//! Two kinds of header blocks matter: an extended header, whose records are about the member that
//! follows, and the member's own. Its content may go on in the frames behind, so that a position
//! after it is cut at the frame's end. Any byte may be wrong: a header counts only with its
//! checksum, and nothing is read beyond the frame.

use std::borrow::Cow;
use std::ops::Range;

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
        assert!(self.content_at <= frame_bytes, "the frame is the one that holds the header");
        let here = to_u64(frame_bytes - self.content_at);
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
        assert!(at <= frame.len(), "a member starts in its frame");
        Self { frame, at }
    }

    /// The next member; `None` at the end of the frame and at the end of the archive.
    pub(crate) fn next_member(&mut self) -> Result<Option<RawMember<'a>>, &'static str> {
        let start = self.at;
        // An extended header is about the next header only, and so are its records.
        let mut records = PaxRecords::default();
        loop {
            if self.at == self.frame.len() {
                return if self.at == start { Ok(None) } else { Err("it ends too early") };
            }
            let block = self.take(to_u64(BLOCK_BYTES))?;
            // Two of these end the archive; one is enough for a reader.
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
            // Of a sparse file stock tar shows another path than the file's own.
            let path = records
                .get("GNU.sparse.name")
                .or(records.get("path"))
                .map_or_else(|| header.path_bytes(), Cow::Borrowed);
            // The next member starts behind the content, or the frame ends within it.
            let content_at = self.at;
            let whole = content_bytes.saturating_add(to_u64(padding(content_bytes)));
            self.at = content_at.saturating_add(to_usize(whole)).min(self.frame.len());
            let member = RawMember { start, records, header, path, content_bytes, content_at };
            return Ok(Some(member));
        }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], &'static str> {
        // The length is from the frame, and may be anything.
        let (_, rest) = self.frame.split_at(self.at);
        if len > to_u64(rest.len()) {
            return Err("it ends too early");
        }
        let (taken, _) = rest.split_at(to_usize(len));
        self.at += taken.len();
        Ok(taken)
    }
}

fn header(block: &[u8]) -> Result<&Header, &'static str> {
    let block = block.first_chunk::<BLOCK_BYTES>().ok_or("it ends too early")?;
    let header = Header::from_byte_slice(block);
    // The checksum field itself counts as spaces. Two plain sums: every header of a scan comes by.
    let sum = |bytes: &[u8]| bytes.iter().copied().map(u32::from).sum::<u32>();
    let (before, rest) = block.split_at(CHECKSUM_FIELD.start);
    let (field, after) = rest.split_at(CHECKSUM_FIELD.len());
    let spaces = u32::from(b' ') * field.iter().map(|_| 1).sum::<u32>();
    let expected = sum(before) + spaces + sum(after);
    match header.cksum() {
        Ok(stored) if stored == expected => Ok(header),
        Ok(_) | Err(_) => Err("a member's header is wrong"),
    }
}

/// Where a header block has its checksum.
const CHECKSUM_FIELD: Range<usize> = 148..156;

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str, content: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_size(to_u64(content.len()));
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend(content);
        out.resize(out.len() + padding(to_u64(content.len())), 0);
        out
    }

    fn paths(frame: &[u8], at: usize) -> Result<Vec<String>, &'static str> {
        let mut blocks = Blocks::new(frame, at);
        let mut paths = Vec::new();
        while let Some(member) = blocks.next_member()? {
            paths.push(String::from_utf8_lossy(&member.path).into_owned());
        }
        Ok(paths)
    }

    #[test]
    fn members_follow_each_other_up_to_the_end_of_the_archive() {
        let first = member("a", &[1; 700]);
        let mut frame = [first.clone(), member("b", b"")].concat();
        assert_eq!(paths(&frame, 0).unwrap(), ["a", "b"]);
        assert_eq!(paths(&frame, first.len()).unwrap(), ["b"]);
        frame.resize(frame.len() + 2 * BLOCK_BYTES, 0);
        assert_eq!(paths(&frame, 0).unwrap(), ["a", "b"]);
    }

    #[test]
    fn content_may_go_on_behind_the_frame() {
        let frame = member("a", &[1; 2000]);
        let (cut, rest) = frame.split_at(BLOCK_BYTES + 300);
        let mut blocks = Blocks::new(cut, 0);
        let found = blocks.next_member().unwrap().unwrap();
        assert_eq!(found.bytes_beyond(cut.len()), to_u64(rest.len()));
        assert!(blocks.next_member().unwrap().is_none());
    }

    #[test]
    fn a_header_with_any_flipped_bit_is_refused() {
        let frame = member("a", b"x");
        for at in (0..BLOCK_BYTES).filter(|at| !CHECKSUM_FIELD.contains(at)) {
            let mut flipped = frame.clone();
            flipped[at] ^= 0x10;
            assert!(paths(&flipped, 0).is_err(), "{at}");
        }
    }
}
