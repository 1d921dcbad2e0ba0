//! Published log segments: immutable files beside the key-value store.
//!
//! Which segments are published says the key-value store, in a row for each. A segment is written
//! under a temporary name, synced, renamed, and its directory synced; then one batch records it and
//! releases its log records. A retirement is recorded, durably, before the first file goes. So a
//! crash, or a step that fails, leaves a recorded segment always with its file, and a file without
//! a record is of no use: the next opening removes it (`agreement`). Nothing has to be undone.
//!
//! The name of a file says its transactions. The header in it is not read before the segment is, so
//! that a damaged one keeps no filesystem from opening; a reader compares the two.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tier_log::{LogError, LogRecord, SegmentWriter};
use tier_types::{SegmentInfo, Xid, XidRange};

use crate::FsError;

const TEMPORARY: &str = "tmp";
const EXTENSION: &str = "segment";

/// The published segments that are not retired.
#[derive(Debug)]
pub(crate) struct Segments {
    directory: PathBuf,
    /// By the last transaction of each.
    by_last: Mutex<BTreeMap<Xid, SegmentInfo>>,
    /// One retirement at a time. Nothing but that takes it.
    retiring: Mutex<()>,
}

/// What lies in the directory of segments, recorded or not.
#[derive(Debug, Default)]
pub(super) struct FoundSegments {
    /// The files with the name of a segment.
    pub(super) segments: BTreeMap<PathBuf, SegmentInfo>,
    /// What a crash left half written.
    pub(super) leftovers: Vec<PathBuf>,
}

