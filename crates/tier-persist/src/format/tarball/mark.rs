//! What a frame says of itself, so that a reader can start at any of them.

use tier_types::{Epoch, SnapshotId};

use crate::format::names::FilesystemId;
use crate::format::tarball::pax::{self, PaxRecords, PaxWriter};

/// The record that the first member of a frame carries: whose frame it is. A frame without it goes
/// on with a member of the one before. The content of a file cannot pass for a frame, whatever it
/// looks like: the token is drawn when the snapshot is written, after the file was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameMark {
    pub(crate) filesystem: FilesystemId,
    pub(crate) epoch: Epoch,
    pub(crate) snapshot: SnapshotId,
    pub(crate) token: u64,
}

impl FrameMark {
    pub(crate) fn put(&self, pax: &mut PaxWriter) {
        let Self { filesystem, epoch, snapshot, token } = self;
        let text = format!("{filesystem}/{epoch}/{snapshot}/{token:016x}");
        pax.add(pax::MARK.as_bytes(), text.as_bytes());
    }

    pub(crate) fn from_records(records: &PaxRecords<'_>) -> Option<Self> {
        let mut parts = records.text(pax::MARK)?.split('/');
        let filesystem = FilesystemId::parse(parts.next()?)?;
        let mut number = || parts.next()?.parse().ok();
        let (epoch, snapshot) = (Epoch::new(number()?), SnapshotId::new(number()?));
        let token = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self { filesystem, epoch, snapshot, token })
    }
}
