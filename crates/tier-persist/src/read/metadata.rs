//! The metadata of one inode, read from the member that has it.

use tier_index::{Index, Location};
use tier_types::{Ino, InodeState, to_usize};

use crate::error::PersistError;
use crate::format::tarball::blocks::Blocks;
use crate::format::tarball::parse::parse_member;
use crate::format::tarball::row::TarballRow;
use crate::read::tarball_reader::TarballReader;
use crate::read::tarball_source::TarballSource;

/// The metadata of an inode whose member starts there.
pub(crate) fn read_metadata(
    source: TarballSource<'_>,
    index: &Index,
    ino: Ino,
    location: Location,
) -> Result<InodeState, PersistError> {
    let Location { tarball, frame, offset } = location;
    let row = index.tarball_row(tarball)?.and_then(|bytes| TarballRow::from_bytes(&bytes));
    let row = row.ok_or_else(|| PersistError::damaged(tarball, "its row cannot be read"))?;
    let name = row.object_name(source.filesystem);
    let reader = TarballReader::with_row(source.store_with(&name)?, &name, &row, source.keys)?;
    let damaged = |problem| reader.damaged(problem);
    let content = reader.frame(frame)?;
    let at = to_usize(u64::from(offset));
    // The place is an index's word, and the frame a store's.
    if at > content.len() {
        return Err(damaged("a frame ends before a member of it"));
    }
    let raw = Blocks::new(&content, at).next_member().map_err(damaged)?;
    let raw = raw.ok_or_else(|| damaged("a member is not where it should be"))?;
    let parsed = parse_member(&raw.records, raw.header, raw.content_bytes).map_err(damaged)?;
    let found = Some(parsed.member).filter(|member| member.ino == ino);
    let metadata = found.and_then(|member| member.metadata);
    metadata.ok_or_else(|| damaged("a member is another inode's"))
}
