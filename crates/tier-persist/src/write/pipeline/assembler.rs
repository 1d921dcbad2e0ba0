//! The assembler of one tarball: identity, frames in order, table of contents, seek table.
//!
//! It keeps count of every byte that it hands on, and knows so what the object's length must be
//! when the writer is done: a tarball whose length is another is not committed.

use std::time::Instant;

use crossbeam_channel::Sender;
use tier_types::{ObjectName, StagingStore, to_u64};

use super::payload::{Payload, SealJob};
use super::sink::{self, PendingWrite};
use crate::error::PersistError;
use crate::format::age::{self, PayloadKey};
use crate::format::digest::ContentDigest;
use crate::format::keys::Keys;
use crate::format::names::{self, NameToken, TarballName};
use crate::format::seekable::{self, FrameSize};
use crate::format::tarball::identity::TarballIdentity;
use crate::format::tarball::layout::to_u32;
use crate::format::tarball::row::{FrameRow, TarballObject};
use crate::format::tarball::toc::group::{TocFrames, TocWriter};
use crate::format::tarball::toc::root::TocRoot;
use crate::write::frame_builder::{BuiltFrames, CompressedFrame, FrameBuilder};
use crate::write::limits::TOC_PART_BYTES_MAX;

/// A tarball that takes frames. Dropped before it is finished, it leaves no object. The payload
/// comes before the write in the order of the fields, so that it is dropped first: the writer waits
/// for it.
pub(super) struct Assembler {
    identity: TarballIdentity,
    tarball: TarballName,
    name: ObjectName,
    header: Vec<u8>,
    recipients: Vec<[u8; 8]>,
    payload: Payload,
    write: PendingWrite,
    frames: Vec<FrameRow>,
    /// Compressed bytes so far.
    offset: u64,
    toc: TocWriter,
    n_members: u64,
    started: Instant,
}

/// A tarball that is complete but for its last bytes on their way to the disk.
pub(super) struct PendingTarball {
    /// Without the digests, which are known when all of it is written.
    object: TarballObject,
    object_bytes: u64,
    name: ObjectName,
    write: PendingWrite,
    started: Instant,
}

impl PendingTarball {
    /// Waits until the tarball is durable.
    pub(super) fn wait(self) -> Result<TarballObject, PersistError> {
        let Self { object, object_bytes, name, write, started } = self;
        let content = write.wait()?;
        assert_eq!(object_bytes, content.len_bytes, "every byte of {name} was written once");
        tracing::info!(
            %name,
            bytes = object_bytes,
            n_members = object.n_members,
            elapsed = ?started.elapsed(),
            "tarball durable"
        );
        Ok(TarballObject { content, ..object })
    }
}

impl Assembler {
    /// Stages the object and starts its writer.
    pub(super) fn start(
        store: &dyn StagingStore,
        keys: &Keys,
        identity: TarballIdentity,
        token: NameToken,
        sealer: Sender<SealJob>,
    ) -> Result<Self, PersistError> {
        let tarball = TarballName { id: identity.id, token, encrypted: keys.encrypts() };
        let name = names::tarball_name(identity.filesystem, tarball);
        // A key of its own for each tarball, so that its chunks can be numbered from 0.
        let (header, key) = new_header(keys)?;
        let object = store.stage(&name).map_err(PersistError::Store)?;
        let (runs, write) = sink::start(object, header.clone())?;
        Ok(Self {
            identity,
            tarball,
            name,
            header,
            recipients: keys.recipient_fingerprints(),
            payload: Payload::new(runs, sealer, key),
            write,
            frames: Vec::new(),
            offset: 0,
            toc: TocWriter::new(TOC_PART_BYTES_MAX),
            n_members: 0,
            started: Instant::now(),
        })
    }

    /// Compressed bytes of the frames so far.
    pub(super) fn n_bytes(&self) -> u64 {
        self.offset
    }

    pub(super) fn n_members(&self) -> u64 {
        self.n_members
    }

    /// Takes what a job came to.
    pub(super) fn add(&mut self, built: &BuiltFrames) -> Result<(), PersistError> {
        assert!(!self.frames.is_empty(), "the identity is the first frame");
        // The entries count their frames from the first of these, whichever that turns out to be.
        self.toc.add(to_u32(self.frames.len()), &built.toc);
        self.n_members += built.n_members;
        built.frames.iter().try_for_each(|frame| self.add_frame(frame))
    }

