//! Status events: everything of interest that can happen to a persisted snapshot.
//!
//! An event says what is true from now on, not what is about to be tried: it is recorded after the
//! work that it tells of is durable. A crash between the two loses the event, never the work, and
//! the work is found again or repeated.

use std::fmt;

use tier_types::{ByteRange, CloudPlace, Epoch, SnapshotId, Timestamp, XidRange};

/// Which snapshot a status log is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusHeader {
    /// The writer's term.
    pub epoch: Epoch,
    /// The snapshot.
    pub snapshot: SnapshotId,
}

/// Where a snapshot was read back and compared.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// The local store.
    Local,
    /// A cloud.
    Cloud(CloudPlace),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => write!(f, "the local store"),
            Self::Cloud(place) => write!(f, "{place}"),
        }
    }
}

/// Something that happened to a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Persisting these transactions began.
    Started {
        /// The transactions.
        range: XidRange,
    },
    /// Work went on after a crash or a stop.
    Resumed,
    /// A tarball is complete and durable under its final name.
    TarballSealed {
        /// Its name.
        name: String,
        /// Its length.
        bytes: u64,
        /// Its members.
        n_members: u64,
    },
    /// An inode could not be read in full; the next snapshot tries again.
    InodeFailed {
        /// The inode's number.
        ino: u64,
        /// The error with its causes.
        error: String,
    },
    /// Bytes of an inode are damaged or missing, and the rest of it is persisted. They are lost
    /// unless an earlier snapshot has them; only new content is tried again.
    RangeUnread {
        /// The inode's number.
        ino: u64,
        /// Its bytes.
        bytes: ByteRange,
        /// The error with its causes.
        error: String,
    },
    /// The manifest is durable: the snapshot exists.
    Committed {
        /// The manifest's name.
        manifest: String,
        /// Its tarballs.
        n_tarballs: u64,
        /// Inodes persisted.
        n_inodes: u64,
        /// File data persisted, before compression.
        data_bytes: u64,
        /// Length of all tarballs.
        tarball_bytes: u64,
    },
    /// The index is brought up to the manifest.
    Indexed,
    /// An object was put into a cloud, read back and compared.
    Pushed {
        /// Its name.
        name: String,
        /// Its length.
        bytes: u64,
        /// Where.
        cloud: CloudPlace,
    },
    /// Every object was read back from here and compared, and all that it needs is there.
    Verified {
        /// Where.
        place: Place,
    },
    /// That is not true any more, or not known.
    Unverified {
        /// Where.
        place: Place,
        /// What is wrong.
        problem: String,
    },
    /// The store was restored by this checkpoint: what came before it is there, and has no logs
    /// here.
    RestoredFrom {
        /// Where.
        place: Place,
    },
    /// No copy has this object whole. What it held is in a later snapshot as far as the filesystem
    /// has it, and is lost otherwise.
    ObjectLost {
        /// Its name.
        name: String,
        /// The checkpoint that says what is live without it. Another checkpoint needs none.
        checkpoint: Option<SnapshotId>,
    },
    /// A copy has it again: it counts as any other object does.
    ObjectFound {
        /// Its name.
        name: String,
    },
    /// The evicter went through all of the snapshot's inodes.
    Evicted {
        /// Inodes that lost data to a detour.
        n_inodes: u64,
        /// Chunk bytes that left the key-value store.
        bytes: u64,
    },
    /// A step failed; it is tried again.
    Failed {
        /// The step's name, for messages.
        step: String,
        /// The error with its causes.
        error: String,
    },
}

/// An event with its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventRecord {
    /// When it was reported.
    pub time: Timestamp,
    /// What happened.
    pub event: Event,
}
