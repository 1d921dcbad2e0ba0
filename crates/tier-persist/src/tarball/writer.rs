//! Builds one tarball: members into frames, frames into the pipeline, the table of contents last.

use tier_types::{ChunkNo, ChunkRange, to_u64, to_usize};

use super::member::{Member, Run, header_blocks};
use super::pax::PaxWriter;
use super::row::TarballRow;
use super::toc::{Piece, TocEntry, TocRoot};
use super::{BLOCK_BYTES, TarballIdentity, padding};
use crate::local_store::LocalStore;
use crate::pipeline::{FrameSink, PendingSeal, WorkerPool, start};
use crate::{Keys, PersistError, age_stream, names};

/// Longest part of a table of contents.
const TOC_PART_BYTES: usize = 1 << 20;

/// What all tarballs of a snapshot share.
pub(crate) struct WriterContext<'a> {
    pub(crate) pool: &'a WorkerPool,
    pub(crate) store: &'a LocalStore,
    pub(crate) keys: &'a Keys,
    /// Plaintext bytes after which a frame ends.
    pub(crate) frame_bytes: usize,
}

/// A tarball that is being built.
pub(crate) struct TarballWriter<'a> {
    context: &'a WriterContext<'a>,
    identity: TarballIdentity,
    header: Vec<u8>,
    sink: FrameSink,
    frame: Vec<u8>,
    toc: Vec<u8>,
    /// Where each part of the table ends in `toc`.
    toc_cuts: Vec<usize>,
    n_members: u64,
}

/// A tarball that is complete but for its last bytes on their way to the disk.
pub(crate) struct PendingTarball {
    identity: TarballIdentity,
    header: Vec<u8>,
    n_members: u64,
    seal: PendingSeal,
}

impl PendingTarball {
    /// Waits until the tarball is durable.
    pub(crate) fn wait(self) -> Result<TarballRow, PersistError> {
        let sealed = self.seal.wait()?;
        Ok(TarballRow {
            id: self.identity.id,
            encrypted: !self.header.is_empty(),
            object_bytes: sealed.object_bytes,
            sha256: sealed.sha256,
            header: self.header,
            n_members: self.n_members,
            frames: sealed.frames,
        })
    }
}

impl<'a> TarballWriter<'a> {
    pub(crate) fn start(
        context: &'a WriterContext<'a>,
        identity: TarballIdentity,
    ) -> Result<Self, PersistError> {
        let encrypted = context.keys.encrypts();
        let name = names::tarball_name(identity.filesystem, identity.id, encrypted);
        let (header, key) = if encrypted {
            let (header, key) = age_stream::new_header(context.keys)?;
            (header, Some(key))
        } else {
            (Vec::new(), None)
        };
        let object = context.store.create(&name).map_err(PersistError::Store)?;
        let sink = start(context.pool, object, header.clone(), key)?;
        let mut frame = Vec::with_capacity(2 * context.frame_bytes);
        frame.extend(identity.to_blocks());
        let (toc, toc_cuts) = (Vec::new(), Vec::new());
        Ok(Self { context, identity, header, sink, frame, toc, toc_cuts, n_members: 0 })
    }

    /// Bytes that the tarball has so far, less the last few frames.
    pub(crate) fn object_bytes(&self) -> u64 {
        self.sink.compressed_bytes()
    }

    pub(crate) fn n_members(&self) -> u64 {
        self.n_members
    }

    /// Appends a member with its data. Small ones lie in one frame.
    pub(crate) fn append(&mut self, member: &Member, data: &[u8]) -> Result<(), PersistError> {
        assert_eq!(to_u64(data.len()), member.data_bytes, "the data is what the member says");
        let header = member.header_blocks(self.identity.chunk_bytes);
        // The header, with the map of a sparse file, fills whole blocks: only the data needs padding.
        let content_bytes = member.data_bytes;
        let whole = header.len() + data.len() + padding(content_bytes);
        let room = self.context.frame_bytes.saturating_sub(self.frame.len());
        if whole > room && (whole <= self.context.frame_bytes || header.len() > room) {
            self.cut()?;
        }
        let (frame, offset) = (self.sink.n_frames(), self.offset());
        self.frame.extend_from_slice(&header);
        let pieces = self.append_data(&member.data, data)?;
        self.frame.resize(self.frame.len() + padding(content_bytes), 0);
        self.add_to_toc(&TocEntry {
            ino: member.ino,
            frame,
            offset,
            gone: member.gone,
            metadata: member.metadata.clone(),
            data: pieces,
            holes: member.holes.clone(),
        });
        self.n_members += 1;
        Ok(())
    }

    /// Appends header blocks of a member without content that our own readers pass over.
    pub(crate) fn append_help(&mut self, blocks: &[u8]) -> Result<(), PersistError> {
        if self.frame.len() + blocks.len() > self.context.frame_bytes {
            self.cut()?;
        }
        self.frame.extend_from_slice(blocks);
        Ok(())
    }

