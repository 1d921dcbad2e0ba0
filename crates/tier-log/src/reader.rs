//! The segment reader: records out of untrusted bytes, or an error that names file and offset.
//!
//! A segment is read from front to back, in one pass and with one block in memory. Each step checks
//! what the next one relies on, and in this order: the header's checksum before its range is
//! believed; a block's length against a limit before memory is taken for it; its checksum, over
//! header and payload, before a record in it is decoded; its first xid and the number of records
//! against what came before. The footer comes last and must fit what was counted on the way:
//! blocks, records, and the offset at which it ends. After it there must be nothing.
//!
//! So blocks that were swapped, doubled, dropped or taken from another segment are found as surely
//! as a flipped bit, although each of them has a checksum that fits: a block out of order does not
//! begin with the next xid. A file that was cut anywhere is *damaged*, not merely short. And a
//! zeroed block is no block, because its magic is missing.
//!
//! Records are handed out as their block is read, before the footer is seen. A caller that acts on
//! them must therefore be able to throw its work away when the last step fails; the fold of net
//! changes is, because nothing leaves it before the range was read to its end.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tier_types::{LogReader, PortError, SegmentInfo, Xid, XidRange, to_u64, to_usize};

use crate::format::{
    BLOCK_HEADER_BYTES, BlockHeader, FOOTER_BYTES, FOOTER_MAGIC, Fields, Footer, HEADER_BYTES,
    Header,
};
use crate::{LogError, LogRecord, wire};

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The transactions in it.
    pub range: XidRange,
    /// The filesystem's chunk size in bytes.
    pub chunk_bytes: u32,
}

/// Iterates over the records of a segment in order. After an error it ends.
///
/// ```
/// use std::path::Path;
///
/// use tier_log::{LogError, SegmentReader};
///
/// let error = SegmentReader::new(&b"not a segment"[..], Path::new("1-9.segment")).unwrap_err();
/// assert!(matches!(error, LogError::Damaged { offset_bytes: 0, .. }));
/// assert!(error.to_string().contains("1-9.segment"));
/// ```
#[derive(Debug)]
pub struct SegmentReader<R> {
    source: R,
    name: PathBuf,
    header: SegmentHeader,
    offset_bytes: u64,
    next_xid: u64,
    n_blocks: u64,
    block: Vec<u8>,
    block_at: usize,
    block_records_left: u32,
    done: bool,
}

impl<R: Read> SegmentReader<R> {
    /// Reads the header; `name` is for messages.
    pub fn new(mut source: R, name: &Path) -> Result<Self, LogError> {
        let mut bytes = [0; HEADER_BYTES];
        fill(&mut source, name, 0, &mut bytes)?;
        let header = Header::decode(&bytes).map_err(|problem| LogError::Damaged {
            name: name.to_path_buf(),
            offset_bytes: 0,
            problem,
        })?;
        Ok(Self {
            source,
            name: name.to_path_buf(),
            header: SegmentHeader { range: header.range, chunk_bytes: header.chunk_bytes },
            offset_bytes: to_u64(HEADER_BYTES),
            next_xid: header.range.start().get(),
            n_blocks: 0,
            block: Vec::new(),
            block_at: 0,
            block_records_left: 0,
            done: false,
        })
    }

    /// The segment's range and chunk size.
    pub fn header(&self) -> SegmentHeader {
        self.header
    }

    fn step(&mut self) -> Result<Option<LogRecord>, LogError> {
        if self.block_records_left == 0 {
            // A block holds as many records as it says and not a byte more.
            if self.block_at != self.block.len() {
                return Err(self.damaged("bytes after the last record of a block"));
            }
            // By the header's range and not by what comes: a footer in the place of a block is
            // damage.
            if self.next_xid == self.header.range.end().get() {
                return self.read_footer().map(|()| None);
            }
            self.read_block()?;
        }
        self.read_record().map(Some)
    }

    fn read_block(&mut self) -> Result<(), LogError> {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        fill(&mut self.source, &self.name, self.offset_bytes, &mut bytes)?;
        // Decoding checks the length against a limit: memory is taken for it before its checksum
        // can be.
        let header = BlockHeader::decode(&bytes).ok_or_else(|| self.damaged("no block"))?;
        // Out of the reader until it has passed all checks; its memory is used again.
        let mut block = std::mem::take(&mut self.block);
        block.resize(to_usize(u64::from(header.payload_bytes)), 0);
        let payload_at = self.offset_bytes + to_u64(BLOCK_HEADER_BYTES);
        fill(&mut self.source, &self.name, payload_at, &mut block)?;
        if !BlockHeader::checksum_fits(&bytes, &block) {
            return Err(self.damaged("a block's checksum is wrong"));
        }
        // Its checksum fits, and yet it may belong elsewhere.
        if header.first_xid != self.next_xid || header.n_records == 0 {
            return Err(self.damaged("a block out of order"));
        }
        self.block = block;
        self.block_at = 0;
        self.block_records_left = header.n_records;
        self.offset_bytes = payload_at + u64::from(header.payload_bytes);
        self.n_blocks += 1;
        Ok(())
    }