    pub(super) fn add_frame(&mut self, frame: &CompressedFrame) -> Result<(), PersistError> {
        let CompressedFrame { bytes, decompressed, digest } = frame;
        let compressed = to_u32(bytes.len());
        let (offset, decompressed, digest) = (self.offset, *decompressed, *digest);
        self.frames.push(FrameRow { offset, compressed, decompressed, digest });
        self.offset += u64::from(compressed);
        self.payload.append(bytes)
    }

    /// Ends the tarball: table of contents, end of archive, seek table.
    pub(super) fn finish(
        mut self,
        builder: &mut FrameBuilder,
    ) -> Result<PendingTarball, PersistError> {
        let End { root, table_bytes, plain_bytes } = match self.append_end(builder) {
            Ok(end) => end,
            Err(error) => return Err(self.explain(error)),
        };
        // Known before the writer is done, and compared with what it wrote.
        let encrypted = !self.header.is_empty();
        let payload_bytes = if encrypted { age::sealed_len(plain_bytes) } else { plain_bytes };
        let object_bytes = to_u64(self.header.len()) + payload_bytes;
        let object = TarballObject {
            name: self.tarball,
            content: ContentDigest::of(&[]),
            header: self.header,
            recipients: self.recipients,
            n_members: self.n_members,
            root,
            table_bytes,
        };
        tracing::info!(
            name = %self.name,
            bytes = object_bytes,
            n_members = object.n_members,
            elapsed = ?self.started.elapsed(),
            "tarball sealed"
        );
        let Self { name, write, started, .. } = self;
        Ok(PendingTarball { object, object_bytes, name, write, started })
    }

    fn append_end(&mut self, builder: &mut FrameBuilder) -> Result<End, PersistError> {
        let toc = std::mem::replace(&mut self.toc, TocWriter::new(TOC_PART_BYTES_MAX));
        let (first_frame, mark) = (to_u32(self.frames.len()), self.identity.mark());
        let members_bytes = self.offset;
        // The table's frames follow those of the members, and count as frames themselves.
        let TocFrames { frames, parts } = toc.into_frames(first_frame, &mark);
        for plain in frames {
            self.add_frame(&builder.plain_frame(&plain)?)?;
        }
        // The root lists all frames but its own, which the manifest has.
        let root = TocRoot::new(self.n_members, parts, &self.frames);
        self.add_frame(&builder.plain_frame(&root.to_frame(&mark))?)?;
        let table_bytes = self.offset - members_bytes;
        // It covers all frames, and is none itself.
        let table = seek_table(&self.frames);
        self.payload.append(&table)?;
        self.payload.finish()?;
        let plain_bytes = self.offset + to_u64(table.len());
        let root = self.frames.pop();
        Ok(End { root: root.ok_or(PersistError::Pipeline)?, table_bytes, plain_bytes })
    }

    /// The error that ended the tarball, if this one says only that it ended.
    pub(super) fn explain(self, error: PersistError) -> PersistError {
        let Self { payload, write, .. } = self;
        // The writer ends when nothing more can come.
        drop(payload);
        // A full disk is noticed by the writer, and by this thread only as a closed buffer.
        let cause = write.wait().err().filter(|cause| !matches!(cause, PersistError::Cancelled));
        cause.filter(|_| matches!(error, PersistError::Pipeline)).unwrap_or(error)
    }
}

/// The end of a tarball.
struct End {
    root: FrameRow,
    /// Compressed bytes of the table of contents, with the root.
    table_bytes: u64,
    /// Bytes of the whole tarball before encryption.
    plain_bytes: u64,
}

#[expect(clippy::expect_used, reason = "the format's limit is 2^27 frames")]
fn seek_table(frames: &[FrameRow]) -> Vec<u8> {
    let size = |frame: &FrameRow| FrameSize {
        compressed: frame.compressed,
        decompressed: frame.decompressed,
    };
    let sizes: Vec<_> = frames.iter().map(size).collect();
    seekable::encode(&sizes).expect("a tarball ends long before it has that many frames")
}

/// Age header (empty for a tarball in clear) and the key that it wraps.
fn new_header(keys: &Keys) -> Result<(Vec<u8>, Option<PayloadKey>), PersistError> {
    if !keys.encrypts() {
        return Ok((Vec::new(), None));
    }
    let (header, key) = age::new_header(keys)?;
    Ok((header, Some(key)))
}
