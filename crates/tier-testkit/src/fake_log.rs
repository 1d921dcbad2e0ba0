//! A log service in memory.
//!
//! Records and segments are kept under one lock. A filesystem that is built on this log changes
//! its own state within [`FakeLog::transact`], and so under the same lock; its snapshots are taken
//! under it as well, when a segment is cut. That is what makes a publication atomic here: no
//! operation is logged but not yet applied, or applied but not yet logged, while one is taken.
//! Locks are taken in the order log, then filesystem.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::PathBuf;

use parking_lot::Mutex;
use tier_log::{LogRecord, Operation, SegmentWriter};
use tier_types::{
    ErrorKind, LogReader, LogService, PortError, Publication, PublicationListener, SegmentInfo,
    Timestamp, Xid, XidRange, to_u64,
};

/// Keeps the snapshots that belong to publications.
pub(crate) trait Snapshots: Send + Sync {
    /// Takes one, under the log's lock.
    fn take(&self, last: Xid);

    /// Lets go of one.
    fn release(&self, last: Xid);
}

/// Keeps records, and the segments that were cut of them.
///
/// ```
/// use tier_log::Operation;
/// use tier_testkit::FakeLog;
/// use tier_types::{Ino, LogService, Xid};
///
/// let log = FakeLog::new(4096);
/// assert_eq!(log.append(Operation::SetAttr { ino: Ino::ROOT }), Xid::new(1));
/// assert_eq!(log.append(Operation::SetAttr { ino: Ino::ROOT }), Xid::new(2));
/// let publication = log.publish()?.expect("two operations were logged");
/// assert_eq!(publication.range.len(), 2);
/// assert_eq!(log.publish()?, None);
/// # Ok::<(), tier_types::PortError>(())
/// ```
pub struct FakeLog {
    chunk_bytes: u32,
    state: Mutex<State>,
    snapshots: Option<Box<dyn Snapshots>>,
    listeners: Mutex<Vec<PublicationListener>>,
}

#[derive(Debug)]
struct State {
    records: Vec<LogRecord>,
    last_xid: Xid,
    segments: BTreeMap<Xid, FakeSegment>,
}

#[derive(Debug)]
struct FakeSegment {
    info: SegmentInfo,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for FakeLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeLog").field("state", &self.state).finish_non_exhaustive()
    }
}

impl FakeLog {
    /// An empty log of a filesystem with this chunk size.
    pub fn new(chunk_bytes: u32) -> Self {
        Self::starting_after(Xid::new(0), chunk_bytes, None)
    }

    /// An empty log whose first transaction is the one after `last`, and which has a snapshot
    /// taken with every publication.
    pub(crate) fn starting_after(
        last: Xid,
        chunk_bytes: u32,
        snapshots: Option<Box<dyn Snapshots>>,
    ) -> Self {
        let state = State { records: Vec::new(), last_xid: last, segments: BTreeMap::new() };
        Self { chunk_bytes, state: Mutex::new(state), snapshots, listeners: Mutex::default() }
    }

    /// Logs an operation, and returns its transaction id.
    pub fn append(&self, operation: Operation) -> Xid {
        self.transact(|_| Some(operation)).expect("the operation is logged")
    }

    /// Logs the operation that `change` returns for its transaction id; `None` uses up no id and
    /// must have changed nothing. No publication and no other operation comes between what
    /// `change` does and its log record.
    pub(crate) fn transact(&self, change: impl FnOnce(Xid) -> Option<Operation>) -> Option<Xid> {
        let mut state = self.state.lock();
        let xid = state.last_xid.next();
        let operation = change(xid)?;
        let time = Timestamp { seconds: i64::try_from(xid.get()).unwrap(), nanos: 0 };
        state.records.push(LogRecord { xid, time, operation });
        state.last_xid = xid;
        Some(xid)
    }

    /// Runs `look` if `xid` is the last transaction, and while it is.
    pub(crate) fn while_last<T>(&self, xid: Xid, look: impl FnOnce() -> T) -> Option<T> {
        let state = self.state.lock();
        (state.last_xid == xid).then(look)
    }
}

impl LogReader for FakeLog {
    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError> {
        let state = self.state.lock();
        let from = state.segments.range(range.start()..).map(|(_, segment)| &segment.info);
        Ok(from.take_while(|info| info.range.start() < range.end()).cloned().collect())
    }

    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError> {
        let state = self.state.lock();
        let found = state.segments.get(&segment.range.last()).ok_or_else(|| {
            let name = segment.name.display();
            PortError::new(ErrorKind::Missing, format!("log segment {name} was retired"))
        })?;
        Ok(Box::new(Cursor::new(found.bytes.clone())))
    }

    fn last_xid(&self) -> Xid {
        self.state.lock().last_xid
    }
}

impl LogService for FakeLog {
    fn publish(&self) -> Result<Option<Publication>, PortError> {
        let mut state = self.state.lock();
        let Some(first) = state.records.first().map(|record| record.xid) else { return Ok(None) };
        let range = XidRange::new(first, state.last_xid.next()).unwrap();
        let name = PathBuf::from(format!("{range}.segment"));
        let mut writer = SegmentWriter::new(Vec::new(), &name, range, self.chunk_bytes)?;
        for record in state.records.drain(..) {
            writer.append(&record)?;
        }
        let bytes = writer.finish()?;
        let info = SegmentInfo { range, len_bytes: to_u64(bytes.len()), name };
        state.segments.insert(range.last(), FakeSegment { info, bytes });
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
