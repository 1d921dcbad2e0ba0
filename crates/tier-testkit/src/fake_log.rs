//! A log service in memory.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use parking_lot::Mutex;
use tier_log::{LogRecord, Operation, SegmentWriter};
use tier_types::{
    LogService, PortError, Publication, PublicationListener, SegmentInfo, Timestamp, Xid, XidRange,
    to_u64,
};

/// Keeps the snapshots that belong to publications.
pub(crate) trait Snapshots: Send + Sync {
    /// Takes one. Called under the log's lock when a segment is cut, so that both are of one moment.
    fn take(&self, last: Xid);

    /// Lets go of one.
    fn release(&self, last: Xid);
}

/// Keeps records, and the segments that were cut of them.
pub struct FakeLog {
    chunk_bytes: u32,
    state: Mutex<State>,
    snapshots: Option<Box<dyn Snapshots>>,
    listeners: Mutex<Vec<PublicationListener>>,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<LogRecord>,
    last_xid: u64,
    segments: BTreeMap<Xid, (SegmentInfo, Vec<u8>)>,
}

impl std::fmt::Debug for FakeLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeLog").field("state", &self.state).finish_non_exhaustive()
    }
}

impl FakeLog {
    /// An empty log of a filesystem with this chunk size.
    pub fn new(chunk_bytes: u32) -> Self {
        let (state, listeners) = (Mutex::default(), Mutex::default());
        Self { chunk_bytes, state, snapshots: None, listeners }
    }

    /// A log that has a snapshot taken with every publication.
    pub(crate) fn with_snapshots(chunk_bytes: u32, snapshots: Box<dyn Snapshots>) -> Self {
        Self { snapshots: Some(snapshots), ..Self::new(chunk_bytes) }
    }

    /// Logs an operation, and returns its transaction id.
    pub fn append(&self, operation: Operation) -> Xid {
        let mut state = self.state.lock();
        state.last_xid += 1;
        let xid = Xid::new(state.last_xid);
        let time = Timestamp { seconds: i64::try_from(xid.get()).unwrap(), nanos: 0 };
        state.records.push(LogRecord { xid, time, operation });
        xid
    }
}

impl LogService for FakeLog {
    fn publish(&self) -> Result<Option<Publication>, PortError> {
        let mut state = self.state.lock();
        let Some(first) = state.records.first().map(|record| record.xid) else { return Ok(None) };
        let range = XidRange::new(first, Xid::new(state.last_xid + 1)).unwrap();
        let name = Path::new("fake.segment").with_file_name(format!("{range}.segment"));
        let mut writer = SegmentWriter::new(Vec::new(), &name, range, self.chunk_bytes)?;
        for record in state.records.drain(..) {
            writer.append(&record)?;
        }
        let bytes = writer.finish()?;
        let info = SegmentInfo { range, len_bytes: to_u64(bytes.len()), name };
        state.segments.insert(range.last(), (info, bytes));
        if let Some(snapshots) = &self.snapshots {
            snapshots.take(range.last());
        }
        drop(state);
        let publication = Publication { range };
        self.listeners.lock().iter().for_each(|listener| listener(&publication));
        Ok(Some(publication))
    }

    fn on_publication(&self, listener: PublicationListener) {
        self.listeners.lock().push(listener);
    }

    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError> {
        let state = self.state.lock();
        let from = state.segments.range(range.start()..).map(|(_, (info, _))| info);
        Ok(from.take_while(|info| info.range.start() < range.end()).cloned().collect())
    }

    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError> {
        let state = self.state.lock();
        let (_, bytes) = &state.segments[&segment.range.last()];
        Ok(Box::new(Cursor::new(bytes.clone())))
    }

    fn last_xid(&self) -> Xid {
        Xid::new(self.state.lock().last_xid)
    }

    fn release(&self, publication: &Publication) -> Result<(), PortError> {
        if let Some(snapshots) = &self.snapshots {
            snapshots.release(publication.range.last());
        }
        Ok(())
    }

    fn retire_segments(&self, xid: Xid) -> Result<(), PortError> {
        let mut state = self.state.lock();
        while state.segments.len() > 1 && state.segments.first_key_value().unwrap().0 <= &xid {
            state.segments.pop_first();
        }
        Ok(())
    }
}
