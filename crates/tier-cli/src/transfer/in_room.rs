//! Operations that wait for room.

use std::sync::Once;
use std::time::Instant;

use anyhow::Result;
use kvfs::{FsError, Kvfs};

/// Does operations on a store, which wait for room if they find none and some may come.
pub(crate) struct InRoom<'a> {
    fs: &'a Kvfs,
    /// Told when there is no room for the first time: something may make some from then on.
    on_full: &'a (dyn Fn() + Sync),
    full: Once,
}

impl<'a> InRoom<'a> {
    pub(crate) fn new(fs: &'a Kvfs, on_full: &'a (dyn Fn() + Sync)) -> Self {
        Self { fs, on_full, full: Once::new() }
    }

    /// Does an operation, for which it waits until `go_on` is an error.
    pub(crate) fn run<T>(
        &self,
        go_on: &dyn Fn() -> Result<()>,
        mut operation: impl FnMut() -> Result<T, FsError>,
    ) -> Result<T> {
        match operation() {
            Err(FsError::NoSpace(_)) => {}
            done => return Ok(done?),
        }
        self.full.call_once(self.on_full);
        let is_wanted = |_: &FsError| go_on().is_ok();
        let done = self.fs.do_when_possible(Instant::now(), &is_wanted, &mut operation);
        if done.is_err() {
            // What ended the wait is told, and not what was waited for.
            go_on()?;
        }
        Ok(done?)
    }
}
