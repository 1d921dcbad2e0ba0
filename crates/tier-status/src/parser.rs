//! Reads a status log.

use std::fs;
use std::path::Path;

use tier_types::to_u64;

use crate::line::{Chain, LINE_BYTES_MAX, event_from_text, header_from_text};
use crate::{EventRecord, SnapshotStatus, StatusError, StatusHeader};

/// What a status log says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusLog {
    header: StatusHeader,
    records: Vec<EventRecord>,
    chain: Chain,
    whole_bytes: u64,
}

impl StatusLog {
    /// Reads and parses a file.
    pub fn read(path: &Path) -> Result<Option<Self>, StatusError> {
        let bytes = fs::read(path).map_err(|source| StatusError::Io {
            operation: "read",
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(&bytes, path)
    }

    /// Parses a log; `None` if not even its first line is complete, so that nothing happened yet.
    /// An incomplete last line is what a crash leaves, and did not happen. `path` is for messages.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Option<Self>, StatusError> {
        let mut chain = Chain::default();
        let mut header = None;
        let mut records = Vec::new();
        let mut whole_bytes = 0;
        for (line_idx, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let Some(line) = line.strip_suffix(b"\n") else { break };
            let damaged = |problem| StatusError::Damaged {
                path: path.to_path_buf(),
                line: to_u64(line_idx) + 1,
                problem,
            };
            whole_bytes += to_u64(line.len()) + 1;
            let text = std::str::from_utf8(line).ok().filter(|text| text.len() <= LINE_BYTES_MAX);
            let text = text.ok_or_else(|| damaged("not a line of text"))?;
            let text = chain.open(text).ok_or_else(|| damaged("its digest does not fit"))?;
            if header.is_none() {
                header = Some(header_from_text(text).ok_or_else(|| damaged("not a header"))?);
            } else {
                records.push(event_from_text(text).ok_or_else(|| damaged("not an event"))?);
            }
        }
        Ok(header.map(|header| Self { header, records, chain, whole_bytes }))
    }

    /// Which snapshot it is about.
    pub fn header(&self) -> StatusHeader {
        self.header
    }

    /// What happened, in order.
    pub fn records(&self) -> &[EventRecord] {
        &self.records
    }

    /// Where the snapshot stands.
    pub fn status(&self) -> SnapshotStatus {
        SnapshotStatus::fold(self.header, &self.records)
    }

    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Length of the complete lines.
    pub(crate) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }
}
