//! Publication: a snapshot of the store and the log segment that describes it, made together.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tier_log::{LogError, LogRecord, SegmentReader, SegmentWriter};
use tier_types::{
    Ino, LogService, PortError, Publication, PublicationListener, SegmentInfo, Xid, XidRange,
};

use crate::FsError;
use crate::db::{Changes, Db, Reader, SnapshotView};
use crate::fs::{ByLastXid, Kvfs};
use crate::schema::{self, Table};

const TEMPORARY: &str = "tmp";
const ENDING: &str = "segment";

/// The published segments and the snapshots that are still held.
pub(crate) struct Publications {
    folder: PathBuf,
    /// One publication at a time.
    publishing: Mutex<()>,
    segments: Mutex<ByLastXid<SegmentInfo>>,
    snapshots: Mutex<ByLastXid<Arc<SnapshotView>>>,
    listeners: Mutex<Vec<PublicationListener>>,
    floor: Xid,
}

impl Publications {
    /// Finds the segments, removes what a crash left half done, and tells the last transaction.
    pub(crate) fn open(folder: &Path, db: &Db, floor: Xid) -> Result<(Self, Xid), FsError> {
        let segments = list_segments(folder)?;
        let damaged = |problem| FsError::Damaged { ino: Ino::new(0), problem };
        let mut next = None;
        for info in segments.values() {
            if next.is_some_and(|next| next != info.range.start()) {
                return Err(damaged("a published log segment is missing"));
            }
            next = Some(info.range.end());
        }
        let published = next.map_or(floor, |next| Xid::new(next.get() - 1)).max(floor);
        // A crash may have come between the segment and the release of its records.
        release_records(db, published)?;
        let first = db.scan(Table::Log, &[], &[0xff; 9])?.next().transpose()?;
        let first = first.and_then(|(key, _)| Some(schema::take_number(&key)?.0));
        if first.is_some_and(|first| first != published.get() + 1) {
            return Err(damaged("log records are missing"));
        }
        let last = db.last(Table::Log, &[], &[0xff; 9])?;
        let last = last.and_then(|(key, _)| Some(Xid::new(schema::take_number(&key)?.0)));
        let publications = Self {
            folder: folder.to_path_buf(),
            publishing: Mutex::new(()),
            segments: Mutex::new(segments),
            snapshots: Mutex::new(ByLastXid::new()),
            listeners: Mutex::new(Vec::new()),
            floor,
        };
        Ok((publications, last.unwrap_or(published)))
    }

    fn published(&self) -> Xid {
        let segments = self.segments.lock();
        segments.last_key_value().map_or(self.floor, |(last, _)| (*last).max(self.floor))
    }

    /// The snapshot of the state after a transaction, if it is held.
    pub(crate) fn snapshot(&self, last: Xid) -> Option<Arc<SnapshotView>> {
        self.snapshots.lock().get(&last).map(Arc::clone)
    }

    pub(crate) fn hold(&self, last: Xid, snapshot: Arc<SnapshotView>) {
        self.snapshots.lock().insert(last, snapshot);
    }

    pub(crate) fn path(&self, range: XidRange) -> PathBuf {
        self.folder.join(format!("{:020}-{:020}.{ENDING}", range.start().get(), range.last().get()))
    }
}

impl Kvfs {
    /// Operations that were logged since the last publication.
    pub fn backlog_operations(&self) -> u64 {
        self.committer.last_xid().get().saturating_sub(self.publications.published().get())
    }

    fn publish_now(&self) -> Result<Option<Publication>, FsError> {
        let _publishing = self.publications.publishing.lock();
        let (snapshot, last) = self.committer.snapshot();
        let first = self.publications.published().next();
        let Some(range) = XidRange::new(first, last.next()) else { return Ok(None) };
        // The segment must not know of operations that a loss of power can still undo.
        self.fsync()?;
        let path = self.publications.path(range);
        let len_bytes = self.write_segment(&snapshot, range, &path)?;
        let info = SegmentInfo { range, len_bytes, name: path };
        self.publications.segments.lock().insert(last, info);
        self.publications.hold(last, Arc::new(snapshot));
        release_records(&self.db, last)?;
        let publication = Publication { range };
        for listener in self.publications.listeners.lock().iter() {
            listener(&publication);
        }
        Ok(Some(publication))
    }

