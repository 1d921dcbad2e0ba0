//! The status of a snapshot: its events, folded.
//!
//! The fold is the one model of how far a snapshot has got, for the agent that resumes from it and
//! for everything that shows it. A stage includes the earlier ones, and an event only raises it, so
//! that events of a step that was repeated after a crash change nothing. One event starts over:
//! `started`, because a snapshot is started again only if no manifest committed it, and then what
//! an earlier attempt wrote is discarded.
//!
//! Where a snapshot was verified is kept by place, because that is what eviction relies on: it
//! counts for one cloud under one URL and for no other, and can be taken back. The stage that is
//! shown depends therefore on the place that counts ([`SnapshotStatus::stage_in`]).

use std::collections::{BTreeMap, HashSet};

use tier_types::{ByteRange, CloudPlace, SnapshotId, Timestamp, XidRange};

use crate::{Event, EventRecord, Place, StatusHeader};

/// How far a snapshot has got. A later stage includes the earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Not committed: after a crash, what there is of it is discarded.
    Persisting,
    /// The manifest is durable.
    Committed,
    /// The index knows it.
    Indexed,
    /// Read back from the local store and compared.
    VerifiedLocal,
    /// Read back from the cloud store and compared.
    VerifiedCloud,
    /// The evicter went through it.
    Evicted,
}

/// Bytes of an inode that could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnreadRange {
    /// The inode's number.
    pub ino: u64,
    /// Its bytes.
    pub bytes: ByteRange,
}

/// How far a snapshot has got, folded from its events.
///
/// ```
/// # use std::error::Error;
/// # use std::sync::Arc;
/// use tier_status::{Event, Stage, StatusHeader, StatusLog, StatusSink, StatusWriter};
/// use tier_status::Place;
/// use tier_types::{CloudId, CloudPlace, Epoch, SnapshotId, SystemClock, Xid, XidRange};
///
/// # fn main() -> Result<(), Box<dyn Error>> {
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("e00000001-s0000000007.status");
/// let header = StatusHeader { epoch: Epoch::new(1), snapshot: SnapshotId::new(7) };
/// let range = XidRange::new(Xid::new(1), Xid::new(100)).ok_or("an empty range")?;
///
/// let writer = StatusWriter::open(&path, header, Arc::new(SystemClock))?;
/// writer.report(Event::Started { range })?;
/// writer.report(Event::Failed { step: "push".into(), error: "the cloud is away".into() })?;
/// let id = CloudId::from_bytes([7; 16]);
/// let place = Place::Cloud(CloudPlace { id, url: "file:///mnt/backup".into() });
/// writer.report(Event::Verified { place: place.clone() })?;
/// drop(writer);
///
/// let status = StatusLog::read(&path)?.ok_or("an empty log")?.status();
/// assert_eq!(status.header, header);
/// assert_eq!((status.range, status.stage_in(&place)), (Some(range), Stage::VerifiedCloud));
/// assert!(!status.is_verified_in(&Place::Local), "what counts for one place counts there alone");
/// assert_eq!(status.last_error, None, "a step succeeded since");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotStatus {
    /// The snapshot.
    pub header: StatusHeader,
    /// Persisting, committed or indexed.
    reached: Stage,
    /// Whether the evicter went through it.
    evicted: bool,
    /// From where all of it was read back.
    pub verified: Vec<Place>,
    /// From where all of it was read back once, also if that was taken back.
    pub was_verified: Vec<Place>,
    /// Objects that were put into a cloud and compared there, as long as not all of them are
    /// verified.
    pub pushed: Vec<(CloudPlace, String)>,
    /// Where all that came before it was when the store was restored by it.
    pub restored_from: Option<Place>,
    /// Objects that no copy has, each with the checkpoint that does without it: by itself the
    /// snapshot is not safe any more, and all that is left of it is what is verified.
    pub lost_objects: BTreeMap<String, Option<SnapshotId>>,
    /// How often it was started: attempts at it, of which the last one may have come through.
    pub n_attempts: u64,
    /// Its transactions, once it started.
    pub range: Option<XidRange>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When the last event happened.
    pub last_event: Option<Timestamp>,
    /// Tarballs sealed.
    pub n_tarballs: u64,
    /// Inodes persisted, once committed.
    pub n_inodes: u64,
    /// File data persisted before compression, once committed.
    pub data_bytes: u64,
    /// Length of the tarballs.
    pub tarball_bytes: u64,
    /// Inodes that could not be read in full, and are tried again.
    pub failed_inodes: Vec<u64>,
    /// Ranges that are damaged or missing.
    pub unread_ranges: Vec<UnreadRange>,
    /// Chunk bytes that left the key-value store.
    pub evicted_bytes: u64,
    /// The last failure, unless something succeeded after it.
    pub last_error: Option<String>,
}

