//! Published log segments: immutable files beside the key-value store.
//!
//! A segment is written under a temporary name, synced, renamed, and its directory synced; so a
//! file that has its final name is complete and durable, and what a crash leaves under a temporary
//! name is removed at the next opening. The names sort in order of transactions, but what counts is
//! the range in a segment's header.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tier_log::{LogError, LogRecord, SegmentReader, SegmentWriter};
use tier_types::{SegmentInfo, Xid, XidRange};

use crate::FsError;
use crate::error::Damage;

const TEMPORARY: &str = "tmp";
const EXTENSION: &str = "segment";

/// The published segments that are not retired.
#[derive(Debug)]
pub(crate) struct Segments {
    directory: PathBuf,
    /// By the last transaction of each.
    segments: Mutex<BTreeMap<Xid, SegmentInfo>>,
}

impl Segments {
    /// Finds the segments, which must be without gaps, and removes what a crash left half written.
    pub(crate) fn open(directory: &Path) -> Result<Self, FsError> {
        let segments = list(directory)?;
        let mut next = None;
        for info in segments.values() {
            if next.is_some_and(|next| next != info.range.start()) {
                return Err(FsError::damaged_store(Damage::LogSegment));
            }
            next = Some(info.range.end());
        }
        Ok(Self { directory: directory.to_path_buf(), segments: Mutex::new(segments) })
    }

    /// The last published transaction.
    pub(crate) fn last(&self) -> Option<Xid> {
        self.segments.lock().last_key_value().map(|(last, _)| *last)
    }

    /// The segments that hold any of `range`, in order.
    pub(crate) fn covering(&self, range: XidRange) -> Vec<SegmentInfo> {
        let segments = self.segments.lock();
        let covering = segments.range(range.start()..).map(|(_, info)| info);
        covering.take_while(|info| info.range.start() < range.end()).cloned().collect()
    }

    /// Writes the records of a range into a segment, durably, and adds it to the published ones.
    pub(crate) fn publish(
        &self,
        range: XidRange,
        chunk_bytes: u32,
        records: impl Iterator<Item = Result<LogRecord, FsError>>,
    ) -> Result<(), FsError> {
        let (first, last) = (range.start().get(), range.last().get());
        let path = self.directory.join(format!("{first:020}-{last:020}.{EXTENSION}"));
        let temporary = path.with_extension(TEMPORARY);
        let file = File::create(&temporary).map_err(failed("create", &path))?;
        let mut writer = SegmentWriter::new(BufWriter::new(file), &path, range, chunk_bytes)?;
        for record in records {
            writer.append(&record?)?;
        }
        // The footer: without it a reader takes the segment for damaged.
        let mut sink = writer.finish()?;
        sink.flush().map_err(failed("write", &path))?;
        let written = sink.into_inner().map_err(IntoInnerError::into_error);
        let file = written.map_err(failed("write", &path))?;
        file.sync_all().map_err(failed("sync", &path))?;
        let len_bytes = file.metadata().map_err(failed("look at", &path))?.len();
        fs::rename(&temporary, &path).map_err(failed("rename", &path))?;
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("sync the directory of", &path))?;
        let info = SegmentInfo { range, len_bytes, name: path };
        let before = self.segments.lock().insert(range.last(), info);
        assert!(before.is_none(), "no range is published twice");
        Ok(())
    }

    /// Removes segments wholly at or below `xid`. The newest one stays: it says where the log goes
    /// on.
    pub(crate) fn retire(&self, xid: Xid) -> Result<(), FsError> {
        let mut segments = self.segments.lock();
        // From the oldest on, so that a failure leaves no gap.
        while segments.len() > 1
            && let Some(oldest) = segments.first_entry()
            && *oldest.key() <= xid
        {
            let info = oldest.remove();
            fs::remove_file(&info.name).map_err(failed("remove", &info.name))?;
        }
        Ok(())
    }
}