    /// Ends the tarball: table of contents, end of archive, seek table.
    pub(crate) fn finish(mut self) -> Result<PendingTarball, PersistError> {
        if let Err(error) = self.append_toc() {
            return Err(self.explain(error));
        }
        Ok(PendingTarball {
            identity: self.identity,
            header: self.header,
            n_members: self.n_members,
            seal: self.sink.finish(),
        })
    }

    fn append_toc(&mut self) -> Result<(), PersistError> {
        self.cut()?;
        let mut parts = Vec::new();
        let toc = std::mem::take(&mut self.toc);
        let mut cuts = std::mem::take(&mut self.toc_cuts);
        cuts.push(toc.len());
        let mut start = 0;
        for (part_no, end) in cuts.into_iter().enumerate() {
            let part = toc.get(start..end).unwrap_or_default();
            start = end;
            if part.is_empty() {
                continue;
            }
            let path = format!(".tier/toc/{part_no:06}");
            let frame = self.sink.n_frames();
            let offset = self.append_plain(path.as_bytes(), part);
            parts.push((frame, offset, u32::try_from(part.len()).unwrap_or(u32::MAX)));
            self.cut()?;
        }
        let root = TocRoot { parts, n_members: self.n_members };
        self.append_plain(b".tier/toc/root", &root.to_bytes());
        self.frame.resize(self.frame.len() + 2 * BLOCK_BYTES, 0);
        self.cut()
    }

    /// The error that ended the pipeline below, for one that says only that it ended.
    pub(crate) fn explain(self, error: PersistError) -> PersistError {
        let unexplained = matches!(error, PersistError::Pipeline);
        if unexplained { self.sink.into_error() } else { error }
    }

    fn offset(&self) -> u32 {
        u32::try_from(self.frame.len()).unwrap_or(u32::MAX)
    }

    /// Appends data of runs, cut into frames between chunks.
    fn append_data(&mut self, runs: &[Run], mut data: &[u8]) -> Result<Vec<Piece>, PersistError> {
        let chunk_bytes = to_usize(u64::from(self.identity.chunk_bytes));
        let mut pieces = Vec::new();
        for run in runs {
            let mut rest = Some(run.chunks);
            while let Some(chunks) = rest {
                let room = self.context.frame_bytes.saturating_sub(self.frame.len());
                let n_bytes_run =
                    to_usize(chunks.len()).saturating_mul(chunk_bytes).min(data.len());
                if room < n_bytes_run && room < chunk_bytes && !self.frame.is_empty() {
                    self.cut()?;
                    continue;
                }
                let n_bytes = match n_bytes_run <= room {
                    true => n_bytes_run,
                    false => (room / chunk_bytes).max(1) * chunk_bytes,
                }
                .min(n_bytes_run);
                let n_chunks = n_bytes.div_ceil(chunk_bytes).max(1);
                let end = ChunkNo::new(chunks.start().get().saturating_add(to_u64(n_chunks)));
                let here = ChunkRange::new(chunks.start(), end).unwrap_or(chunks);
                let short = (n_chunks * chunk_bytes).saturating_sub(n_bytes);
                pieces.push(Piece {
                    run: Run { chunks: here, ..*run },
                    frame: self.sink.n_frames(),
                    offset: self.offset(),
                    short_bytes: u32::try_from(short).unwrap_or(0),
                });
                let (now, later) = data.split_at_checked(n_bytes).unwrap_or((data, &[]));
                self.frame.extend_from_slice(now);
                data = later;
                rest = ChunkRange::new(end, chunks.end());
            }
        }
        Ok(pieces)
    }

    fn add_to_toc(&mut self, entry: &TocEntry) {
        let bytes = entry.to_bytes();
        let start = self.toc_cuts.last().copied().unwrap_or(0);
        if self.toc.len() > start && self.toc.len() - start + bytes.len() > TOC_PART_BYTES {
            self.toc_cuts.push(self.toc.len());
        }
        self.toc.extend(bytes);
    }

    /// Appends a plain file and returns where its content starts in the frame.
    fn append_plain(&mut self, path: &[u8], content: &[u8]) -> u32 {
        self.frame.extend(header_blocks(path, PaxWriter::default(), to_u64(content.len())));
        let offset = self.offset();
        self.frame.extend_from_slice(content);
        self.frame.resize(self.frame.len() + padding(to_u64(content.len())), 0);
        offset
    }

    fn cut(&mut self) -> Result<(), PersistError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let next = Vec::with_capacity(self.context.frame_bytes + self.context.frame_bytes / 4);
        let frame = std::mem::replace(&mut self.frame, next);
        self.sink.push(self.context.pool, frame)
    }
}
