//! One tarball on its way: identity, frames in order, table of contents, seek table.

use tier_types::{StagingStore, to_u64};

use crate::error::PersistError;
use crate::format::age::{self, PayloadKey};
use crate::format::keys::Keys;
use crate::format::names;
use crate::format::seekable::{self, FrameSize};
use crate::format::tarball::identity::TarballIdentity;
use crate::format::tarball::row::{FrameRow, TarballRow};
use crate::format::tarball::toc::entry::TocWriter;
use crate::write::frame_builder::{BuiltFrames, CompressedFrame, FrameBuilder};
use crate::write::pipeline::payload::{Payload, SealJob};
use crate::write::pipeline::sink::{self, PendingWrite, Written};

/// A tarball that takes frames. Dropped before it is finished, it leaves no object. The payload comes
/// before the write in the order of the fields, so that it is dropped first: the writer waits for it.
pub(super) struct Assembler {
    identity: TarballIdentity,
    header: Vec<u8>,
    payload: Payload,
    write: PendingWrite,
    frames: Vec<FrameRow>,
    /// Compressed bytes so far.
    offset: u64,
    toc: TocWriter,
    n_members: u64,
}

/// A tarball that is complete but for its last bytes on their way to the disk.
pub(super) struct PendingTarball {
    row: TarballRow,
    write: PendingWrite,
}

impl PendingTarball {
    /// Waits until the tarball is durable.
    pub(super) fn wait(self) -> Result<TarballRow, PersistError> {
        let Written { object_bytes, sha256 } = self.write.wait()?;
        Ok(TarballRow { object_bytes, sha256, ..self.row })
    }
}

impl Assembler {
    pub(super) fn start(
        (store, keys): (&dyn StagingStore, &Keys),
        identity: TarballIdentity,
        sealer: crossbeam_channel::Sender<SealJob>,
    ) -> Result<Self, PersistError> {
        let encrypted = keys.encrypts();
        let name = names::tarball_name(identity.filesystem, identity.id, encrypted);
        let (header, key) = new_header(keys)?;
        let object = store.stage(&name).map_err(PersistError::Store)?;
        let (runs, write) = sink::start(object, header.clone())?;
        let payload = Payload::new(runs, sealer, key);
        let (frames, toc) = (Vec::new(), TocWriter::default());
        Ok(Self { identity, header, payload, write, frames, offset: 0, toc, n_members: 0 })
    }

    pub(super) fn object_bytes(&self) -> u64 {
        self.offset
    }

    pub(super) fn n_members(&self) -> u64 {
        self.n_members
    }

    pub(super) fn add(&mut self, built: &BuiltFrames) -> Result<(), PersistError> {
        self.toc.add(u32::try_from(self.frames.len()).unwrap_or(u32::MAX), &built.toc);
        self.n_members += built.n_members;
        built.frames.iter().try_for_each(|frame| self.add_frame(frame))
    }

    pub(super) fn add_frame(&mut self, frame: &CompressedFrame) -> Result<(), PersistError> {
        let CompressedFrame { bytes, decompressed, digest } = frame;
        let compressed = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (offset, decompressed, digest) = (self.offset, *decompressed, *digest);
        self.frames.push(FrameRow { offset, compressed, decompressed, digest });
        self.offset += to_u64(bytes.len());
        self.payload.append(bytes)
    }

    /// Ends the tarball: table of contents, end of archive, seek table.
    pub(super) fn finish(
        mut self,
        builder: &mut FrameBuilder,
    ) -> Result<PendingTarball, PersistError> {
        if let Err(error) = self.append_end(builder) {
            return Err(self.explain(error));
        }
        let row = TarballRow {
            id: self.identity.id,
            encrypted: !self.header.is_empty(),
            object_bytes: 0,
            sha256: [0; 32],
            header: self.header,
            n_members: self.n_members,
            frames: self.frames,
        };
        Ok(PendingTarball { row, write: self.write })
    }

    fn append_end(&mut self, builder: &mut FrameBuilder) -> Result<(), PersistError> {
        let toc = std::mem::take(&mut self.toc);
        let first_frame = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        for plain in toc.into_frames(first_frame, self.n_members, &self.identity.mark()) {
            self.add_frame(&builder.plain_frame(&plain)?)?;
        }
        let sizes = self.frames.iter().map(|frame| FrameSize {
            compressed: frame.compressed,
            decompressed: frame.decompressed,
        });
        let sizes: Vec<_> = sizes.collect();
        let table = seekable::encode(&sizes).ok_or(PersistError::Pipeline)?;
        self.payload.append(&table)?;
        self.payload.finish()
    }

    /// The error that ended the tarball, if this one says only that it ended.
    pub(super) fn explain(self, error: PersistError) -> PersistError {
        let Self { payload, write, .. } = self;
        // The writer ends when nobody can give it more.
        drop(payload);
        let cause = write.wait().err().filter(|cause| !matches!(cause, PersistError::Cancelled));
        cause.filter(|_| matches!(error, PersistError::Pipeline)).unwrap_or(error)
    }
}

/// Age header (empty for a tarball in clear) and the key that it wraps.
fn new_header(keys: &Keys) -> Result<(Vec<u8>, Option<PayloadKey>), PersistError> {
    if !keys.encrypts() {
        return Ok((Vec::new(), None));
    }
    let (header, key) = age::new_header(keys)?;
    Ok((header, Some(key)))
}
