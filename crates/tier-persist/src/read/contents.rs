//! The contents of a tarball as its table says: entry by entry, without reading the members.
//!
//! The root is in the last frame, and lists the parts. It also says how many members there are: a
//! table of which a part was lost is not taken for a shorter one.

use tier_types::{to_u64, to_usize};

use crate::error::PersistError;
use crate::format::tarball::blocks::Blocks;
use crate::format::tarball::row::TarballRow;
use crate::format::tarball::toc::entry::{StoredEntry, TocEntry};
use crate::format::tarball::toc::group::read_groups;
use crate::format::tarball::toc::root::{ROOT_PATH, TocPart, TocRoot};
use crate::read::tarball_reader::TarballReader;
use crate::read::tarball_source::TarballSource;

/// Calls `visit` for everything that the table of contents of a tarball says of inodes.
pub(crate) fn read_table(
    source: TarballSource<'_>,
    row: &TarballRow,
    visit: &mut dyn FnMut(TocEntry) -> Result<(), PersistError>,
) -> Result<(), PersistError> {
    source.open(row)?.read_toc(&mut |entry| Some(visit(entry.decode()?)))
}

impl TarballReader<'_> {
    /// Calls `visit` for the entries of the table of contents. `visit` returns `None` for one that
    /// cannot be.
    pub(crate) fn read_toc(
        &self,
        visit: &mut dyn FnMut(StoredEntry<'_>) -> Option<Result<(), PersistError>>,
    ) -> Result<(), PersistError> {
        let root = self.toc_root()?;
        let mut n_members = 0;
        for TocPart { frame, offset, len } in root.parts {
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

    /// The last frame holds one member, the root of the table, and the end of the archive.
    fn toc_root(&self) -> Result<TocRoot, PersistError> {
        let wrong = || self.damaged("it has no table of contents");
        let last = self.n_frames().checked_sub(1).ok_or_else(wrong)?;
        let frame = self.frame(last)?;
        let mut blocks = Blocks::new(&frame, 0);
        let damaged = |problem| self.damaged(problem);
        let member = blocks.next_member().map_err(damaged)?.ok_or_else(wrong)?;
        let is_root = member.path.as_ref() == ROOT_PATH && member.bytes_beyond(frame.len()) == 0;
        if !is_root || blocks.next_member().map_err(damaged)?.is_some() {
            return Err(wrong());
        }
        // Nothing goes on behind the frame, so that the content lies in it.
        let (_, content) = frame.split_at(member.content_at);
        assert!(member.content_bytes <= to_u64(content.len()), "the content was seen to be here");
        let (content, _) = content.split_at(to_usize(member.content_bytes));
        TocRoot::from_bytes(content).ok_or_else(wrong)
    }

    fn damaged(&self, problem: &'static str) -> PersistError {
        PersistError::damaged(self.name(), problem)
    }
}
