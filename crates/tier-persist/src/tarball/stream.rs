//! The tar stream of a tarball, read frame by frame, with the place of every byte.

use tar::{EntryType, Header};
use tier_types::{to_u64, to_usize};

use super::pax::{PaxRecords, RECORDS_BYTES_MAX};
use super::{BLOCK_BYTES, padding};
use crate::PersistError;

/// Gives decompressed frames, in order: their number and their content.
pub(crate) trait FrameSource {
    /// `None` after the last one.
    fn next_frame(&mut self) -> Result<Option<(u32, Vec<u8>)>, PersistError>;
}

/// A byte in the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) frame: u32,
    pub(crate) offset: u32,
}

/// One member's headers. Its content follows in the stream.
#[derive(Debug)]
pub(crate) struct RawMember {
    pub(crate) start: Position,
    pub(crate) records: PaxRecords,
    pub(crate) header: Header,
    pub(crate) path: Vec<u8>,
    pub(crate) content_bytes: u64,
}

pub(crate) struct TarStream<S> {
    source: S,
    object: String,
    frame: Vec<u8>,
    frame_no: u32,
    at: usize,
    ended: bool,
}

impl<S: FrameSource> TarStream<S> {
    pub(crate) fn new(source: S, object: String) -> Self {
        Self { source, object, frame: Vec::new(), frame_no: 0, at: 0, ended: false }
    }

    /// Where the next byte is. At the end of a frame that is the start of the next one.
    pub(crate) fn position(&mut self) -> Result<Position, PersistError> {
        self.fill()?;
        let offset = u32::try_from(self.at).map_err(|_| self.damaged("a frame is too large"))?;
        Ok(Position { frame: self.frame_no, offset })
    }

    /// The next member's headers; `None` at the end of the archive.
    pub(crate) fn next_member(&mut self) -> Result<Option<RawMember>, PersistError> {
        let start = self.position()?;
        let mut records = PaxRecords::default();
        loop {
            let block = self.take(BLOCK_BYTES)?;
            if block.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            let header = self.header(&block)?;
            let content_bytes = header.entry_size().map_err(|_| self.damaged("a size is wrong"))?;
            if header.entry_type() == EntryType::XHeader {
                if content_bytes > RECORDS_BYTES_MAX {
                    return Err(self.damaged("an extended header is too long"));
                }
                let bytes = self.take(to_usize(content_bytes))?;
                self.skip(to_u64(padding(content_bytes)))?;
                let parsed = PaxRecords::parse(&bytes);
                records = parsed.ok_or_else(|| self.damaged("an extended header is wrong"))?;
                continue;
            }
            let path = records.get("GNU.sparse.name").or(records.get("path"));
            let path = path.map_or_else(|| header.path_bytes().into_owned(), <[u8]>::to_vec);
            return Ok(Some(RawMember { start, records, header, path, content_bytes }));
        }
    }

    /// The next bytes; the caller bounds their number.
    pub(crate) fn take(&mut self, len: usize) -> Result<Vec<u8>, PersistError> {
        let mut out = Vec::new();
        while out.len() < len {
            self.fill()?;
            let rest = self.frame.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                return Err(self.damaged("it ends too early"));
            }
            let n = rest.len().min(len - out.len());
            out.extend_from_slice(rest.get(..n).unwrap_or_default());
            self.at += n;
        }
        Ok(out)
    }

    /// Passes over bytes.
    pub(crate) fn skip(&mut self, mut len: u64) -> Result<(), PersistError> {
        while len > 0 {
            let n = self.left_in_frame()?.min(len);
            if n == 0 {
                return Err(self.damaged("it ends too early"));
            }
            self.at += to_usize(n);
            len -= n;
        }
        Ok(())
    }

    /// Bytes up to the end of the frame; zero only at the end of the stream.
    pub(crate) fn left_in_frame(&mut self) -> Result<u64, PersistError> {
        self.fill()?;
        Ok(to_u64(self.frame.len().saturating_sub(self.at)))
    }

    pub(crate) fn damaged(&self, problem: &'static str) -> PersistError {
        PersistError::damaged(format!("{} in frame {}", self.object, self.frame_no), problem)
    }

    fn header(&self, block: &[u8]) -> Result<Header, PersistError> {
        let bytes = block.first_chunk::<BLOCK_BYTES>();
        let header = bytes.map(|bytes| Header::from_byte_slice(bytes).clone());
        let header = header.ok_or_else(|| self.damaged("it ends too early"))?;
        let sum = |range: std::ops::Range<usize>| {
            let part = block.get(range).unwrap_or_default();
            part.iter().map(|&byte| u32::from(byte)).sum::<u32>()
        };
        // The checksum field itself counts as eight spaces.
        let expected = sum(0..148) + 8 * u32::from(b' ') + sum(156..BLOCK_BYTES);
        match header.cksum() {
            Ok(stored) if stored == expected => Ok(header),
            _ => Err(self.damaged("a member's header is wrong")),
        }
    }

    /// Makes the next frame the current one if this one is used up.
    fn fill(&mut self) -> Result<(), PersistError> {
        while self.at >= self.frame.len() && !self.ended {
            match self.source.next_frame()? {
                Some((number, frame)) => {
                    self.frame = frame;
                    self.frame_no = number;
                    self.at = 0;
                }
                None => self.ended = true,
            }
        }
        Ok(())
    }
}
