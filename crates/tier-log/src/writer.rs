//! Writes a segment.

use std::io::Write;
use std::path::{Path, PathBuf};

use tier_types::{XidRange, to_u64};

use crate::format::{BLOCK_PAYLOAD_BYTES, BlockHeader, Footer, Header};
use crate::{LogError, LogRecord};

/// Writes the records of one xid range. Dropped before [`finish`](Self::finish) it leaves a file
/// without a footer, which no reader takes for a segment.
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
    pub fn new(sink: W, name: &Path, range: XidRange, chunk_bytes: u32) -> Result<Self, LogError> {
        let mut writer = Self {
            sink,
            name: name.to_path_buf(),
            range,
            next_xid: range.start().get(),
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
    /// If the record's xid is not the next one of the range: a segment has no gaps.
    pub fn append(&mut self, record: &LogRecord) -> Result<(), LogError> {
        assert_eq!(record.xid.get(), self.next_xid, "records come in order and without gaps");
        assert!(self.range.contains(record.xid), "a record beyond the segment's range");
        let bytes = record.to_bytes();
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.block.extend(len.to_le_bytes());
        self.block.extend(bytes);
        self.next_xid += 1;
        if self.block.len() >= BLOCK_PAYLOAD_BYTES { self.end_block() } else { Ok(()) }
    }

    /// Seals the segment and returns the sink, flushed. The caller makes it durable.
    ///
    /// # Panics
    /// If records of the range are missing.
    pub fn finish(mut self) -> Result<W, LogError> {
        assert_eq!(self.next_xid, self.range.end().get(), "records of the range are missing");
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let file_bytes = self.written_bytes + to_u64(crate::format::FOOTER_BYTES);
        let n_records = self.range.len();
        self.write(&Footer { n_blocks: self.n_blocks, n_records, file_bytes }.encode())?;
        let Self { mut sink, name, .. } = self;
        sink.flush().map_err(|source| LogError::Io { operation: "write", name, source })?;
        Ok(sink)
    }

    fn end_block(&mut self) -> Result<(), LogError> {
        let n_records = self.next_xid - self.block_first_xid;
        let block = std::mem::take(&mut self.block);
        let header = BlockHeader {
            payload_bytes: u32::try_from(block.len()).unwrap_or(u32::MAX),
            n_records: u32::try_from(n_records).unwrap_or(u32::MAX),
            first_xid: self.block_first_xid,
        };
        self.write(&header.encode(&block))?;
        self.write(&block)?;
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