impl SnapshotStatus {
    /// Folds events, in order.
    pub fn fold(header: StatusHeader, records: &[EventRecord]) -> Self {
        let mut status = Self {
            header,
            reached: Stage::Persisting,
            evicted: false,
            verified: Vec::new(),
            was_verified: Vec::new(),
            pushed: Vec::new(),
            restored_from: None,
            lost_objects: BTreeMap::new(),
            n_attempts: 0,
            range: None,
            started: None,
            last_event: None,
            n_tarballs: 0,
            n_inodes: 0,
            data_bytes: 0,
            tarball_bytes: 0,
            failed_inodes: Vec::new(),
            unread_ranges: Vec::new(),
            evicted_bytes: 0,
            last_error: None,
        };
        for record in records {
            status.add(record);
        }
        status
    }

    /// Adds one event.
    pub fn add(&mut self, record: &EventRecord) {
        self.last_event = Some(record.time);
        // `resumed` says that work goes on, and not that any of it succeeded.
        if !matches!(record.event, Event::Failed { .. } | Event::Resumed) {
            self.last_error = None;
        }
        match &record.event {
            Event::Started { range } => {
                // A later start replaces an attempt that a crash cut short.
                self.n_attempts = self.n_attempts.saturating_add(1);
                self.range = Some(*range);
                self.started = Some(record.time);
                // `verified` needs no reset: what was verified was committed, and that is not
                // started again.
                self.reached = Stage::Persisting;
                self.n_tarballs = 0;
                self.tarball_bytes = 0;
                self.failed_inodes.clear();
                self.unread_ranges.clear();
            }
            // An object by itself makes nothing safe: only the event that follows the last one
            // does.
            Event::Resumed => {}
            Event::Pushed { name, cloud, .. } => self.pushed.push((cloud.clone(), name.clone())),
            Event::TarballSealed { bytes, .. } => {
                self.n_tarballs += 1;
                // From a file and only shown: a sum that does not fit must not end the agent.
                self.tarball_bytes = self.tarball_bytes.saturating_add(*bytes);
            }
            Event::InodeFailed { ino, .. } => self.failed_inodes.push(*ino),
            Event::RangeUnread { ino, bytes, .. } => {
                self.unread_ranges.push(UnreadRange { ino: *ino, bytes: *bytes });
            }
            // The manifest counts, whatever was sealed on the way to it.
            Event::Committed { n_tarballs, n_inodes, data_bytes, tarball_bytes, .. } => {
                self.n_tarballs = *n_tarballs;
                self.n_inodes = *n_inodes;
                self.data_bytes = *data_bytes;
                self.tarball_bytes = *tarball_bytes;
                self.reach(Stage::Committed);
            }
            Event::Indexed => self.reach(Stage::Indexed),
            Event::Verified { place } => {
                self.forget_pushed(place);
                for places in [&mut self.verified, &mut self.was_verified] {
                    if !places.contains(place) {
                        places.push(place.clone());
                    }
                }
            }
            Event::Unverified { place, problem } => {
                self.forget_pushed(place);
                self.verified.retain(|verified| verified != place);
                self.last_error = Some(format!("{place}: {problem}"));
            }
            Event::RestoredFrom { place } => self.restored_from = Some(place.clone()),
            Event::ObjectLost { name, checkpoint } => {
                self.lost_objects.insert(name.clone(), *checkpoint);
            }
            Event::ObjectFound { name } => {
                self.lost_objects.remove(name);
            }
            Event::Evicted { bytes, .. } => {
                self.evicted_bytes = self.evicted_bytes.saturating_add(*bytes);
                self.evicted = true;
            }
            // Only shown: what comes next follows from the stage and not from an error.
            Event::Failed { step, error } => self.last_error = Some(format!("{step}: {error}")),
        }
        let was_verified = |place: &Place| self.was_verified.contains(place);
        assert!(self.verified.iter().all(was_verified), "what is verified once was");
    }

