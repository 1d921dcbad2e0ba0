//! The builder of frames, one for each worker: it reads the data of members, writes their tar
//! blocks, and compresses.
//!
//! All data of a member is read before any of it counts ([`crate::write::member_data`]). Every
//! member becomes an entry: exactly the chunks that cannot be read are left out, and its header
//! lists them as lost. The builder keeps its buffers from job to job; the data is
//! copied once, from where the snapshot put it into the tar stream, because a member's data may be
//! read in another order than it is written in.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use tier_types::{Ino, SnapshotReader, to_usize};

use crate::error::PersistError;
use crate::format::compress::FrameCompressor;
use crate::format::digest::frame_digest;
use crate::format::tarball::layout::{FRAME_BYTES_MAX, padding, to_u32};
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::member::Member;
use crate::format::tarball::toc::entry::TocEntry;
use crate::write::cuts::{Cuts, Pieces};
use crate::write::limits::FrameLimits;
use crate::write::member_data::{self, LostRun, MemberData};

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
    /// What could not be read of them.
    pub(crate) lost: Vec<LostRun>,
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
        let read = self.read_data(members, reader)?;
        for (member, MemberData { bytes, lost }) in members.iter().zip(read) {
            let member = without_lost(member, &lost);
            built.lost.extend(lost);
            let entry = self.append(&member, bytes, mark, &mut cuts)?;
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

    /// Reads the data of all members into `self.data`, in the order that suits the reader.
    fn read_data(
        &mut self,
        members: &[Member],
        reader: &mut dyn SnapshotReader,
    ) -> Result<Vec<MemberData>, PersistError> {
        self.data.clear();
        // Members are in the order of directories, and the snapshot in that of inodes.
        let mut order: Vec<_> = members.iter().enumerate().collect();
        order.sort_by_key(|(_, member)| member.ino);
        let read = order.into_iter().map(|(position, member)| {
            let chunk_bytes = self.limits.chunk_bytes;
            let read = member_data::read(member, chunk_bytes, reader, &mut self.data);
            Ok((position, read.map_err(PersistError::Source)?))
        });
        // Each member is read once, so that its position is there once.
        let read: BTreeMap<_, _> = read.collect::<Result<_, PersistError>>()?;
        assert_eq!(read.len(), members.len(), "every member was read");
        Ok(read.into_values().collect())
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
        Ok(TocEntry {
            ino: member.ino,
            at,
            gone: member.gone,
            metadata: member.metadata.clone(),
            data,
            holes: member.holes.clone(),
            lost: member.lost.clone(),
        })
    }
}

/// The member as it can be written.
fn without_lost<'a>(member: &'a Member, lost: &[LostRun]) -> Cow<'a, Member> {
    if lost.is_empty() {
        return Cow::Borrowed(member);
    }
    let runs: Vec<_> = lost.iter().map(|lost| lost.run).collect();
    let lost_bytes = lost.iter().map(|lost| lost.bytes.len).sum();
    Cow::Owned(member.without(&runs, lost_bytes))
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

fn failed_to(operation: &'static str) -> impl Fn(std::io::Error) -> PersistError {
    move |source| PersistError::Io { operation, object: "a frame".into(), source }
}
