//! The mark of a frame: whose frame it is, so that a scan can go on behind a damaged one.
//!
//! The first member of a frame carries the mark as a record. A frame without it continues a member
//! of the frame before. The content of a file cannot pass for a frame, whatever it looks like: the
//! mark holds a token that is drawn when the snapshot is written, after the file was.

use tier_types::{Epoch, SnapshotId};

use crate::format::names::FilesystemId;
use crate::format::tarball::pax::{self, PaxRecords, PaxWriter};

/// The mark of all frames of a snapshot.
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
        // All of it or nothing: half a mark would make a file's content pass for a frame.
        let mut parts = records.text(pax::MARK)?.split('/');
        let filesystem = FilesystemId::parse(parts.next()?)?;
        let mut number = || parts.next()?.parse().ok();
        let (epoch, snapshot) = (Epoch::new(number()?), SnapshotId::new(number()?));
        let token = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self { filesystem, epoch, snapshot, token })
    }
}
