//! The writer of packed objects: each is staged, made durable and remembered for the manifest.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use tier_index::TarballId;
use tier_types::{ErrorKind, PortError, StagingStore, to_u64};

use crate::error::PersistError;
use crate::format::digest::ContentDigest;
use crate::format::keys::Keys;
use crate::format::names::{FilesystemId, NameToken, PackedKind, PackedName};
use crate::format::packed::{self, PackedAbout, PackedObject};
use crate::write::request::OpenSegment;

/// Bytes of a segment that are one object, and in memory at a time.
const SEGMENT_PIECE_BYTES: u64 = 16 << 20;

/// Writes the packed objects of one step.
pub(crate) struct PackedWriter<'a> {
    pub(crate) store: &'a dyn StagingStore,
    pub(crate) keys: &'a Keys,
    pub(crate) filesystem: FilesystemId,
    /// The step.
    pub(crate) id: TarballId,
    pub(crate) token: NameToken,
    /// Of compression.
    pub(crate) level: i32,
    pub(crate) written: Vec<PackedObject>,
}

impl PackedWriter<'_> {
    /// Writes an object with what there is from the first to the last inode, step or transaction.
    pub(crate) fn write(
        &mut self,
        kind: PackedKind,
        about: PackedAbout,
        content: &[u8],
    ) -> Result<(), PersistError> {
        assert!(about.first <= about.last, "what is written has an order");
        assert_eq!(about.content_bytes, to_u64(content.len()), "it says how much it is");
        let too_many = || PersistError::damaged(self.id, "it has too many objects");
        let part = u32::try_from(self.written.len()).map_err(|_| too_many())?;
        let (id, token) = (TarballId { part, ..self.id }, self.token);
        let name = PackedName { id, token, kind, encrypted: self.keys.encrypts() };
        let recipients = self.keys.recipient_fingerprints();
        let object = PackedObject { name, content: ContentDigest::of(&[]), recipients, about };
        let name = object.object_name(self.filesystem);
        let bytes = packed::pack(content, self.level, &name, self.keys)?;
        let mut staged = self.store.stage(&name).map_err(PersistError::Store)?;
        staged.write(&bytes).map_err(PersistError::Store)?;
        staged.commit().map_err(PersistError::Store)?;
        tracing::debug!(%name, bytes = bytes.len(), content_bytes = content.len(), "object durable");
        self.written.push(PackedObject { content: ContentDigest::of(&bytes), ..object });
        Ok(())
    }

    /// Writes a segment, in pieces that are joined to it again in the order of their numbers.
    pub(crate) fn write_segment(
        &mut self,
        segment: OpenSegment,
        stop: &AtomicBool,
    ) -> Result<(), PersistError> {
        let OpenSegment { range, name, mut bytes } = segment;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(PersistError::Cancelled);
            }
            let mut piece = Vec::new();
            let read = bytes.by_ref().take(SEGMENT_PIECE_BYTES).read_to_end(&mut piece);
            read.map_err(|error| {
                let message = format!("cannot read the log segment {}", name.display());
                let kind = ErrorKind::of_io(&error);
                PersistError::Source(PortError::new(kind, message).with_source(error))
            })?;
            if piece.is_empty() {
                return Ok(());
            }
            let about = PackedAbout {
                first: range.start().get(),
                last: range.last().get(),
                content_bytes: to_u64(piece.len()),
                n_records: 0,
                rows_digest: [0; 16],
            };
            self.write(PackedKind::Segment, about, &piece)?;
        }
    }
}
