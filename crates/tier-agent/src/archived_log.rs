//! The log as an archive has it: what was done to a filesystem whose own log is gone.

use std::io::Cursor;
use std::path::Path;

use tier_log::{NetChanges, NetChangesOptions, OpenedSegment};
use tier_persist::ArchivedSegment;
use tier_types::{FileUpdate, PortError, XidRange};

/// Shows what a range of transactions changed, from segments that come in order. What does not fit
/// into memory is spilled into this directory. Made to be given to
/// [`salvage_index`](tier_persist::Archive::salvage_index).
pub fn read_archived_log(
    spill_dir: &Path,
    segments: &mut dyn Iterator<Item = Result<ArchivedSegment, PortError>>,
    range: XidRange,
    show: &mut dyn FnMut(FileUpdate),
) -> Result<(), PortError> {
    let opened = segments.map(|segment| {
        let ArchivedSegment { range, name, content } = segment?;
        Ok(OpenedSegment { range, name, source: Box::new(Cursor::new(content)) })
    });
    let options = NetChangesOptions::new(spill_dir);
    for update in NetChanges::of_segments(opened, range, &options)? {
        show(update?);
    }
    Ok(())
}
