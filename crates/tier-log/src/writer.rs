//! The segment writer: the records of one xid range, into a file that says of itself whether it is
//! whole.
//!
//! A segment (`docs/formats/log-segment.md`) is a header, blocks of records and a footer. The
//! header names the range before a single record is written: the range is known when the log is
//! cut, and a writer that was given fewer or other records stops instead of writing something else.
//! Records are gathered into blocks of about 64 KiB, each with a CRC-32C over its own header and
//! its payload, so that damage is found before anything of a block is understood, and is confined
//! to one. Xids are not stored with the records: a block stores its first one, and the rest follow
//! without gaps. The footer repeats what only a writer that reached the end can know: the number of
//! blocks, of records, and the length of the file.
//!
//! **The torn tail.** A crash, a full disk or a program that gives up leaves a prefix of the file.
//! No prefix is a segment: without the footer at exactly the length that it states, a reader
//! refuses the file. So a writer may be dropped at any moment, and nothing needs to be undone. The
//! caller nevertheless writes under a temporary name, syncs and renames: not for the reader's sake,
//! but so that a file with a final name is known to be whole without reading it.
//!
//! **Why a range and not a tail.** A log that is appended to for ever must tell a torn last record
//! from damage in the middle, and the usual answer, to cut at the first bad checksum, silently
//! drops what follows a flipped bit. A segment is cut when its last record is already durable in
//! the key-value store, is written once, and is then immutable. Every mismatch is damage, and every
//! missing record is an error with a name.
//!
//! That records come in order and without gaps is asserted and not returned: it is the caller's
//! own invariant, checked where it is cheapest to find. What comes back from a disk is checked by
//! the [reader](crate::SegmentReader), as errors.

use std::io::Write;
use std::path::{Path, PathBuf};

use tier_types::{XidRange, to_u64, to_usize};

use crate::format::{
    BLOCK_PAYLOAD_BYTES, BLOCK_PAYLOAD_BYTES_MAX, BlockHeader, FOOTER_BYTES, Footer, Header,
};
use crate::{LogError, LogRecord};

/// Writes the records of one xid range. Dropped before [`finish`](Self::finish) it leaves a file
/// without a footer, which no reader takes for a segment.
///
/// ```
/// use std::path::Path;
///
/// use tier_log::{LogRecord, Operation, SegmentReader, SegmentWriter};
/// use tier_types::{Ino, Timestamp, Xid, XidRange};
///
/// let range = XidRange::new(Xid::new(7), Xid::new(9)).expect("two transactions");
/// let mut writer = SegmentWriter::new(Vec::new(), Path::new("7-8"), range, 4096)?;
/// for (xid, ino) in [(7, 40), (8, 41)] {
///     let operation = Operation::SetAttr { ino: Ino::new(ino) };
///     writer.append(&LogRecord { xid: Xid::new(xid), time: Timestamp::default(), operation })?;
/// }
/// let bytes = writer.finish()?;
///
/// let reader = SegmentReader::new(bytes.as_slice(), Path::new("7-8"))?;
/// assert_eq!(reader.header().range, range);
/// let records = reader.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(records[1].operation.ino(), Ino::new(41));
/// # Ok::<(), tier_log::LogError>(())
/// ```
#[derive(Debug)]
pub struct SegmentWriter<W> {
    sink: W,
    name: PathBuf,
    range: XidRange,
    next_xid: u64,
    block: Vec<u8>,
    block_first_xid: u64,
    n_blocks: u64,
    written_bytes: u64,
}

impl<W: Write> SegmentWriter<W> {
    /// Starts a segment of exactly `range`. `chunk_bytes` is the filesystem's chunk size; `name`
    /// is for messages.
    ///
    /// # Panics
    /// If a chunk has no bytes: no reader would take the segment.
    pub fn new(sink: W, name: &Path, range: XidRange, chunk_bytes: u32) -> Result<Self, LogError> {
        assert!(chunk_bytes > 0, "a chunk has bytes");
        let mut writer = Self {
            sink,
            name: name.to_path_buf(),
            range,
            next_xid: range.start().get(),
            // A block ends with the record that reaches its size, and few are longer than 1 KiB.
            block: Vec::with_capacity(BLOCK_PAYLOAD_BYTES + 1024),
            block_first_xid: range.start().get(),
            n_blocks: 0,
            written_bytes: 0,
        };
        writer.write(&Header { range, chunk_bytes }.encode())?;
        Ok(writer)
    }

    /// Appends the next record.
    ///
    /// # Panics
    /// If the record's xid is not the next one of the range: a segment has no gaps. If the record
    /// is longer than a block may be: names are short.
    pub fn append(&mut self, record: &LogRecord) -> Result<(), LogError> {
        assert_eq!(record.xid.get(), self.next_xid, "records come in order and without gaps");
        assert!(self.range.contains(record.xid), "a record beyond the segment's range");
        let bytes = record.to_bytes();
        self.block.extend(to_u32(bytes.len()).to_le_bytes());
        self.block.extend(bytes);
        let payload_bytes_max = to_usize(u64::from(BLOCK_PAYLOAD_BYTES_MAX));
        assert!(self.block.len() <= payload_bytes_max, "a record longer than a block");
        self.next_xid += 1;
        // A block ends behind a record, never within one.
        if self.block.len() >= BLOCK_PAYLOAD_BYTES { self.end_block() } else { Ok(()) }
    }

    /// Seals the segment and returns the sink, flushed. The caller makes it durable.
    ///
    /// # Panics
    /// If records of the range are missing.
    pub fn finish(mut self) -> Result<W, LogError> {
        assert_eq!(self.next_xid, self.range.end().get(), "records of the range are missing");
        // The last record may just have ended a block, and one without records is not valid.
        if !self.block.is_empty() {
            self.end_block()?;
        }
        // With the footer itself: the length that the whole file has on a disk.
        let file_bytes = self.written_bytes + to_u64(FOOTER_BYTES);
        let n_records = self.range.len();
        self.write(&Footer { n_blocks: self.n_blocks, n_records, file_bytes }.encode())?;
        let Self { mut sink, name, .. } = self;
        sink.flush().map_err(|source| LogError::Io { operation: "write", name, source })?;
        Ok(sink)
    }

    fn end_block(&mut self) -> Result<(), LogError> {
        let n_records = self.next_xid - self.block_first_xid;
        assert!(n_records > 0, "a block has a record");
        let block = std::mem::take(&mut self.block);
        let header = BlockHeader {
            payload_bytes: to_u32(block.len()),
            n_records: to_u32(to_usize(n_records)),
            first_xid: self.block_first_xid,
        };
        self.write(&header.encode(&block))?;
        self.write(&block)?;
        // Its memory is used again.
        self.block = block;
        self.block.clear();
        self.block_first_xid = self.next_xid;
        self.n_blocks += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        self.written_bytes += to_u64(bytes.len());
        self.sink.write_all(bytes).map_err(|source| LogError::Io {
            operation: "write",
            name: self.name.clone(),
            source,
        })
    }
}

/// Lengths and counts within a block, which is far shorter than 4 GiB.
#[expect(clippy::expect_used, reason = "a block is at most 1 MiB, and a record has a byte")]
fn to_u32(n: usize) -> u32 {
    u32::try_from(n).expect("a length within a block")
}
