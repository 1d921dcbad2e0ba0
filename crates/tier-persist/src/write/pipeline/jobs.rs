//! What goes through the pipeline.

use crossbeam_channel::Sender;

use crate::error::PersistError;
use crate::format::tarball::member::Member;
use crate::write::frame_builder::BuiltFrames;

/// Members that become one frame, or one member that becomes several.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) members: Vec<Member>,
    pub(crate) reply: Reply,
}

/// A job's number, from 0 without gaps, and what came of it.
pub(super) type Numbered = (u64, Result<BuiltFrames, PersistError>);

/// The place of a job in the order. Dropped unsent, it ends the work with an error.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(super) number: u64,
    pub(super) built: Option<Sender<Numbered>>,
}

impl Reply {
    pub(super) fn send(mut self, result: Result<BuiltFrames, PersistError>) {
        if let Some(built) = self.built.take() {
            let _ = built.send((self.number, result));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(built) = self.built.take() {
            let _ = built.send((self.number, Err(PersistError::Pipeline)));
        }
    }
}