    /// Whether all of it was read back from there and compared.
    pub fn is_verified_in(&self, place: &Place) -> bool {
        self.verified.contains(place)
    }

    /// The objects that were put into a place and compared there, as long as not all of them are
    /// verified.
    pub fn pushed_to(&self, place: &Place) -> HashSet<&str> {
        let of_place = |(cloud, _): &&(CloudPlace, String)| match place {
            Place::Cloud(place) => place == cloud,
            Place::Local => false,
        };
        self.pushed.iter().filter(of_place).map(|(_, name)| name.as_str()).collect()
    }

    /// The checkpoint from which on one must be there that does without what is lost of it; `None`
    /// if nothing is.
    pub fn needs_checkpoint(&self) -> Option<SnapshotId> {
        self.lost_objects
            .values()
            .map(|checkpoint| checkpoint.unwrap_or(self.header.snapshot))
            .max()
    }

    /// Whether its manifest is durable.
    pub fn is_committed(&self) -> bool {
        self.reached >= Stage::Committed
    }

    /// Whether the index knows it.
    pub fn is_indexed(&self) -> bool {
        self.reached >= Stage::Indexed
    }

    /// How far it has got, where only this place counts.
    pub fn stage_in(&self, place: &Place) -> Stage {
        if !self.is_verified_in(place) {
            return self.reached;
        }
        match (self.evicted, place) {
            (true, _) => Stage::Evicted,
            (false, Place::Cloud(_)) => Stage::VerifiedCloud,
            (false, Place::Local) => Stage::VerifiedLocal,
        }
    }

    /// An object by itself is of interest only until all of them were verified, or none is.
    fn forget_pushed(&mut self, place: &Place) {
        if let Place::Cloud(cloud) = place {
            self.pushed.retain(|(pushed, _)| pushed != cloud);
        }
    }

    fn reach(&mut self, stage: Stage) {
        self.reached = self.reached.max(stage);
    }
}

#[cfg(test)]
mod tests {
    use tier_types::{CloudId, Epoch, SnapshotId, Xid};

    use super::*;

    const HEADER: StatusHeader =
        StatusHeader { epoch: Epoch::new(1), snapshot: SnapshotId::new(2) };

    fn at(seconds: i64, event: Event) -> EventRecord {
        EventRecord { time: Timestamp { seconds, nanos: 0 }, event }
    }

    fn fold(events: impl IntoIterator<Item = Event>) -> SnapshotStatus {
        let records: Vec<_> = (1..).zip(events).map(|(n, event)| at(n, event)).collect();
        SnapshotStatus::fold(HEADER, &records)
    }

    fn started(start: u64, end: u64) -> Event {
        Event::Started { range: XidRange::new(Xid::new(start), Xid::new(end)).unwrap() }
    }

    fn sealed(bytes: u64) -> Event {
        Event::TarballSealed { name: "t".into(), bytes, n_members: 1 }
    }

    fn committed() -> Event {
        Event::Committed {
            manifest: "m".into(),
            n_tarballs: 1,
            n_inodes: 3,
            data_bytes: 50,
            tarball_bytes: 10,
        }
    }

