//! What a persister has written and not committed.

use std::collections::BTreeSet;

use tier_types::to_u64;

use crate::error::PersistError;
use crate::format::tarball::row::TarballObject;
use crate::write::pipeline::sequencer::Sequenced;
use crate::write::planner::Planned;
use crate::write::request::PersistReport;
use crate::write::unread::UnreadRuns;

/// So many inodes that cannot be read, at least, and more than one in so many, are no matter of
/// single inodes any more.
const N_UNREAD_MAX: u64 = 100;
const UNREAD_ONE_IN: u64 = 4;

/// Tarballs that are written and not committed, and what the snapshot comes to.
pub(super) struct Written {
    pub(super) tarballs: Vec<TarballObject>,
    pub(super) report: PersistReport,
    pub(super) unread: UnreadRuns,
}

impl Written {
    pub(super) fn of(planned: Planned, sequenced: Sequenced) -> Self {
        let Sequenced { tarballs, data_bytes, failed, unread } = sequenced;
        // An inode may fail more than once, with several of its parts.
        let failed: BTreeSet<_> = failed.into_iter().chain(planned.failed).collect();
        let n_failed = to_u64(failed.len());
        assert!(n_failed <= planned.n_inodes, "only what was to be persisted can fail");
        let report = PersistReport {
            n_inodes: planned.n_inodes - n_failed,
            data_bytes,
            covered: planned.covered,
            n_tarballs: to_u64(tarballs.len()),
            tarball_bytes: tarballs.iter().map(|tarball| tarball.content.len_bytes).sum(),
            failed: failed.into_iter().collect(),
            unreadable: planned.unreadable,
            ..PersistReport::default()
        };
        Self { tarballs, report, unread }
    }

    /// An error if too much of it cannot be read. One bad inode must not keep the others from being
    /// persisted; but a disk that fails, or a database, is not many bad inodes: a snapshot that
    /// takes most of a filesystem for lost is worth less than none.
    pub(super) fn check_share(&self) -> Result<(), PersistError> {
        let n_unread = to_u64(self.report.failed.len()) + self.unread.n_inodes();
        let n_inodes = self.report.n_inodes + to_u64(self.report.failed.len());
        if n_unread < N_UNREAD_MAX || n_unread.saturating_mul(UNREAD_ONE_IN) <= n_inodes {
            return Ok(());
        }
        Err(PersistError::TooMuchUnread { n_unread, n_inodes })
    }
}
