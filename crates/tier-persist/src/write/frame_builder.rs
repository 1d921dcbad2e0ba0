//! From members to frames: reads the data, writes the tar blocks, compresses. One worker's part.

use std::ops::Range;

use tier_types::{
    ChunkNo, ChunkRange, ErrorKind, Ino, PortError, SnapshotReader, to_u64, to_usize,
};

use crate::error::PersistError;
use crate::format::compress::FrameCompressor;
use crate::format::tarball::layout::{FRAME_BYTES_MAX, padding};
use crate::format::tarball::mark::FrameMark;
use crate::format::tarball::member::{Member, Run};
use crate::format::tarball::row::frame_digest;
use crate::format::tarball::toc::entry::{Piece, TocEntry};

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
    pub(crate) failed: Vec<(Ino, PortError)>,
}

/// Builds frames. Keeps its buffers.
pub(crate) struct FrameBuilder {
    compressor: FrameCompressor,
    chunk_bytes: u32,
    frame_bytes: usize,
    /// File data as it was read, and the tar stream that is made of it.
    data: Vec<u8>,
    plain: Vec<u8>,
}

impl FrameBuilder {
    pub(crate) fn new(
        level: i32,
        chunk_bytes: u32,
        frame_bytes: usize,
    ) -> Result<Self, PersistError> {
        let compressor = FrameCompressor::new(level).map_err(failed_to("start"))?;
        let (data, plain) = (Vec::new(), Vec::new());
        Ok(Self { compressor, chunk_bytes, frame_bytes, data, plain })
    }

    /// One frame with these members; several for a single member that is too large for one. All data
    /// of a member is read before any of it counts, so that one that cannot be read leaves nothing
    /// behind.
    pub(crate) fn build(
        &mut self,
        members: &[Member],
        mark: &FrameMark,
        reader: &mut dyn SnapshotReader,
    ) -> Result<BuiltFrames, PersistError> {
        let mut built = BuiltFrames::default();
        let mut cuts = Cuts::default();
        let mut before = Ino::new(0);
        self.plain.clear();
        let data = self.read_data(members, reader);
        for (member, data) in members.iter().zip(data) {
            let data = match data {
                Ok(data) => data,
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    return Err(PersistError::Source(error));
                }
                Err(error) => {
                    built.failed.push((member.ino, error));
                    continue;
                }
            };
            let entry = self.append(member, data, mark, &mut cuts);
            entry.append_to(before, &mut built.toc);
            before = member.ino;
            built.n_members += 1;
            built.n_inodes += u64::from(member.metadata.is_some() || member.gone.is_some());
            built.data_bytes += member.data_bytes;
        }
        cuts.cut(self.plain.len());
        let mut start = 0;
        for end in cuts.ends {
            let plain = self.plain.get(start..end).unwrap_or_default();
            built.frames.push(compress(&mut self.compressor, plain)?);
            start = end;
        }
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
        let mut order: Vec<_> = members.iter().enumerate().collect();
        order.sort_by_key(|(_, member)| member.ino);
        let mut found: Vec<_> = members.iter().map(|_| Ok(0..0)).collect();
        for (number, member) in order {
            if let Some(place) = found.get_mut(number) {
                let start = self.data.len();
                *place = self.read_member(member, reader).map(|()| start..self.data.len());
                if place.is_err() {
                    self.data.truncate(start);
                }
            }
        }
        found
    }

    /// Reads all data of a member.
    fn read_member(
        &mut self,
        member: &Member,
        reader: &mut dyn SnapshotReader,
    ) -> Result<(), PortError> {
        let chunk_bytes = to_usize(u64::from(self.chunk_bytes));
        let mut left = to_usize(member.data_bytes);
        for run in &member.data {
            let start = self.data.len();
            reader.read_chunks(member.ino, run.chunks, &mut self.data)?;
            // The last chunk may be stored shorter than the file is, and longer too.
            let run_bytes = to_usize(run.chunks.len()).saturating_mul(chunk_bytes).min(left);
            let stored = self.data.len() - start;
            if run_bytes.saturating_sub(stored) >= chunk_bytes {
                let message = format!("inode {} has fewer bytes than its map says", member.ino);
                return Err(PortError::new(ErrorKind::Damaged, message));
            }
            self.data.resize(start + run_bytes, 0);
            left -= run_bytes;
        }
        Ok(())
    }

    /// Appends a member with its data and says where it is.
    fn append(
        &mut self,
        member: &Member,
        data: Range<usize>,
        mark: &FrameMark,
        cuts: &mut Cuts,
    ) -> TocEntry {
        let (frame, offset) = cuts.place_of(self.plain.len());
        let first_mark = (offset == 0).then_some(mark);
        member.append_header(self.chunk_bytes, first_mark, &mut self.plain);
        let chunk_bytes = to_usize(u64::from(self.chunk_bytes));
        let limits = (chunk_bytes, self.frame_bytes);
        let mut pieces = Pieces { cuts, limits, frame_data: 0, found: Vec::new() };
        let mut at = self.plain.len();
        self.plain.extend_from_slice(self.data.get(data).unwrap_or_default());
        for run in &member.data {
            let run_bytes = to_usize(run.chunks.len()).saturating_mul(chunk_bytes);
            let end = at.saturating_add(run_bytes).min(self.plain.len());
            pieces.add(*run, at..end);
            at = end;
        }
        let data = pieces.found;
        self.plain.resize(self.plain.len() + padding(member.data_bytes), 0);
        for other_path in &member.other_paths {
            // There may be thousands of them.
            if self.plain.len() - cuts.frame_start > 2 * self.frame_bytes {
                cuts.cut(self.plain.len());
            }
            let (_, offset) = cuts.place_of(self.plain.len());
            member.append_link(other_path, (offset == 0).then_some(mark), &mut self.plain);
        }
        TocEntry {
            ino: member.ino,
            frame,
            offset,
            gone: member.gone,
            metadata: member.metadata.clone(),
            data,
            holes: member.holes.clone(),
        }
    }
}

