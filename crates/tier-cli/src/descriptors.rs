//! The limit of open files, raised at the start of the program.
//!
//! Most systems give a process 1,024 descriptors and let it have many more by asking. What the
//! program holds open is bounded by settings and not by the data: 512 table files of the key-value
//! store and 256 of the index, twice that while an index is made anew beside the one in use, some
//! hundred runs of net changes, and a few for each snapshot, socket and thread. Together that is
//! more than 1,024 can hold, so the program asks, for no more than it can use, rather than let one
//! part of it fail because another one was busy.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than everything together takes. Not as many as there can be: some programs that inherit the
/// limit go through all descriptors.
const N_DESCRIPTORS: u64 = 16_384;

/// Raises the limit as far as the system lets this process.
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Without a number there is no limit.
    let Some(before) = current else { return };
    let wanted = maximum.map_or(N_DESCRIPTORS, |maximum| maximum.min(N_DESCRIPTORS));
    if before >= wanted {
        return;
    }
    let limit = Rlimit { current: Some(wanted), maximum };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::debug!(before, now = wanted, "raised the limit of open files"),
        Err(errno) => tracing::warn!(%errno, before, "cannot raise the limit of open files"),
    }
}
