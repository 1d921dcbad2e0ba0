//! What all stages of one snapshot's pipeline share.

use tier_status::StatusSink;
use tier_types::{MountedSnapshot, StagingStore};

use crate::error::PersistError;
use crate::format::keys::Keys;
use crate::format::names::NameToken;
use crate::format::tarball::identity::TarballIdentity;
use crate::read::link::StoredObject;
use crate::write::frame_builder::FrameBuilder;
use crate::write::limits::Limits;
use crate::write::options::PersistOptions;

/// What all tarballs of a snapshot share.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a dyn StagingStore,
    pub(crate) keys: &'a Keys,
    pub(crate) options: PersistOptions,
    pub(crate) limits: Limits,
    /// Of the first tarball.
    pub(crate) identity: TarballIdentity,
    /// Of the names of all tarballs.
    pub(crate) token: NameToken,
    pub(crate) mounted: &'a dyn MountedSnapshot,
    pub(crate) on_sealed: &'a (dyn Fn(&StoredObject) + Sync),
    pub(crate) status: &'a dyn StatusSink,
}

impl Context<'_> {
    pub(super) fn frame_builder(&self) -> Result<FrameBuilder, PersistError> {
        FrameBuilder::new(self.options.level, self.limits.frame)
    }
}
