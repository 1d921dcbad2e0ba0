//! Brings what the workers built into order and into tarballs.

use std::collections::{BTreeMap, VecDeque};

use crossbeam_channel::{Receiver, Sender};
use tier_status::{Event, Progress};
use tier_types::{Ino, to_u64, with_causes};

use crate::error::PersistError;
use crate::format::names;
use crate::format::tarball::identity::TarballIdentity;
use crate::format::tarball::row::TarballRow;
use crate::write::frame_builder::{BuiltFrames, FrameBuilder};
use crate::write::pipeline::Context;
use crate::write::pipeline::assembler::{Assembler, PendingTarball};
use crate::write::pipeline::jobs::Numbered;
use crate::write::pipeline::payload::SealJob;

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
    /// Told after each job how many bytes it came to.
    pub(super) done: Sender<u64>,
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
        result: Sequenced::default(),
    };
    let mut waiting = BTreeMap::new();
    // Ends when the planner and every job under way is gone.
    for (number, result) in built {
        waiting.insert(number, result?);
        while let Some(built) = waiting.remove(&sequencer.next) {
            sequencer.next += 1;
            sequencer.take(&built)?;
            let _ = done.send(built.frames.iter().map(|frame| to_u64(frame.bytes.len())).sum());
        }
    }
    match total.try_recv() {
        Ok(n_jobs) if n_jobs == sequencer.next => sequencer.finish(),
        Ok(_) => Err(PersistError::Pipeline),
        Err(_) => Err(PersistError::Cancelled),
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
