//! The limits of what is written: of frames, members, parts, windows, tarballs, and of what is
//! under way between them.
//!
//! Some come from [`PersistOptions`], the others are constants that no caller needs to set; all of
//! them are here, so that the memory which persisting takes can be added up in one place. With the
//! default options it is at most
//!
//! - a window of members that are planned and not yet cut into frames: [`WINDOW_BYTES_MAX`] of
//!   headers, without their data;
//! - for each worker the data and the tar stream of one job, twice at most a whole member or a
//!   frame;
//! - three frames for each worker that are built and not yet in a run ([`jobs_under_way_max`]);
//! - [`RUNS_UNDER_WAY_MAX`] runs of 1 MiB for each tarball, of which there are
//!   [`TARBALLS_PENDING_MAX`] besides the one that is being built;
//! - the table of contents of that one.
//!
//! The format's own limit, [`FRAME_BYTES_MAX`], is above all of the options: a reader refuses
//! a larger frame, and a writer that would make one fails.

use tier_types::{to_u64, to_usize};

use crate::format::tarball::layout::FRAME_BYTES_MAX;
use crate::write::options::PersistOptions;

/// Runs that are asked of the snapshot's chunk map at a time: what a planner holds of one file.
pub(crate) const RUNS_PER_READ: usize = 1024;
/// Runs of one member; more would make its header longer than its data.
const MEMBER_RUNS_MAX: usize = 1000;
/// Longest path of a member; what is longer goes under a number.
pub(crate) const PATH_BYTES_MAX: usize = 4000;
/// Members that are put into a better order before they are cut into frames. The order gets little
/// better with more: files of one directory mostly come together anyway, because inodes are
/// numbered as they are made.
pub(crate) const WINDOW_MEMBERS_MAX: usize = 4096;
/// What the headers of these members may take in memory.
pub(crate) const WINDOW_BYTES_MAX: usize = 16 << 20;
/// Longest part of a table of contents, but for one with a single longer group. A part is
/// decompressed as a whole to read any of it.
pub(crate) const TOC_PART_BYTES_MAX: usize = 1 << 20;
/// Runs of one tarball on their way to its writer: enough that the sequencer need not wait for a
/// single slow write, and no more, because the kernel keeps what is written and not yet on the
/// disk.
pub(crate) const RUNS_UNDER_WAY_MAX: u64 = 8;
/// Tarballs whose last bytes are still on their way while the next one is built.
const TARBALLS_PENDING_MAX: usize = 2;
/// Written bytes after which they are sent on to the disk, so that little is left for the end.
pub(crate) const WRITE_BACK_BYTES: u64 = 16 << 20;

/// Jobs that are with the workers or wait for their turn in the sequencer.
pub(crate) fn jobs_under_way_max(n_workers: usize) -> usize {
    // One is being built, one waits to be, and one waits for its turn in the order.
    3 * n_workers + 1
}

/// All limits of one snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) frame: FrameLimits,
    pub(crate) member: MemberLimits,
    pub(crate) tarball: TarballLimits,
}

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameLimits {
    /// The filesystem's chunk size.
    pub(crate) chunk_bytes: usize,
    /// Plaintext bytes after which a frame ends; a single chunk may be larger.
    pub(crate) frame_bytes: usize,
}

/// The most that members hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemberLimits {
    /// The filesystem's chunk size.
    pub(crate) chunk_bytes: u32,
    /// A file up to this size can be one member.
    pub(crate) whole_bytes: u64,
    /// Data bytes of one member with a part of a file; at least a chunk.
    pub(crate) part_bytes: u64,
    /// A file up to this size is written whole even if only part of it changed.
    pub(crate) rewrite_bytes: u64,
    /// Runs of one member.
    pub(crate) n_runs: usize,
}

/// When a tarball is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TarballLimits {
    pub(crate) n_bytes: u64,
    pub(crate) n_members: u64,
    /// Tarballs whose last bytes are still on their way while the next one is built.
    pub(crate) pending_max: usize,
}

impl Limits {
    /// The limits that follow from options and the filesystem's chunk size.
    pub(crate) fn of(options: &PersistOptions, chunk_bytes: u32) -> Self {
        let PersistOptions { frame_bytes, member_bytes_max, rewrite_bytes_max, .. } = *options;
        // The chunk size is the filesystem's, and set for ever when it is made.
        assert!(frame_bytes > 0 && chunk_bytes > 0, "a frame holds something");
        assert!(chunk_bytes < FRAME_BYTES_MAX, "a chunk and its header fit into a frame");
        Self {
            frame: FrameLimits { chunk_bytes: to_usize(u64::from(chunk_bytes)), frame_bytes },
            member: MemberLimits {
                chunk_bytes,
                whole_bytes: member_bytes_max,
                // A part is a frame, so that a range of a large file is read with one frame; and a
                // chunk is never cut.
                part_bytes: to_u64(frame_bytes).max(u64::from(chunk_bytes)),
                rewrite_bytes: rewrite_bytes_max,
                n_runs: MEMBER_RUNS_MAX,
            },
            tarball: TarballLimits {
                n_bytes: options.tarball_bytes,
                n_members: options.tarball_members,
                pending_max: TARBALLS_PENDING_MAX,
            },
        }
    }
}

impl TarballLimits {
    /// The same where no more bytes have room. Then each tarball is told of as soon as it can be,
    /// because the next one may wait for its room.
    pub(crate) fn bounded(self, n_bytes_max: u64) -> Self {
        if n_bytes_max >= self.n_bytes {
            self
        } else {
            Self { n_bytes: n_bytes_max, pending_max: 0, ..self }
        }
    }

    /// Whether a tarball of this length and content takes no more members.
    pub(crate) fn is_full(self, n_bytes: u64, n_members: u64) -> bool {
        n_bytes >= self.n_bytes || n_members >= self.n_members
    }
}
