//! What a persister has written and not committed.

use std::collections::BTreeSet;

use tier_types::{Ino, to_u64};

use crate::error::PersistError;
use crate::format::tarball::row::TarballObject;
use crate::write::pipeline::sequencer::Sequenced;
use crate::write::planner::Planned;
use crate::write::request::PersistReport;
use crate::write::unread::UnreadRuns;

/// So many inodes that cannot be read are a matter of single inodes, or of a few damaged blocks of
/// a database, however large their share is.
const N_UNREAD_SINGLE: u64 = 1000;

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
    /// takes most of a filesystem for lost is worth less than none. Inodes that failed before do
    /// not count: what was refused for them once would be refused for ever.
    pub(super) fn check_share(&self, about: &ShareOf<'_>) -> Result<(), PersistError> {
        let PersistReport { n_inodes, failed, unreadable, .. } = &self.report;
        let in_part = self.unread.inodes();
        let n_new = |others: &[Ino]| {
            let is_new = |ino: &Ino| !about.failed_before.contains(ino);
            let mut new: Vec<_> = in_part.iter().chain(others).copied().filter(is_new).collect();
            new.sort_unstable();
            new.dedup();
            to_u64(new.len())
        };
        let n_unread = n_new(failed);
        let n_inodes = (n_inodes + to_u64(failed.len())).max(about.n_looked_at);
        let n_max = n_inodes.saturating_mul(u64::from(about.unread_percent_max)) / 100;
        if n_unread < N_UNREAD_SINGLE || n_unread <= n_max {
            return Ok(());
        }
        let n_damaged = n_new(unreadable);
        Err(PersistError::TooMuchUnread { n_unread, n_damaged, n_inodes })
    }
}

/// What the share of what cannot be read is compared with.
pub(super) struct ShareOf<'a> {
    pub(super) failed_before: &'a BTreeSet<Ino>,
    /// Inodes that were looked at to find out which changed, if that is more than those.
    pub(super) n_looked_at: u64,
    pub(super) unread_percent_max: u8,
}
