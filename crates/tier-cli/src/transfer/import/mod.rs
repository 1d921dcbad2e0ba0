//! Import: a tree of the host, copied into a store, so that an interrupted import goes on where it
//! was.
//!
//! There is no journal of an import. What the store holds says how far it got, and each step is
//! such that a file that looks imported is imported:
//!
//! 1. A file counts as imported if the store has one of the same kind, size and time of change
//!    under its name (`resume`). It is not read again.
//! 2. A file whose data fits into one piece ([`COPY_BYTES`]) is made whole, with its data,
//!    attributes and name, in one transaction. There is no moment at which a part of it can be
//!    seen.
//! 3. A larger file is made with its first piece, and grows. Each write sets its time of change to
//!    now. The host's time is set in the last transaction of the file, so that before that either
//!    its size or its time differs from the host's. Transactions reach the disk in their order:
//!    what a crash leaves of a store has the last one only with all the others.
//! 4. Where another file has the name, the new one is made under a temporary name and takes the
//!    name when it is complete, in one transaction (`resume::StagedName`). A process that has the
//!    old file open keeps it, and other names of the old file stay what they are. What an import
//!    that was killed left under the temporary name, the next one removes.
//! 5. A directory gets its attributes when the last thing in it is done: whatever is put into a
//!    directory changes its times. One that is there already is used as it is, and gets the host's
//!    attributes in the end.
//! 6. Names of one file of the host become names of one file in the store (`links`): the worker
//!    that meets the first of them makes the file, others that meet another one wait until it has a
//!    number. In an import that goes on, a name that is there says the number.
//!
//! So nothing is taken half for whole, and an import that is repeated after an interruption reads
//! only what it lacks. What changed on the host in between is copied again as a whole. What changed
//! without a change of size or time, as by `chmod`, is not noticed.
//!
//! One thread walks and makes the directories; workers copy what is in them, up to [`N_FILES`]
//! names of one directory together, because names that are made in one directory wait for each
//! other.

mod attributes;
mod content;
mod file;
mod links;
mod resume;
mod walk;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use kvfs::{FsError, Kvfs};
use parking_lot::Mutex;
use tier_types::{FileName, Ino};

use self::links::HostLinks;
use super::copied::{COPY_BYTES, Copied};
use super::in_room::InRoom;
use super::worker_pool::{self, Failure};

/// Files of one directory that a worker copies together.
const N_FILES: usize = 256;

/// What an import is given besides the trees.
pub(crate) struct ImportOptions<'a> {
    /// Threads that copy files; with one, two imports of one tree are the same.
    pub(crate) n_threads: NonZeroUsize,
    /// Asked for each path below the start whether it is to be imported.
    pub(crate) is_wanted: &'a (dyn Fn(&Path) -> bool + Sync),
    /// Does what needs room.
    pub(crate) room: &'a InRoom<'a>,
    /// Told how far it has got; its error ends the import.
    pub(crate) progress: &'a (dyn Fn(&Copied) -> Result<()> + Sync),
    /// Told of each name that was made or whose file was changed.
    pub(crate) entry_changed: &'a (dyn Fn(Ino, &FileName) + Sync),
    /// Told of each directory whose attributes were set.
    pub(crate) attributes_changed: &'a (dyn Fn(Ino) + Sync),
}

/// Copies what is in `dir` into a directory of the store.
pub(crate) fn import(
    fs: &Kvfs,
    dir: &Path,
    into: Ino,
    options: &ImportOptions<'_>,
) -> Result<Copied> {
    let failed = || format!("cannot look at {}", dir.display());
    // The start may be a symbolic link to a directory.
    let start = dir.canonicalize().with_context(failed)?;
    if !start.metadata().with_context(failed)?.is_dir() {
        bail!("{} is not a directory", dir.display());
    }
    tracing::info!(dir = %start.display(), %into, "importing");
    let began = Instant::now();
    let import = Import {
        fs,
        options,
        links: HostLinks::default(),
        copied: Mutex::new(Copied::default()),
        n_open: AtomicU64::new(0),
        failure: Failure::default(),
    };
    worker_pool::run(
        options.n_threads,
        &import.failure,
        || vec![0; COPY_BYTES],
        |buffer, batch| import.copy(batch, buffer),
        |batches| import.walk(&start, into, batches),
    )?;
    assert_eq!(import.n_open.into_inner(), 0, "every directory is finished");
    let copied = import.copied.into_inner();
    tracing::info!(copied.n_inodes, copied.bytes, elapsed = ?began.elapsed(), "imported");
    Ok(copied)
}

struct Import<'a> {
    fs: &'a Kvfs,
    options: &'a ImportOptions<'a>,
    links: HostLinks,
    copied: Mutex<Copied>,
    /// Directories that were begun and are not finished.
    n_open: AtomicU64,
    /// What one file met: what the others wait for is not wanted any more.
    failure: Failure,
}

impl Import<'_> {
    /// Does what needs room, and waits for some if there is none and some may come.
    fn in_room<T>(&self, operation: impl FnMut() -> Result<T, FsError>) -> Result<T> {
        let go_on = || match self.failure.has_failed() {
            true => bail!("another file could not be copied"),
            false => self.still_at_it(),
        };
        self.options.room.run(&go_on, operation)
    }

    /// Counts a name that is done, and the bytes of its file that were copied.
    fn done(&self, dir: Ino, name: &FileName, bytes: u64) -> Result<()> {
        // The kernel hears of the name before the progress may stop the import.
        (self.options.entry_changed)(dir, name);
        let copied = {
            let mut total = self.copied.lock();
            total.n_inodes += 1;
            total.bytes += bytes;
            *total
        };
        (self.options.progress)(&copied)
    }

    /// Shows that a long file goes on, and stops it where a stop was asked for.
    fn still_at_it(&self) -> Result<()> {
        // Bytes of an unfinished file are not counted: it may still fail.
        let copied = *self.copied.lock();
        (self.options.progress)(&copied)
    }
}
