//! The parser of a status log: the only code that reads one.
//!
//! It takes untrusted bytes. Every complete line must continue the chain of digests (`line.rs`),
//! and the first must be a header; anything else is [`StatusError::Damaged`] with the line's
//! number. What follows the last newline is torn and did not happen. A log remembers where its
//! complete lines end and the digest of the last of them, so that a writer can cut the torn rest
//! off and continue the chain without reading the file again.

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
        // As a whole: a log has a few lines for each object and failed inode of one snapshot.
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
            // Only the last piece can lack its newline: it is torn.
            let Some(line) = line.strip_suffix(b"\n") else { break };
            let damaged = |problem| StatusError::Damaged {
                path: path.to_path_buf(),
                line: to_u64(line_idx) + 1,
                problem,
            };
            // With its newline: a writer cuts the file at this length.
            whole_bytes += to_u64(line.len()) + 1;
            let text = chain_text(&mut chain, line).map_err(damaged)?;
            if header.is_none() {
                let problem = "not a header of version 1";
                header = Some(header_from_text(text).ok_or_else(|| damaged(problem))?);
            } else {
                records.push(event_from_text(text).ok_or_else(|| damaged("not an event"))?);
            }
        }
        Ok(header.map(|header| Self { header, records, chain, whole_bytes }))
    }

    /// The snapshot that it is about.
    pub fn header(&self) -> StatusHeader {
        self.header
    }

    /// What happened, in order.
    pub fn records(&self) -> &[EventRecord] {
        &self.records
    }

    /// How far the snapshot has got.
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

/// The text of a line that continues the chain, or what is wrong with it.
fn chain_text<'a>(chain: &mut Chain, line: &'a [u8]) -> Result<&'a str, &'static str> {
    // The length is checked before anything is computed over the line.
    let text = std::str::from_utf8(line).ok().filter(|text| text.len() <= LINE_BYTES_MAX);
    chain.open(text.ok_or("not a line of text")?).ok_or("its digest does not fit")
}