    fn write_segment(
        &self,
        snapshot: &SnapshotView,
        range: XidRange,
        path: &Path,
    ) -> Result<u64, FsError> {
        let io = |operation| {
            let name = path.to_path_buf();
            move |source| LogError::Io { operation, name: name.clone(), source }
        };
        let temporary = path.with_extension(TEMPORARY);
        let file = File::create(&temporary).map_err(io("create"))?;
        let sink = std::io::BufWriter::new(file);
        let mut writer = SegmentWriter::new(sink, path, range, self.chunk_bytes)?;
        let damaged = |problem| FsError::Damaged { ino: Ino::new(0), problem };
        let mut next = range.start();
        let (from, until) = (schema::xid(range.start()), schema::xid(range.end()));
        for pair in snapshot.scan(Table::Log, &from, &until)? {
            let (key, value) = pair?;
            let xid = schema::take_number(&key).map(|(xid, _)| Xid::new(xid));
            if xid != Some(next) {
                return Err(damaged("log records are missing"));
            }
            writer.append(&LogRecord::from_bytes(next, &value)?)?;
            next = next.next();
        }
        if next != range.end() {
            return Err(damaged("log records are missing"));
        }
        let mut sink = writer.finish()?;
        sink.flush().map_err(io("write"))?;
        let file = sink.into_inner().map_err(|error| io("write")(error.into_error()))?;
        file.sync_all().map_err(io("sync"))?;
        let len_bytes = file.metadata().map_err(io("look at"))?.len();
        fs::rename(&temporary, path).map_err(io("rename"))?;
        let folder = File::open(&self.publications.folder).map_err(io("open the folder of"))?;
        folder.sync_all().map_err(io("sync the folder of"))?;
        Ok(len_bytes)
    }
}

impl LogService for Kvfs {
    fn publish(&self) -> Result<Option<Publication>, PortError> {
        Ok(self.publish_now()?)
    }

    fn on_publication(&self, listener: PublicationListener) {
        self.publications.listeners.lock().push(listener);
    }

    fn segments(&self, range: XidRange) -> Result<Vec<SegmentInfo>, PortError> {
        let segments = self.publications.segments.lock();
        let covering = segments.range(range.start()..).map(|(_, info)| info);
        Ok(covering.take_while(|info| info.range.start() < range.end()).cloned().collect())
    }

    fn open_segment(&self, segment: &SegmentInfo) -> Result<Box<dyn Read + Send>, PortError> {
        let name = segment.name.clone();
        let file = File::open(&segment.name).map_err(|source| LogError::Io {
            operation: "open",
            name,
            source,
        })?;
        Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
    }

    fn last_xid(&self) -> Xid {
        self.committer.last_xid()
    }

    fn release(&self, publication: &Publication) -> Result<(), PortError> {
        self.publications.snapshots.lock().remove(&publication.range.last());
        Ok(())
    }

    fn retire_segments(&self, xid: Xid) -> Result<(), PortError> {
        let mut segments = self.publications.segments.lock();
        // The newest one stays: it says where the log goes on.
        while segments.len() > 1
            && let Some(oldest) = segments.first_entry()
            && *oldest.key() <= xid
        {
            let info = oldest.remove();
            fs::remove_file(&info.name).map_err(|source| LogError::Io {
                operation: "remove",
                name: info.name.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Records that are in a published segment leave the store.
fn release_records(db: &Db, last: Xid) -> Result<(), FsError> {
    let Some(first) = db.scan(Table::Log, &[], &[0xff; 9])?.next().transpose()? else {
        return Ok(());
    };
    if schema::take_number(&first.0).is_some_and(|(xid, _)| xid > last.get()) {
        return Ok(());
    }
    let mut changes = Changes::default();
    changes.delete_range(Table::Log, &[0; 8], &schema::xid(last.next()));
    db.write(changes)
}

/// The complete segments of a folder; what is not complete is removed.
fn list_segments(folder: &Path) -> Result<ByLastXid<SegmentInfo>, FsError> {
    let io = |operation, name: &Path| {
        let name = name.to_path_buf();
        move |source| LogError::Io { operation, name, source }
    };
    let mut segments = ByLastXid::new();
    for entry in fs::read_dir(folder).map_err(io("list the folder of", folder))? {
        let path = entry.map_err(io("list the folder of", folder))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending == Some(TEMPORARY) {
            fs::remove_file(&path).map_err(io("remove", &path))?;
            continue;
        }
        if ending != Some(ENDING) {
            continue;
        }
        let file = File::open(&path).map_err(io("open", &path))?;
        let len_bytes = file.metadata().map_err(io("look at", &path))?.len();
        let range = SegmentReader::new(file, &path)?.header().range;
        segments.insert(range.last(), SegmentInfo { range, len_bytes, name: path });
    }
    Ok(segments)
}
