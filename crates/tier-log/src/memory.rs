//! An operation log in memory.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use parking_lot::Mutex;
use tier_types::{
    ErrorKind, LogReader, LogService, PortError, Publication, PublicationListener, SegmentInfo,
    Timestamp, Xid, XidRange, to_u64,
};

use crate::{LogRecord, Operation, SegmentWriter};

/// The log of a filesystem that lives in memory itself: a first step for an embedder, and a fake
/// for tests. It numbers the operations, keeps their records, and cuts them into segments.
///
/// ```
/// use tier_log::{MemoryLog, Operation};
/// use tier_types::{Ino, LogReader, LogService};
///
/// let log = MemoryLog::new(4096);
/// let xid = log.append(|xid| Operation::Mkdir { ino: Ino::new(xid.get()), link: None });
/// let publication = log.publish()?.expect("something was logged");
/// assert_eq!(publication.range.last(), xid);
/// assert_eq!(log.segments(publication.range)?.len(), 1);
/// assert_eq!(log.publish()?, None);
/// # Ok::<(), tier_types::PortError>(())
/// ```
pub struct MemoryLog {
    chunk_bytes: u32,
    state: Mutex<State>,
    listeners: Mutex<Vec<PublicationListener>>,
}

#[derive(Default)]
struct State {
    last: Xid,
    records: Vec<LogRecord>,
    segments: BTreeMap<Xid, (SegmentInfo, Vec<u8>)>,
}

impl std::fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLog").field("last_xid", &self.last_xid()).finish_non_exhaustive()
    }
}

impl MemoryLog {
    /// An empty log of a filesystem with chunks of this many bytes.
    pub fn new(chunk_bytes: u32) -> Self {
        Self { chunk_bytes, state: Mutex::default(), listeners: Mutex::default() }
    }

    /// Goes on behind this transaction: a restored filesystem gives out no number up to it.
    ///
    /// # Panics
    ///
    /// If anything was logged before.
    pub fn start_after(&self, floor: Xid) {
        let mut state = self.state.lock();
        assert!(state.records.is_empty() && state.segments.is_empty(), "the log has begun");
        state.last = floor;
    }

    /// Logs the operation that `operation` makes of its transaction id, which is returned.
    pub fn append(&self, operation: impl FnOnce(Xid) -> Operation) -> Xid {
        let mut state = self.state.lock();
        let xid = state.last.next();
        // Not the machine's time: the same operations give the same bytes whenever they are logged.
        let time = Timestamp { seconds: i64::try_from(xid.get()).unwrap_or(i64::MAX), nanos: 0 };
        // Under the lock that gave the number, so that records lie in the order of their numbers.
        state.records.push(LogRecord { xid, time, operation: operation(xid) });
        state.last = xid;
        xid
    }
}

impl LogReader for MemoryLog {
    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError> {
        let state = self.state.lock();
        // By their last transactions, so that this begins with the segment that holds the start.
        let from = state.segments.range(range.start()..).map(|(_, (info, _))| info);
        // They do not overlap: behind the first one that begins too late come only later ones.
        Ok(from.take_while(|info| info.range.start() < range.end()).cloned().collect())
    }

    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError> {
        let state = self.state.lock();
        let found = state.segments.get(&segment.range.last());
        let (_, bytes) = found.ok_or_else(|| {
            let message = format!("log segment {} is retired", segment.name.display());
            PortError::new(ErrorKind::Missing, message)
        })?;
        // A copy: a reader stays whole when the segment is retired meanwhile.
        Ok(Box::new(Cursor::new(bytes.clone())))
    }

    fn last_xid(&self) -> Xid {
        self.state.lock().last
    }
}

impl LogService for MemoryLog {
    fn publish(&self) -> Result<Option<Publication>, PortError> {
        let mut state = self.state.lock();
        let first = state.records.first().map(|record| record.xid);
        let range = first.and_then(|first| XidRange::new(first, state.last.next()));
        let Some(range) = range else { return Ok(None) };
        let name = Path::new("memory").join(format!("{range}.segment"));
        let mut writer = SegmentWriter::new(Vec::new(), &name, range, self.chunk_bytes)?;
        // The sink is memory and does not fail half way, which would lose what was drained.
        for record in state.records.drain(..) {
            writer.append(&record)?;
        }
        let bytes = writer.finish()?;
        let info = SegmentInfo { range, len_bytes: to_u64(bytes.len()), name };
        // By the last transaction: from a range's start on, all that touch it come first.
        state.segments.insert(range.last(), (info, bytes));
        // A listener may ask this log, and would wait for the lock for ever.
        drop(state);
        let publication = Publication { range };
        self.listeners.lock().iter().for_each(|listener| listener(&publication));
        Ok(Some(publication))
    }

    fn on_publication(&self, listener: PublicationListener) {
        self.listeners.lock().push(listener);
    }

    fn release(&self, _: &Publication) -> Result<(), PortError> {
        // The log keeps no snapshot of the filesystem.
        Ok(())
    }

    fn retire_segments(&self, xid: Xid) -> Result<(), PortError> {
        let mut state = self.state.lock();
        // The newest one stays: it says where the log goes on.
        while state.segments.len() > 1
            && state.segments.first_key_value().is_some_and(|(last, _)| *last <= xid)
        {
            state.segments.pop_first();
        }
        Ok(())
    }
}
