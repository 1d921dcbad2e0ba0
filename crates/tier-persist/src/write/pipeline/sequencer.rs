//! The sequencer: brings what the workers built into the order of the jobs, and into tarballs.
//!
//! It decides where a tarball ends, by its bytes and members, so that the same input makes the same
//! tarballs however the workers were scheduled. A tarball that has ended goes on by itself: its
//! last runs are sealed and written while the next one is built. Only a few may be on their way
//! like that; their rows come out in the order of their parts.

use std::collections::{BTreeMap, VecDeque};

use crossbeam_channel::{Receiver, Sender};
use tier_status::{Event, Progress};
use tier_types::{Ino, to_u64, with_causes};

use super::assembler::{Assembler, PendingTarball};
use super::context::Context;
use super::jobs::FinishedJob;
use super::payload::SealJob;
use crate::error::PersistError;
use crate::format::tarball::identity::TarballIdentity;
use crate::format::tarball::row::TarballObject;
use crate::read::link::StoredObject;
use crate::write::frame_builder::{BuiltFrames, FrameBuilder};
use crate::write::member_data::{Cause, LostRun};
use crate::write::unread::UnreadRuns;

/// What the snapshot came to.
#[derive(Debug, Default)]
pub(crate) struct Sequenced {
    pub(crate) tarballs: Vec<TarballObject>,
    pub(crate) data_bytes: u64,
    /// Inodes of which some data was out of reach: they are tried again.
    pub(crate) failed: Vec<Ino>,
    /// What was damaged or missing.
    pub(crate) unread: UnreadRuns,
}

/// The channels of a sequencer.
pub(super) struct SequencerEnds {
    pub(super) finished: Receiver<FinishedJob>,
    /// Told after each job how many bytes it came to.
    pub(super) done: Sender<u64>,
    /// Says how many jobs there are, once that is known.
    pub(super) total: Receiver<u64>,
    pub(super) sealer: Sender<SealJob>,
}

pub(super) struct Sequencer<'a> {
    context: &'a Context<'a>,
    /// Of the tarball that is open, or the next one.
    identity: TarballIdentity,
    builder: FrameBuilder,
    sealer: Sender<SealJob>,
    open: Option<Assembler>,
    pending: VecDeque<PendingTarball>,
    n_inodes: u64,
    result: Sequenced,
}

/// Takes jobs in order until there are no more, and ends the last tarball.
pub(super) fn run(
    context: &Context<'_>,
    builder: FrameBuilder,
    ends: SequencerEnds,
) -> Result<Sequenced, PersistError> {
    let SequencerEnds { finished, done, total, sealer } = ends;
    let mut sequencer = Sequencer {
        context,
        identity: context.identity,
        builder,
        sealer,
        open: None,
        pending: VecDeque::new(),
        n_inodes: 0,
        result: Sequenced::default(),
    };
    // At most as many as may be under way: the planner waits when there are more.
    let mut out_of_order = BTreeMap::new();
    let mut next = 0;
    // Ends when the planner and every job under way is gone.
    for FinishedJob { number, built } in finished {
        assert!(number >= next, "a job is finished once");
        // An error ends the work at once, also out of order: nothing of the snapshot will be kept.
        let before = out_of_order.insert(number, built?);
        assert!(before.is_none(), "a job is finished once");
        while let Some(built) = out_of_order.remove(&next) {
            next += 1;
            sequencer.take(&built)?;
            // A planner that is gone needs no more room.
            let _ = done.send(built.frames.iter().map(|frame| to_u64(frame.bytes.len())).sum());
        }
    }
    match total.try_recv() {
        Ok(n_jobs) => {
            assert_eq!(n_jobs, next, "every job was answered, and the order has no gaps");
            sequencer.finish()
        }
        // The planner gave up: what came so far is not all there is.
        Err(_) => Err(PersistError::Cancelled),
    }
}

impl Sequencer<'_> {
    fn take(&mut self, built: &BuiltFrames) -> Result<(), PersistError> {
        self.result.data_bytes += built.data_bytes;
        self.n_inodes += built.n_inodes;
        built.lost.iter().try_for_each(|lost| self.tell_lost(lost))?;
        let bytes = self.result.data_bytes;
        self.context.status.progress(Progress { n_inodes: self.n_inodes, bytes });
        assert!(!built.frames.is_empty(), "every member of a job lies in a frame");
        // Started late: a snapshot in which nothing is to be written has no tarball.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.start()?,
        };
        if let Err(error) = open.add(built) {
            return Err(open.explain(error));
        }
        // Between jobs, so that a member and the frames that it goes on in are in one tarball.
        if self.context.limits.tarball.is_full(open.n_bytes(), open.n_members()) {
            return self.end(open);
        }
        self.open = Some(open);
        Ok(())
    }

    fn tell_lost(&mut self, lost: &LostRun) -> Result<(), PersistError> {
        let (ino, error) = (lost.ino.get(), with_causes(&lost.error));
        let event = match lost.cause {
            Cause::Damage => {
                let is_told = self.result.unread.add(lost);
                is_told.then_some(Event::RangeUnread { ino, bytes: lost.bytes, error })
            }
            Cause::Failure => {
                // Once for an inode, of which several parts may fail one after another.
                let is_told = self.result.failed.last() != Some(&lost.ino);
                self.result.failed.extend(is_told.then_some(lost.ino));
                is_told.then_some(Event::InodeFailed { ino, error })
            }
        };
        Ok(event.map_or(Ok(()), |event| self.context.status.report(event))?)
    }

    fn start(&mut self) -> Result<Assembler, PersistError> {
        let Context { store, keys, token, .. } = self.context;
        let mut open = Assembler::start(*store, keys, self.identity, *token, self.sealer.clone())?;
        let identity = self.builder.plain_frame(&self.identity.to_blocks())?;
        match open.add_frame(&identity) {
            Ok(()) => Ok(open),
            Err(error) => Err(open.explain(error)),
        }
    }

    fn end(&mut self, open: Assembler) -> Result<(), PersistError> {
        // Ended here, and durable later: the next tarball need not wait for the disk.
        self.pending.push_back(open.finish(&mut self.builder)?);
        // The token stays: it is the snapshot's, and the marks of all its tarballs have it.
        self.identity.id.part += 1;
        while self.pending.len() > self.context.limits.tarball.pending_max {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    fn wait_for_oldest(&mut self) -> Result<(), PersistError> {
        let Some(pending) = self.pending.pop_front() else { return Ok(()) };
        let tarball = pending.wait()?;
        assert_eq!(
            u64::from(tarball.name.id.part),
            to_u64(self.result.tarballs.len()),
            "the parts of a snapshot are numbered from 0 without gaps"
        );
        let name = tarball.object_name(self.identity.filesystem);
        self.context.status.report(Event::TarballSealed {
            name: name.to_string(),
            bytes: tarball.content.len_bytes,
            n_members: tarball.n_members,
        })?;
        (self.context.on_sealed)(&StoredObject { name, content: tarball.content });
        self.result.tarballs.push(tarball);
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
