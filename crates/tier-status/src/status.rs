//! Where a snapshot stands.

use tier_types::{Timestamp, XidRange};

use crate::{Event, EventRecord, StatusHeader, Tier};

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

/// Where a snapshot stands, folded from its events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotStatus {
    /// Which snapshot.
    pub header: StatusHeader,
    /// How far it has got.
    pub stage: Stage,
    /// The farthest tier from which all of it was read back.
    pub verified: Option<Tier>,
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
    /// Inodes that could not be persisted.
    pub failed_inodes: Vec<u64>,
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
            stage: Stage::Persisting,
            verified: None,
            range: None,
            started: None,
            last_event: None,
            n_tarballs: 0,
            n_inodes: 0,
            data_bytes: 0,
            tarball_bytes: 0,
            failed_inodes: Vec::new(),
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
        if !matches!(record.event, Event::Failed { .. } | Event::Resumed) {
            self.last_error = None;
        }
        match &record.event {
            Event::Started { range } => {
                // A later start replaces an attempt that a crash cut short.
                self.range = Some(*range);
                self.started = Some(record.time);
                self.stage = Stage::Persisting;
                self.n_tarballs = 0;
                self.tarball_bytes = 0;
                self.failed_inodes.clear();
            }
            Event::Resumed | Event::Pushed { .. } => {}
            Event::TarballSealed { bytes, .. } => {
                self.n_tarballs += 1;
                self.tarball_bytes = self.tarball_bytes.saturating_add(*bytes);
            }
            Event::InodeFailed { ino, .. } => self.failed_inodes.push(*ino),
            Event::Committed { n_tarballs, n_inodes, data_bytes, tarball_bytes, .. } => {
                self.n_tarballs = *n_tarballs;
                self.n_inodes = *n_inodes;
                self.data_bytes = *data_bytes;
                self.tarball_bytes = *tarball_bytes;
                self.reach(Stage::Committed);
            }
            Event::Indexed => self.reach(Stage::Indexed),
            Event::Verified { tier } => {
                self.verified = self.verified.max(Some(*tier));
                self.reach(match tier {
                    Tier::Local => Stage::VerifiedLocal,
                    Tier::Cloud => Stage::VerifiedCloud,
                });
            }
            Event::Evicted { bytes, .. } => {
                self.evicted_bytes = self.evicted_bytes.saturating_add(*bytes);
                self.reach(Stage::Evicted);
            }
            Event::Failed { step, error } => self.last_error = Some(format!("{step}: {error}")),
        }
    }

    fn reach(&mut self, stage: Stage) {
        self.stage = self.stage.max(stage);
    }
}
