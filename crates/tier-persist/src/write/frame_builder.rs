//! The builder of frames, one for each worker: it reads the data of members, writes their tar
//! blocks, and compresses.
//!
//! All data of a member is read before any of it counts, so that one that cannot be read leaves
//! nothing behind: no half member in the frame and no entry in the table. The builder keeps its
//! buffers from job to job; the data is copied once, from where the snapshot put it into the tar
//! stream, because a member's data may be read in another order than it is written in.

use std::ops::Range;

use tier_types::{ErrorKind, Ino, PortError, SnapshotReader, to_usize};

use crate::error::PersistError;
use crate::format::compress::FrameCompressor;
use crate::format::digest::frame_digest;
use crate::format::tarball::layout::{FRAME_BYTES_MAX, padding, to_u32};
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::member::Member;
use crate::format::tarball::toc::entry::TocEntry;
use crate::write::cuts::{Cuts, Pieces};
use crate::write::limits::FrameLimits;

/// One frame of a tarball, compressed.
#[derive(Debug)]
pub(crate) struct CompressedFrame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) decompressed: u32,
    pub(crate) digest: [u8; 16],
}

/// What some members came to.
#[derive(Debug, Default)]
pub(crate) struct BuiltFrames {
    pub(crate) frames: Vec<CompressedFrame>,
    /// Entries of the table of contents, their frames counted from the first of these.
    pub(crate) toc: Vec<u8>,
    pub(crate) n_members: u64,
    /// Members that say what an inode is, or that it is gone.
    pub(crate) n_inodes: u64,
    pub(crate) data_bytes: u64,
    /// Members that could not be read, and are left out.
    pub(crate) failed: Vec<FailedMember>,
}

/// A member that could not be read.
#[derive(Debug)]
pub(crate) struct FailedMember {
    pub(crate) ino: Ino,
    pub(crate) error: PortError,
}

/// Builds frames. Keeps its buffers.
pub(crate) struct FrameBuilder {
    compressor: FrameCompressor,
    limits: FrameLimits,
    /// File data as it was read, and the tar stream that is made of it.
    data: Vec<u8>,
    plain: Vec<u8>,
}

impl FrameBuilder {
    pub(crate) fn new(level: i32, limits: FrameLimits) -> Result<Self, PersistError> {
        let compressor = FrameCompressor::new(level).map_err(failed_to("start"))?;
        Ok(Self { compressor, limits, data: Vec::new(), plain: Vec::new() })
    }