impl Segments {
    /// The segments that were recorded, by the last transaction of each.
    pub(super) fn new(directory: &Path, segments: BTreeMap<Xid, SegmentInfo>) -> Self {
        Self {
            directory: directory.to_path_buf(),
            by_last: Mutex::new(segments),
            retiring: Mutex::new(()),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// From now on these are the recorded segments.
    pub(super) fn replace(&self, segments: BTreeMap<Xid, SegmentInfo>) {
        *self.by_last.lock() = segments;
    }

    /// Bytes of all their files.
    pub(crate) fn bytes(&self) -> u64 {
        self.by_last.lock().values().map(|info| info.len_bytes).sum()
    }

    /// The last published transaction.
    pub(crate) fn last(&self) -> Option<Xid> {
        self.by_last.lock().last_key_value().map(|(last, _)| *last)
    }

    /// The segments that hold any of `range`, in order.
    pub(crate) fn covering(&self, range: XidRange) -> Vec<SegmentInfo> {
        let segments = self.by_last.lock();
        let covering = segments.range(range.start()..).map(|(_, info)| info);
        covering.take_while(|info| info.range.start() < range.end()).cloned().collect()
    }

    /// Writes the records of a range into a segment, durably. It is not published before it was
    /// recorded and [added](Self::add).
    pub(crate) fn write(
        &self,
        range: XidRange,
        chunk_bytes: u32,
        records: impl Iterator<Item = Result<LogRecord, FsError>>,
    ) -> Result<SegmentInfo, FsError> {
        let path = path(&self.directory, range);
        let temporary = path.with_extension(TEMPORARY);
        let written = self.write_as(&path, &temporary, range, chunk_bytes, records);
        if written.is_err() {
            // Each attempt covers another range and has other names, and the cause may be a disk
            // that is full. What cannot be removed now is so at the next opening.
            for path in [&temporary, &path] {
                let _ = fs::remove_file(path);
            }
        }
        written
    }

    fn write_as(
        &self,
        path: &Path,
        temporary: &Path,
        range: XidRange,
        chunk_bytes: u32,
        records: impl Iterator<Item = Result<LogRecord, FsError>>,
    ) -> Result<SegmentInfo, FsError> {
        let file = File::create(temporary).map_err(failed("create", path))?;
        let mut writer = SegmentWriter::new(BufWriter::new(file), path, range, chunk_bytes)?;
        for record in records {
            writer.append(&record?)?;
        }
        // The footer: without it a reader takes the segment for damaged.
        let mut sink = writer.finish()?;
        sink.flush().map_err(failed("write", path))?;
        let written = sink.into_inner().map_err(IntoInnerError::into_error);
        let file = written.map_err(failed("write", path))?;
        file.sync_all().map_err(failed("sync", path))?;
        let len_bytes = file.metadata().map_err(failed("look at", path))?.len();
        fs::rename(temporary, path).map_err(failed("rename", path))?;
        // Before the segment is recorded: a record that survives a loss of power while the name
        // does not would be a loss to the next opening.
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("sync the directory of", path))?;
        Ok(SegmentInfo { range, len_bytes, name: path.to_path_buf() })
    }

    /// Adds a segment that was recorded to the published ones.
    pub(crate) fn add(&self, segment: SegmentInfo) {
        let mut segments = self.by_last.lock();
        let before = segments.last_key_value().map(|(last, _)| *last);
        assert!(before.is_none_or(|last| last.next() == segment.range.start()), "without a gap");
        segments.insert(segment.range.last(), segment);
    }

    /// Segments wholly at or below `xid`, but for the newest one.
    fn wholly_below(&self, xid: Xid) -> Vec<SegmentInfo> {
        let segments = self.by_last.lock();
        let Some((&newest, _)) = segments.last_key_value() else { return Vec::new() };
        // By the newest one an opening knows where the unpublished records begin: without it they
        // would be expected from the floor on.
        let below = segments.range(..=xid).filter(|(last, _)| **last != newest);
        below.map(|(_, info)| info.clone()).collect()
    }

    /// Removes segments wholly at or below `xid`; `record` is to record that they are retired,
    /// durably. The newest one stays.
    pub(crate) fn retire(
        &self,
        xid: Xid,
        record: impl FnOnce(&[XidRange]) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        // Over all steps: a second retirement would find the same segments and fail at removed
        // files.
        let _retiring = self.retiring.lock();
        let retired = self.wholly_below(xid);
        if retired.is_empty() {
            return Ok(());
        }
        // Without the lock: what records takes others, under which the sizes of segments are asked.
        record(&retired.iter().map(|info| info.range).collect::<Vec<_>>())?;
        let mut segments = self.by_last.lock();
        for info in &retired {
            segments.remove(&info.range.last());
        }
        drop(segments);
        // Each is tried: what stays is not recorded any more, and goes at the next opening.
        let remove =
            |info: &SegmentInfo| fs::remove_file(&info.name).map_err(failed("remove", &info.name));
        let removed: Vec<_> = retired.iter().map(remove).collect();
        removed.into_iter().collect()
    }
}

/// Where the segment of a range is.
pub(super) fn path(directory: &Path, range: XidRange) -> PathBuf {
    let (first, last) = (range.start().get(), range.last().get());
    directory.join(format!("{first:020}-{last:020}.{EXTENSION}"))
}

/// The range in the name of a segment's file.
fn range_of(path: &Path) -> Option<XidRange> {
    let (first, last) = path.file_stem()?.to_str()?.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    let range = XidRange::new(Xid::new(first.parse().ok()?), Xid::new(end))?;
    // A number can be written in several ways, and a segment has one name.
    (self::path(path.parent()?, range) == path).then_some(range)
}

/// Finds the files of segments, and what a crash left half written. Other files are left alone.
pub(super) fn find(directory: &Path) -> Result<FoundSegments, FsError> {
    let mut found = FoundSegments::default();
    let entries = match fs::read_dir(directory) {
        // Then nothing is found, and each segment that was recorded is missing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(failed("list the directory of", directory))?,
    };
    for entry in entries {
        let path = entry.map_err(failed("list the directory of", directory))?.path();
        if path.extension().is_some_and(|extension| extension == TEMPORARY) {
            found.leftovers.push(path);
        } else if let Some(range) = range_of(&path) {
            let len_bytes = fs::metadata(&path).map_err(failed("look at", &path))?.len();
            found.segments.insert(path.clone(), SegmentInfo { range, len_bytes, name: path });
        }
    }
    Ok(found)
}

/// Makes the directory of segments, with those above it.
pub(super) fn make_directory(directory: &Path) -> Result<(), FsError> {
    fs::create_dir_all(directory).map_err(failed("create the directory of", directory))
}

/// Removes files that belong to nothing.
pub(super) fn remove_leftovers(leftovers: &[PathBuf]) {
    for path in leftovers {
        tracing::debug!(path = %path.display(), "removing what a publication or retirement left");
        // It is in no one's way: what is not recorded is never read, and a segment of the same
        // range takes its place.
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
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
    use crate::error::Damage;

    fn range(first: u64, end: u64) -> XidRange {
        XidRange::new(Xid::new(first), Xid::new(end)).unwrap()
    }

    fn records(range: XidRange) -> impl Iterator<Item = Result<LogRecord, FsError>> {
        (range.start().get()..range.end().get()).map(|xid| {
            let operation = Operation::SetAttr { ino: Ino::new(1) };
            Ok(LogRecord { xid: Xid::new(xid), time: Timestamp::default(), operation })
        })
    }

    fn empty() -> (tempfile::TempDir, Segments) {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::new(dir.path(), BTreeMap::new());
        (dir, segments)
    }

    fn publish(segments: &Segments, range: XidRange) {
        segments.add(segments.write(range, 512, records(range)).unwrap());
    }

    fn ranges(segments: &Segments) -> Vec<XidRange> {
        let infos = segments.covering(range(1, u64::MAX));
        infos.into_iter().map(|info| info.range).collect()
    }

    fn found(directory: &Path) -> Vec<XidRange> {
        find(directory).unwrap().segments.into_values().map(|info| info.range).collect()
    }

    #[test]
    fn segments_are_found_by_their_names_whatever_is_in_them() {
        let (dir, segments) = empty();
        assert_eq!(segments.last(), None);
        publish(&segments, range(1, 5));
        publish(&segments, range(5, 6));
        for (name, content) in [
            ("half.tmp", "half"),
            ("notes.txt", "of an operator"),
            ("7-8.segment", "another name"),
            ("00000000000000000009-00000000000000000008.segment", "no range"),
            ("00000000000000000006-00000000000000000007.segment", "damaged"),
        ] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        assert_eq!(found(dir.path()), [range(1, 5), range(5, 6), range(6, 8)]);
        let found = find(dir.path()).unwrap();
        assert_eq!(found.leftovers, [dir.path().join("half.tmp")]);
        assert_eq!(found.segments.last_key_value().unwrap().1.len_bytes, 7);
        remove_leftovers(&found.leftovers);
        remove_leftovers(&found.leftovers);
        assert!(!dir.path().join("half.tmp").exists());
        let covering = segments.covering(range(4, 5));
        assert_eq!(covering.iter().map(|info| info.range).collect::<Vec<_>>(), [range(1, 5)]);
    }

    #[test]
    fn an_attempt_that_fails_leaves_no_file() {
        let (dir, segments) = empty();
        let missing = || Err(FsError::damaged_store(Damage::LogRecords));
        let broken = records(range(1, 3)).chain(std::iter::once_with(missing));
        segments.write(range(1, 5), 512, broken).unwrap_err();
        assert_eq!(segments.last(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        // The file of the same range is written anew.
        publish(&segments, range(1, 5));
        assert_eq!(ranges(&segments), [range(1, 5)]);
    }

    #[test]
    fn the_newest_segment_is_never_retired() {
        let (dir, segments) = empty();
        for first in [1, 4, 7] {
            publish(&segments, range(first, first + 3));
        }
        segments
            .retire(Xid::new(5), |retired| {
                assert_eq!(retired, [range(1, 4)]);
                Ok(())
            })
            .unwrap();
        assert_eq!(ranges(&segments), [range(4, 7), range(7, 10)], "5 is not its last");
        segments
            .retire(Xid::new(100), |retired| {
                assert_eq!(retired, [range(4, 7)]);
                Ok(())
            })
            .unwrap();
        assert_eq!(ranges(&segments), [range(7, 10)]);
        assert_eq!(found(dir.path()), [range(7, 10)]);
        segments.retire(Xid::new(100), |_| panic!("there is none to record")).unwrap();
    }

    #[test]
    fn what_records_a_retirement_may_ask_for_segments() {
        let (_dir, segments) = empty();
        publish(&segments, range(1, 11));
        publish(&segments, range(11, 21));
        let record = |retired: &[XidRange]| {
            assert_eq!(retired, [range(1, 11)]);
            assert!(segments.bytes() > 0 && segments.last().is_some(), "they are there still");
            Ok(())
        };
        segments.retire(Xid::new(15), record).unwrap();
        assert_eq!(ranges(&segments), [range(11, 21)]);
    }

    #[test]
    fn nothing_is_removed_that_was_not_recorded_as_retired() {
        let (dir, segments) = empty();
        for first in [1, 4, 7] {
            publish(&segments, range(first, first + 3));
        }
        segments.retire(Xid::new(100), |_| Err(FsError::Poisoned)).unwrap_err();
        assert_eq!(ranges(&segments).len(), 3);
        assert_eq!(found(dir.path()).len(), 3);
        // A file that cannot be removed keeps no other one, and is not published any more.
        let first = path(dir.path(), range(1, 4));
        fs::remove_file(&first).unwrap();
        fs::create_dir(&first).unwrap();
        segments.retire(Xid::new(100), |_| Ok(())).unwrap_err();
        assert_eq!(ranges(&segments), [range(7, 10)]);
        assert_eq!(found(dir.path()), [range(1, 4), range(7, 10)]);
    }
}