fn compress(
    compressor: &mut FrameCompressor,
    plain: &[u8],
) -> Result<CompressedFrame, PersistError> {
    if plain.len() > to_usize(u64::from(FRAME_BYTES_MAX)) {
        let source = std::io::Error::other("its header and data are larger than a frame may be");
        return Err(failed_to("build")(source));
    }
    let bytes = compressor.frame(plain).map_err(failed_to("compress"))?;
    let digest = frame_digest(&bytes);
    Ok(CompressedFrame { bytes, decompressed: offset(plain.len()), digest })
}

/// Frames are far smaller than 4 GiB: `compress` sees to it.
fn offset(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn failed_to(operation: &'static str) -> impl Fn(std::io::Error) -> PersistError {
    move |source| PersistError::Io { operation, object: "a frame".into(), source }
}

/// Where frames end in the bytes that are being built.
#[derive(Default)]
struct Cuts {
    ends: Vec<usize>,
    frame_start: usize,
}

impl Cuts {
    /// Ends the frame here, unless it is empty.
    fn cut(&mut self, at: usize) {
        if at > self.frame_start {
            self.ends.push(at);
            self.frame_start = at;
        }
    }

    /// Frame and offset of a byte.
    fn place_of(&self, at: usize) -> (u32, u32) {
        (offset(self.ends.len()), offset(at - self.frame_start))
    }
}

/// Where the pieces of one member's data lie.
struct Pieces<'a> {
    cuts: &'a mut Cuts,
    /// Bytes of a chunk, and data bytes after which a frame ends.
    limits: (usize, usize),
    /// Data bytes of this member in the current frame.
    frame_data: usize,
    found: Vec<Piece>,
}

impl Pieces<'_> {
    /// Notes a run whose data has these bytes, and ends frames between its chunks.
    fn add(&mut self, run: Run, bytes: Range<usize>) {
        let (chunk_bytes, frame_bytes) = self.limits;
        let mut at = bytes.start;
        let mut rest = Some(run.chunks);
        while let Some(chunks) = rest {
            let left = bytes.end - at;
            let room = frame_bytes.saturating_sub(self.frame_data);
            if left.min(chunk_bytes) > room && self.frame_data > 0 {
                self.cuts.cut(at);
                self.frame_data = 0;
                continue;
            }
            let whole_chunks = (room / chunk_bytes).max(1) * chunk_bytes;
            let n_bytes = if left <= room { left } else { whole_chunks.min(left) };
            let n_chunks = n_bytes.div_ceil(chunk_bytes).max(1);
            let end = ChunkNo::new(chunks.start().get().saturating_add(to_u64(n_chunks)));
            let here = ChunkRange::new(chunks.start(), end).unwrap_or(chunks);
            let (frame, offset_in_frame) = self.cuts.place_of(at);
            self.found.push(Piece {
                run: Run { chunks: here, ..run },
                frame,
                offset: offset_in_frame,
                short_bytes: offset((n_chunks * chunk_bytes).saturating_sub(n_bytes)),
            });
            at += n_bytes;
            self.frame_data += n_bytes;
            rest = ChunkRange::new(end, chunks.end());
        }
    }
}