    /// One frame with these members; several for a single member that is too large for one, or has
    /// too many names.
    pub(crate) fn build(
        &mut self,
        members: &[Member],
        mark: &FrameMark,
        reader: &mut dyn SnapshotReader,
    ) -> Result<BuiltFrames, PersistError> {
        let mut built = BuiltFrames::default();
        let mut cuts = Cuts::default();
        // The first entry counts from 0, so that its group can be read without the one before.
        let mut before = Ino::new(0);
        self.plain.clear();
        // A member that fails is left out, and so is not in the way of the others of its frame.
        let read = self.read_data(members, reader);
        for (member, outcome) in members.iter().zip(read) {
            let data = match outcome {
                Ok(data) => data,
                // Not the inode's fault: it would be listed as one that cannot be read.
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    return Err(PersistError::Source(error));
                }
                Err(error) => {
                    built.failed.push(FailedMember { ino: member.ino, error });
                    continue;
                }
            };
            let entry = self.append(member, data, mark, &mut cuts)?;
            entry.append_to(before, &mut built.toc);
            before = member.ino;
            built.n_members += 1;
            built.n_inodes += u64::from(member.metadata.is_some() || member.gone.is_some());
            built.data_bytes += member.data_bytes;
        }
        cuts.cut(self.plain.len());
        let mut start = 0;
        let mut rest = self.plain.as_slice();
        for end in cuts.into_ends() {
            let (plain, after) = rest.split_at(end - start);
            built.frames.push(compress(&mut self.compressor, plain)?);
            (start, rest) = (end, after);
        }
        assert!(rest.is_empty(), "all that was built is in a frame");
        Ok(built)
    }

    /// One frame of bytes that are at hand.
    pub(crate) fn plain_frame(&mut self, plain: &[u8]) -> Result<CompressedFrame, PersistError> {
        compress(&mut self.compressor, plain)
    }

    /// Reads the data of all members, in the order that suits the reader, and says where in
    /// `self.data` that of each lies.
    fn read_data(
        &mut self,
        members: &[Member],
        reader: &mut dyn SnapshotReader,
    ) -> Vec<Result<Range<usize>, PortError>> {
        self.data.clear();
        // Members are in the order of directories, and the snapshot in that of inodes.
        let mut found: Vec<_> = members.iter().map(|_| Ok(0..0)).collect();
        let mut order: Vec<_> = members.iter().zip(&mut found).collect();
        order.sort_by_key(|(member, _)| member.ino);
        for (member, found) in order {
            let start = self.data.len();
            *found = self.read_member(member, reader).map(|()| start..self.data.len());
            if found.is_err() {
                self.data.truncate(start);
            }
        }
        found
    }

    /// Reads all data of a member. What the snapshot gives must be what its map says: every chunk
    /// but the file's last one is whole, and none lies behind the end of the file.
    fn read_member(
        &mut self,
        member: &Member,
        reader: &mut dyn SnapshotReader,
    ) -> Result<(), PortError> {
        let chunk_bytes = self.limits.chunk_bytes;
        let mut left = to_usize(member.data_bytes);
        for run in &member.data {
            let start = self.data.len();
            reader.read_chunks(member.ino, run.chunks, &mut self.data)?;
            let whole_bytes = to_usize(run.chunks.len()).saturating_mul(chunk_bytes);
            let run_bytes = whole_bytes.min(left);
            // The last chunk may be stored shorter than the file is, and longer too.
            let stored = self.data.len() - start;
            if run_bytes.saturating_sub(stored) >= chunk_bytes {
                return Err(torn(member.ino, "fewer bytes than its map says"));
            }
            if whole_bytes - run_bytes >= chunk_bytes {
                return Err(torn(member.ino, "data behind its end"));
            }
            // What a chunk lacks to its length is zeros by the port's contract; less than a chunk.
            self.data.resize(start + run_bytes, 0);
            left -= run_bytes;
        }
        assert_eq!(left, 0, "the plan counted the data of the member's runs");
        Ok(())
    }

    /// Appends a member with its data and says where it is.
    fn append(
        &mut self,
        member: &Member,
        data: Range<usize>,
        mark: &FrameMark,
        cuts: &mut Cuts,
    ) -> Result<TocEntry, PersistError> {
        let at = cuts.position_of(self.plain.len());
        // Whatever starts a frame carries the mark: that is how a scan knows that it starts one.
        let first_mark = (at.offset == 0).then_some(mark);
        let chunk_bytes = to_u32(self.limits.chunk_bytes);
        member.append_header(chunk_bytes, first_mark, &mut self.plain);
        // A header is never cut, so that this is the place where a frame can become too large.
        check_size(cuts.frame_bytes(self.plain.len()))?;
        let mut pieces = Pieces::new(cuts, self.limits);
        let mut start = self.plain.len();
        let (_, read) = self.data.split_at(data.start);
        let (read, _) = read.split_at(data.len());
        self.plain.extend_from_slice(read);
        for run in &member.data {
            let run_bytes = to_usize(run.chunks.len()).saturating_mul(self.limits.chunk_bytes);
            let end = start.saturating_add(run_bytes).min(self.plain.len());
            pieces.add(*run, start..end);
            start = end;
        }
        let data = pieces.into_found();
        self.plain.resize(self.plain.len() + padding(member.data_bytes), 0);
        for other_path in &member.other_paths {
            // There may be thousands of them.
            if cuts.frame_bytes(self.plain.len()) > 2 * self.limits.frame_bytes {
                cuts.cut(self.plain.len());
            }
            let starts_frame = cuts.frame_bytes(self.plain.len()) == 0;
            member.append_link(other_path, starts_frame.then_some(mark), &mut self.plain);
        }
        let (gone, metadata) = (member.gone, member.metadata.clone());
        Ok(TocEntry { ino: member.ino, at, gone, metadata, data, holes: member.holes.clone() })
    }
}

fn compress(
    compressor: &mut FrameCompressor,
    plain: &[u8],
) -> Result<CompressedFrame, PersistError> {
    // Once more, because data and links were appended after the header was looked at.
    check_size(plain.len())?;
    let bytes = compressor.frame(plain).map_err(failed_to("compress"))?;
    let digest = frame_digest(&bytes);
    Ok(CompressedFrame { bytes, decompressed: to_u32(plain.len()), digest })
}

/// A reader refuses a larger frame. An inode with that many names or attributes could make one.
fn check_size(frame_bytes: usize) -> Result<(), PersistError> {
    if frame_bytes <= to_usize(u64::from(FRAME_BYTES_MAX)) {
        return Ok(());
    }
    let source = std::io::Error::other("its header and data are larger than a frame may be");
    Err(failed_to("build")(source))
}

fn torn(ino: Ino, problem: &str) -> PortError {
    PortError::new(ErrorKind::Damaged, format!("inode {ino} has {problem}"))
}

fn failed_to(operation: &'static str) -> impl Fn(std::io::Error) -> PersistError {
    move |source| PersistError::Io { operation, object: "a frame".into(), source }
}