    #[test]
    fn a_later_start_replaces_an_attempt_that_a_crash_cut_short() {
        let failed = Event::InodeFailed { ino: 9, error: "damaged".into() };
        let unread = Event::RangeUnread {
            ino: 8,
            bytes: ByteRange { offset: 512, len: 512 },
            error: "damaged".into(),
        };
        assert_eq!(fold([started(1, 5), unread.clone()]).unread_ranges.len(), 1);
        let status = fold([started(1, 5), sealed(7), failed, unread, started(1, 8), sealed(4)]);
        assert_eq!(status.range.map(XidRange::end), Some(Xid::new(8)));
        assert_eq!((status.n_tarballs, status.tarball_bytes), (1, 4));
        assert_eq!((status.failed_inodes, status.reached), (Vec::new(), Stage::Persisting));
        assert_eq!(status.unread_ranges, []);
        assert_eq!(status.started.map(|time| time.seconds), Some(5));
        assert_eq!(status.last_event.map(|time| time.seconds), Some(6));
    }

    #[test]
    fn what_was_committed_counts_and_not_what_was_sealed() {
        let status = fold([started(1, 5), sealed(7), sealed(9), committed()]);
        assert_eq!((status.n_tarballs, status.tarball_bytes), (1, 10));
        assert_eq!((status.n_inodes, status.data_bytes), (3, 50));
        assert_eq!(status.stage_in(&Place::Local), Stage::Committed);
        assert!(status.is_committed() && !status.is_indexed());
    }

    fn cloud(url: &str) -> CloudPlace {
        CloudPlace { id: CloudId::from_bytes([9; 16]), url: url.into() }
    }

    #[test]
    fn an_event_that_is_repeated_takes_no_stage_back() {
        let place = Place::Cloud(cloud("a"));
        let verified = Event::Verified { place: place.clone() };
        let evicted = Event::Evicted { n_inodes: 1, bytes: 5 };
        let status = fold([committed(), verified, evicted.clone(), Event::Resumed, Event::Indexed]);
        assert_eq!(status.stage_in(&place), Stage::Evicted);
        let again = fold([committed(), evicted.clone(), evicted]);
        assert_eq!(again.evicted_bytes, 10, "every pass counts");
    }

    #[test]
    fn what_is_verified_counts_in_its_place_alone_and_can_be_taken_back() {
        let [a, b] = ["a", "b"].map(|url| Place::Cloud(cloud(url)));
        let verified = |place: &Place| Event::Verified { place: place.clone() };
        let status = fold([committed(), Event::Indexed, verified(&a), verified(&Place::Local)]);
        assert_eq!(status.stage_in(&a), Stage::VerifiedCloud);
        assert_eq!(status.stage_in(&b), Stage::Indexed, "the same cloud under another URL");
        assert_eq!(status.stage_in(&Place::Local), Stage::VerifiedLocal);
        let fell = Event::Unverified { place: a.clone(), problem: "a tarball is damaged".into() };
        let status = fold([verified(&a), verified(&Place::Local), fell]);
        assert!(!status.is_verified_in(&a) && status.is_verified_in(&Place::Local));
        assert!(status.was_verified.contains(&a));
        assert_eq!(status.last_error, Some(format!("{a}: a tarball is damaged")));
    }

    #[test]
    fn what_was_pushed_is_known_until_all_is_verified() {
        let pushed = |url| Event::Pushed { name: "t".into(), bytes: 1, cloud: cloud(url) };
        let status = fold([pushed("a"), pushed("b")]);
        assert_eq!(status.pushed.len(), 2);
        let verified = Event::Verified { place: Place::Cloud(cloud("a")) };
        let status = fold([pushed("a"), pushed("b"), verified]);
        assert_eq!(status.pushed, [(cloud("b"), "t".to_string())]);
    }

    #[test]
    fn an_error_is_shown_until_a_step_succeeds() {
        let failed = Event::Failed { step: "push".into(), error: "away".into() };
        let shown = Some("push: away".to_string());
        assert_eq!(fold([failed.clone()]).last_error, shown);
        assert_eq!(fold([failed.clone(), Event::Resumed]).last_error, shown);
        let pushed = Event::Pushed { name: "t".into(), bytes: 1, cloud: cloud("a") };
        assert_eq!(fold([failed, pushed]).last_error, None);
    }

    #[test]
    fn counts_from_a_damaged_disk_do_not_overflow() {
        let status = fold([sealed(u64::MAX), sealed(1)]);
        assert_eq!((status.n_tarballs, status.tarball_bytes), (2, u64::MAX));
    }
}
