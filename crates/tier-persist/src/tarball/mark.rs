//! What a frame says of itself, so that a reader can start at any of them.

use tier_types::{Epoch, SnapshotId};

use super::pax::{self, PaxRecords, PaxWriter};
use crate::FilesystemId;

/// The record that the first member of a frame carries: whose frame it is, and its place in the
/// order of the snapshot. A frame without it goes on with a member of the one before. A file that
/// happens to hold a tarball cannot be taken for one of these frames: its marks, if it has any,
/// are those of another snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameMark {
    pub(crate) filesystem: FilesystemId,
    pub(crate) epoch: Epoch,
    pub(crate) snapshot: SnapshotId,
    /// Grows from frame to frame.
    pub(crate) place: u64,
}

impl FrameMark {
    pub(crate) fn put(&self, pax: &mut PaxWriter) {
        let Self { filesystem, epoch, snapshot, place } = self;
        let text = format!("{filesystem}/{epoch}/{snapshot}/{place}");
        pax.add(pax::MARK.as_bytes(), text.as_bytes());
    }

    pub(crate) fn from_records(records: &PaxRecords<'_>) -> Option<Self> {
        let mut parts = records.text(pax::MARK)?.split('/');
        let filesystem = FilesystemId::parse(parts.next()?)?;
        let mut number = || parts.next()?.parse().ok();
        let (epoch, snapshot, place) = (number()?, number()?, number()?);
        let mark = Self {
            filesystem,
            epoch: Epoch::new(epoch),
            snapshot: SnapshotId::new(snapshot),
            place,
        };
        parts.next().is_none().then_some(mark)
    }
}