/// The complete segments of a directory; incomplete ones are removed.
fn list(directory: &Path) -> Result<BTreeMap<Xid, SegmentInfo>, FsError> {
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed("list the directory of", directory))? {
        let path = entry.map_err(failed("list the directory of", directory))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension == Some(TEMPORARY) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            continue;
        }
        if extension != Some(EXTENSION) {
            continue;
        }
        let file = File::open(&path).map_err(failed("open", &path))?;
        let len_bytes = file.metadata().map_err(failed("look at", &path))?.len();
        let range = SegmentReader::new(file, &path)?.header().range;
        segments.insert(range.last(), SegmentInfo { range, len_bytes, name: path });
    }
    Ok(segments)
}

fn failed(operation: &'static str, name: &Path) -> impl Fn(io::Error) -> FsError {
    let name = name.to_path_buf();
    move |source| LogError::Io { operation, name: name.clone(), source }.into()
}

#[cfg(test)]
mod tests {
    use tier_log::Operation;
    use tier_types::{Ino, Timestamp};

    use super::*;

    fn range(first: u64, end: u64) -> XidRange {
        XidRange::new(Xid::new(first), Xid::new(end)).unwrap()
    }

    fn records(range: XidRange) -> impl Iterator<Item = Result<LogRecord, FsError>> {
        (range.start().get()..range.end().get()).map(|xid| {
            let operation = Operation::SetAttr { ino: Ino::new(1) };
            Ok(LogRecord { xid: Xid::new(xid), time: Timestamp::default(), operation })
        })
    }

    fn publish(segments: &Segments, range: XidRange) {
        segments.publish(range, 512, records(range)).unwrap();
    }

    fn ranges(segments: &Segments) -> Vec<XidRange> {
        let infos = segments.covering(range(1, u64::MAX));
        infos.into_iter().map(|info| info.range).collect()
    }

    #[test]
    fn published_segments_are_found_again_and_half_ones_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::open(dir.path()).unwrap();
        assert_eq!(segments.last(), None);
        publish(&segments, range(1, 5));
        publish(&segments, range(5, 6));
        fs::write(dir.path().join("half.tmp"), b"half").unwrap();
        fs::write(dir.path().join("notes.txt"), b"of an operator").unwrap();
        let segments = Segments::open(dir.path()).unwrap();
        assert_eq!(ranges(&segments), [range(1, 5), range(5, 6)]);
        assert_eq!(segments.last(), Some(Xid::new(5)));
        assert!(!dir.path().join("half.tmp").exists());
        assert!(dir.path().join("notes.txt").exists(), "a file of another kind is left alone");
        let covering = segments.covering(range(4, 5));
        assert_eq!(covering.iter().map(|info| info.range).collect::<Vec<_>>(), [range(1, 5)]);
    }

    #[test]
    fn a_gap_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::open(dir.path()).unwrap();
        publish(&segments, range(1, 5));
        publish(&segments, range(6, 7));
        let opened = Segments::open(dir.path());
        assert!(matches!(opened, Err(FsError::Damaged { ino: None, damage: Damage::LogSegment })));
    }

    #[test]
    fn records_that_cannot_be_read_leave_nothing_published() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::open(dir.path()).unwrap();
        let missing = || Err(FsError::damaged_store(Damage::LogRecords));
        let broken = records(range(1, 3)).chain(std::iter::once_with(missing));
        segments.publish(range(1, 5), 512, broken).unwrap_err();
        assert_eq!(segments.last(), None);
        // The file of the same range is written anew.
        publish(&segments, range(1, 5));
        assert_eq!(ranges(&Segments::open(dir.path()).unwrap()), [range(1, 5)]);
    }

    #[test]
    fn the_newest_segment_is_never_retired() {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::open(dir.path()).unwrap();
        for first in [1, 4, 7] {
            publish(&segments, range(first, first + 3));
        }
        segments.retire(Xid::new(5)).unwrap();
        assert_eq!(ranges(&segments), [range(4, 7), range(7, 10)], "5 is not its last");
        segments.retire(Xid::new(100)).unwrap();
        assert_eq!(ranges(&segments), [range(7, 10)]);
        assert_eq!(ranges(&Segments::open(dir.path()).unwrap()), [range(7, 10)]);
    }
}
