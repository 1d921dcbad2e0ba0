//! The first member of a tarball: which filesystem, epoch, snapshot and part it is, and the version
//! of its format.

use tier_index::TarballId;
use tier_types::{Epoch, SnapshotId, Xid, XidRange};

use crate::format::names::FilesystemId;
use crate::format::tarball::header::append_plain_header;
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::pax::{self, PaxRecords, PaxWriter};

/// What a tarball says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TarballIdentity {
    pub(crate) filesystem: FilesystemId,
    pub(crate) id: TarballId,
    pub(crate) range: XidRange,
    pub(crate) chunk_bytes: u32,
    /// What the marks of all its frames have.
    pub(crate) token: u64,
}

pub(crate) const PATH: &[u8] = b".tier/tarball";
const VERSION: u64 = 1;
/// The problem of a tarball with another one.
pub(crate) const UNKNOWN_VERSION: &str = "a version of the format that this program does not know";

impl TarballIdentity {
    /// The mark of its frames.
    pub(crate) fn mark(&self) -> FrameMark {
        let TarballId { epoch, snapshot, .. } = self.id;
        FrameMark { filesystem: self.filesystem, epoch, snapshot, token: self.token }
    }

    /// The member: pax header and an empty file.
    pub(crate) fn to_blocks(self) -> Vec<u8> {
        let mut pax = PaxWriter::default();
        pax.number(pax::VERSION, VERSION);
        pax.add(pax::FILESYSTEM.as_bytes(), self.filesystem.to_string().as_bytes());
        pax.number(pax::EPOCH, self.id.epoch.get());
        pax.number(pax::SNAPSHOT, self.id.snapshot.get());
        pax.number(pax::PART, u64::from(self.id.part));
        let range = format!("{}-{}", self.range.start(), self.range.end());
        pax.add(pax::RANGE.as_bytes(), range.as_bytes());
        pax.number(pax::CHUNK, u64::from(self.chunk_bytes));
        self.mark().put(&mut pax);
        // An empty file: everything is in the records, and stock tar shows the name.
        let mut out = Vec::new();
        append_plain_header(PATH, pax, 0, &mut out);
        out
    }

    pub(crate) fn from_records(records: &PaxRecords<'_>) -> Result<Self, &'static str> {
        // Before anything else: a later version may mean something else by the rest.
        if records.number(pax::VERSION) != Some(VERSION) {
            return Err(UNKNOWN_VERSION);
        }
        Self::parse(records).ok_or("its first member does not say what it is")
    }

    fn parse(records: &PaxRecords<'_>) -> Option<Self> {
        let (start, end) = records.text(pax::RANGE)?.split_once('-')?;
        let range = XidRange::new(Xid::new(start.parse().ok()?), Xid::new(end.parse().ok()?))?;
        // Locating a member's data divides by it.
        let chunk_bytes = u32::try_from(records.number(pax::CHUNK)?).ok().filter(|&n| n > 0)?;
        let id = TarballId {
            epoch: Epoch::new(records.number(pax::EPOCH)?),
            snapshot: SnapshotId::new(records.number(pax::SNAPSHOT)?),
            part: u32::try_from(records.number(pax::PART)?).ok()?,
        };
        let filesystem = FilesystemId::parse(records.text(pax::FILESYSTEM)?)?;
        let token = FrameMark::from_records(records)?.token;
        Some(Self { filesystem, id, range, chunk_bytes, token })
    }
}