    fn read_record(&mut self) -> Result<LogRecord, LogError> {
        assert!(self.block_at <= self.block.len(), "records are counted as they are read");
        let (_, rest) = self.block.split_at(self.block_at);
        let bytes = framed_record(rest)
            .ok_or_else(|| self.damaged("a record that its block does not hold"))?;
        let record = wire::decode(Xid::new(self.next_xid), bytes)
            .map_err(|problem| self.damaged(problem))?;
        // The number of records in a block is not bounded by the segment's header.
        if !self.header.range.contains(record.xid) {
            return Err(self.damaged("more records than the header says"));
        }
        // The length before the record takes 4 bytes itself.
        self.block_at += 4 + bytes.len();
        self.block_records_left -= 1;
        self.next_xid += 1;
        Ok(record)
    }

    fn read_footer(&mut self) -> Result<(), LogError> {
        let mut bytes = [0; FOOTER_BYTES];
        fill(&mut self.source, &self.name, self.offset_bytes, &mut bytes)?;
        if !bytes.starts_with(&FOOTER_MAGIC) {
            return Err(self.damaged("no footer"));
        }
        let expected = Footer {
            n_blocks: self.n_blocks,
            n_records: self.header.range.len(),
            file_bytes: self.offset_bytes + to_u64(FOOTER_BYTES),
        };
        // Compared as a whole with what was counted on the way: no field of it is relied on.
        if Footer::decode(&bytes) != Some(expected) {
            return Err(self.damaged("the footer does not fit"));
        }
        // The footer states the length, but a file may have grown behind it.
        let mut extra = [0];
        match self.source.read(&mut extra) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("bytes after the footer")),
            Err(source) => Err(read_failed(&self.name, source)),
        }
    }

    fn damaged(&self, problem: &'static str) -> LogError {
        LogError::Damaged { name: self.name.clone(), offset_bytes: self.offset_bytes, problem }
    }
}

impl<R: Read> Iterator for SegmentReader<R> {
    type Item = Result<LogRecord, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step().transpose();
        // After an error the place in the file is not known, and what followed would be noise.
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Calls `visit` for each record of a published range in order. An error of `visit` ends it. A
/// range that the published segments do not hold in full is a [`LogError::Gap`].
pub fn read_range<E: From<LogError>>(
    log: &dyn LogReader,
    range: XidRange,
    visit: impl FnMut(SegmentHeader, LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    let segments = log.segments(range).map_err(LogError::from)?;
    let opened = segments.into_iter().map(|info| {
        let source = log.open_segment(&info)?;
        Ok(OpenedSegment { range: info.range, name: info.name, source })
    });
    read_segments(opened, range, visit)
}

/// Reads a segment to its end: an error says what is wrong with it.
pub fn check_segment(log: &dyn LogReader, segment: &SegmentInfo) -> Result<(), LogError> {
    let SegmentInfo { range, name, .. } = segment;
    let source = log.open_segment(segment)?;
    let opened = OpenedSegment { range: *range, name: name.clone(), source };
    read_segments([Ok(opened)], *range, |_, _| Ok(()))
}

/// A segment, from wherever it is.
pub struct OpenedSegment {
    /// The transactions in it.
    pub range: XidRange,
    /// What to call it in a message.
    pub name: PathBuf,
    /// Its bytes.
    pub source: Box<dyn Read + Send>,
}

impl std::fmt::Debug for OpenedSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedSegment").field("range", &self.range).finish_non_exhaustive()
    }
}

/// The same of segments that come in order.
pub(crate) fn read_segments<E: From<LogError>>(
    segments: impl IntoIterator<Item = Result<OpenedSegment, PortError>>,
    range: XidRange,
    mut visit: impl FnMut(SegmentHeader, LogRecord) -> Result<(), E>,
) -> Result<(), E> {
    let mut next = range.start();
    for segment in segments {
        let segment = segment.map_err(LogError::from)?;
        if segment.range.start() > next {
            // A gap. What follows must not be visited: it would be taken for what comes next.
            break;
        }
        let OpenedSegment { range: segment_range, name, source } = segment;
        let reader = SegmentReader::new(source, &name)?;
        let header = reader.header();
        // A whole segment under another one's name passes every check within the file.
        if header.range != segment_range {
            let problem = "another segment's content";
            return Err(LogError::Damaged { name, offset_bytes: 0, problem }.into());
        }
        // A segment is read to its end even if the range ends within it, so that its footer is
        // seen.
        for record in reader {
            let record = record?;
            // What two segments both hold is visited once.
            if range.contains(record.xid) && record.xid >= next {
                visit(header, record)?;
            }
        }
        next = next.max(segment_range.end());
    }
    if next < range.end() {
        return Err(LogError::Gap { range, found_until: next.get() }.into());
    }
    Ok(())
}

/// The first record of a payload: its length, and so many bytes.
fn framed_record(payload: &[u8]) -> Option<&[u8]> {
    // A checksum that fits says that these bytes were written, and not that the writer was right.
    let mut fields = Fields(payload);
    let len = fields.u32()?;
    fields.0.get(..to_usize(u64::from(len)))
}

/// Fills `buffer`; a file that ends before is damaged, not just short.
fn fill(
    source: &mut impl Read,
    name: &Path,
    offset_bytes: u64,
    buffer: &mut [u8],
) -> Result<(), LogError> {
    source.read_exact(buffer).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            let problem = "the file ends too early";
            LogError::Damaged { name: name.to_path_buf(), offset_bytes, problem }
        } else {
            read_failed(name, error)
        }
    })
}

fn read_failed(name: &Path, source: io::Error) -> LogError {
    LogError::Io { operation: "read", name: name.to_path_buf(), source }
}
