//! Brings what the workers built into order and into tarballs.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tier_status::{Event, Progress};
use tier_types::{Ino, to_u64, with_causes};

use super::Context;
use super::assembler::{Assembler, PendingTarball};
use super::job::Numbered;
use super::payload::SealJob;
use crate::tarball::{BuiltFrames, FrameBuilder, TarballIdentity, TarballRow};
use crate::{PersistError, names};

/// Tarballs whose last bytes are still on their way while the next one is built.
const N_PENDING_MAX: usize = 2;

/// What the snapshot came to.
#[derive(Default)]
pub(crate) struct Sequenced {
    pub(crate) tarballs: Vec<TarballRow>,
    pub(crate) data_bytes: u64,
    /// Inodes that could not be read.
    pub(crate) failed: Vec<Ino>,
}

/// The channels of a sequencer.
pub(super) struct Ends {
    pub(super) built: Receiver<Numbered>,
    /// Told after each job.
    pub(super) done: Sender<()>,
    /// Says how many jobs there are, once that is known.
    pub(super) total: Receiver<u64>,
    pub(super) sealer: Sender<SealJob>,
}

pub(super) struct Sequencer<'a> {
    context: &'a Context<'a>,
    identity: TarballIdentity,
    builder: FrameBuilder,
    sealer: Sender<SealJob>,
    open: Option<Assembler>,
    pending: VecDeque<PendingTarball>,
    next: u64,
    n_inodes: u64,
    pace: Pace,
    result: Sequenced,
}

/// Takes jobs in order until there are no more, and ends the last tarball.
pub(super) fn run(
    context: &Context<'_>,
    builder: FrameBuilder,
    ends: Ends,
) -> Result<Sequenced, PersistError> {
    let Ends { built, done, total, sealer } = ends;
    let mut sequencer = Sequencer {
        context,
        identity: context.identity,
        builder,
        sealer,
        open: None,
        pending: VecDeque::new(),
        next: 0,
        n_inodes: 0,
        pace: Pace::new(context.options.bytes_per_second_max),
        result: Sequenced::default(),
    };
    let mut waiting = BTreeMap::new();
    // Ends when the planner and every job under way is gone.
    for (number, result) in built {
        waiting.insert(number, result?);
        while let Some(built) = waiting.remove(&sequencer.next) {
            sequencer.next += 1;
            sequencer.take(&built)?;
            let _ = done.send(());
        }
    }
    match total.try_recv() {
        Ok(n_jobs) if n_jobs == sequencer.next => sequencer.finish(),
        Ok(_) => Err(PersistError::Pipeline),
        Err(_) => Err(PersistError::Cancelled),
    }
}

/// Holds a stream of bytes to a rate; while it waits, everything before it does.
struct Pace {
    /// None: as fast as it can be.
    bytes_per_second_max: Option<u64>,
    /// When all bytes so far may have been written.
    due: Instant,
}

impl Pace {
    fn new(bytes_per_second_max: Option<u64>) -> Self {
        Self { bytes_per_second_max, due: Instant::now() }
    }

    #[expect(clippy::disallowed_methods, reason = "a rate is kept by waiting for time to pass")]
    fn keep(&mut self, bytes: u64) {
        let wait = self.wait(bytes, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    /// How long to wait after these bytes. Time in which nothing came is not made up for.
    fn wait(&mut self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.bytes_per_second_max else { return Duration::ZERO };
        let cost = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
        self.due = self.due.max(now) + cost;
        self.due.saturating_duration_since(now)
    }
}

impl Sequencer<'_> {
    fn take(&mut self, built: &BuiltFrames) -> Result<(), PersistError> {
        self.result.data_bytes += built.data_bytes;
        self.n_inodes += built.n_inodes;
        for (ino, error) in &built.failed {
            if self.result.failed.last() != Some(ino) {
                let (ino, error) = (ino.get(), with_causes(error));
                self.context.status.report(Event::InodeFailed { ino, error })?;
            }
            self.result.failed.push(*ino);
        }
        let bytes = self.result.data_bytes;
        self.context.status.progress(Progress { n_inodes: self.n_inodes, bytes });
        if built.frames.is_empty() {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.start()?,
        };
        if let Err(error) = open.add(built) {
            return Err(open.explain(error));
        }
        self.pace.keep(built.frames.iter().map(|frame| to_u64(frame.bytes.len())).sum());
        let options = self.context.options;
        let full = open.object_bytes() >= options.tarball_bytes
            || open.n_members() >= options.tarball_members;
        if full {
            return self.end(open);
        }
        self.open = Some(open);
        Ok(())
    }

    fn start(&mut self) -> Result<Assembler, PersistError> {
        let (store, keys) = (self.context.store, self.context.keys);
        let mut open = Assembler::start((store, keys), self.identity, self.sealer.clone())?;
        let identity = self.builder.plain_frame(&self.identity.to_blocks())?;
        match open.add_frame(&identity) {
            Ok(()) => Ok(open),
            Err(error) => Err(open.explain(error)),
        }
    }

    fn end(&mut self, open: Assembler) -> Result<(), PersistError> {
        self.pending.push_back(open.finish(&mut self.builder)?);
        self.identity.id.part += 1;
        while self.pending.len() > N_PENDING_MAX {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    fn wait_for_oldest(&mut self) -> Result<(), PersistError> {
        let Some(pending) = self.pending.pop_front() else { return Ok(()) };
        let row = pending.wait()?;
        let name = names::tarball_name(self.identity.filesystem, row.id, row.encrypted);
        self.context.status.report(Event::TarballSealed {
            name: name.to_string(),
            bytes: row.object_bytes,
            n_members: row.n_members,
        })?;
        self.result.tarballs.push(row);
        Ok(())
    }

    fn finish(mut self) -> Result<Sequenced, PersistError> {
        if let Some(open) = self.open.take() {
            self.end(open)?;
        }
        while !self.pending.is_empty() {
            self.wait_for_oldest()?;
        }
        Ok(self.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_idle_time_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace { bytes_per_second_max: Some(1000), due: start };
        assert_eq!(pace.wait(500, start), Duration::from_millis(500));
        assert_eq!(pace.wait(500, start), Duration::from_secs(1));
        let later = start + Duration::from_mins(1);
        assert_eq!(pace.wait(100, later), Duration::from_millis(100));
        let mut free = Pace { bytes_per_second_max: None, due: start };
        assert_eq!(free.wait(u64::MAX, start), Duration::ZERO);
    }
}
