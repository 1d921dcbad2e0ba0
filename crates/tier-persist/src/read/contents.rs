//! The contents of a tarball as its table says: entry by entry, without reading the members.
//!
//! The root is in the last frame, and lists the parts. It also says how many members there are: a
//! table of which a part was lost is not taken for a shorter one.

use tier_types::to_usize;

use crate::error::PersistError;
use crate::format::tarball::row::TarballObject;
use crate::format::tarball::toc::entry::{StoredEntry, TocEntry};
use crate::format::tarball::toc::group::read_groups;
use crate::format::tarball::toc::root::{TocPart, TocRoot};
use crate::read::tarball_reader::TarballReader;
use crate::read::tarball_source::TarballSource;

/// Calls `visit` for everything that the table of contents of a tarball says of inodes.
pub(crate) fn read_table(
    source: TarballSource<'_>,
    tarball: &TarballObject,
    visit: &mut dyn FnMut(TocEntry) -> Result<(), PersistError>,
) -> Result<(), PersistError> {
    let (reader, root) = source.open(tarball)?;
    reader.read_toc(&root, &mut |entry| Some(visit(entry.decode()?)))
}

impl TarballReader<'_> {
    /// Calls `visit` for the entries of the table of contents. `visit` returns `None` for one that
    /// cannot be.
    pub(crate) fn read_toc(
        &self,
        root: &TocRoot,
        visit: &mut dyn FnMut(StoredEntry<'_>) -> Option<Result<(), PersistError>>,
    ) -> Result<(), PersistError> {
        let mut n_members = 0;
        for TocPart { frame, offset, len } in root.parts.iter().copied() {
            // One part in memory at a time; each has a frame for itself.
            let content = self.frame(frame)?;
            let wrong = || self.damaged("its table of contents is wrong");
            let start = to_usize(u64::from(offset));
            // Two numbers of 32 bits, whose sum fits.
            let end = start + to_usize(u64::from(len));
            let part = content.get(start..end).ok_or_else(wrong)?;
            let read = read_groups(part, &mut |entry| {
                n_members += 1;
                visit(entry)
            });
            read.ok_or_else(wrong)??;
        }
        // Parts that are missing from the root would otherwise be missed by nothing.
        if n_members != root.n_members {
            return Err(self.damaged("its table of contents is not complete"));
        }
        Ok(())
    }
}
