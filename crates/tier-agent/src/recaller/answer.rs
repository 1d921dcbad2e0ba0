//! What readers share: the key of a request, and its answer.

use std::sync::Arc;

use tier_types::{ChunkNo, ErrorKind, Ino, RecallRequest, RecalledExtent, Xid};

/// What readers share an answer by: it has at least the first chunk, and a reader that wants more
/// asks again for the rest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct RecallKey {
    ino: Ino,
    chunk: ChunkNo,
    data_xid: Xid,
}

impl RecallKey {
    pub(super) fn of(request: &RecallRequest) -> Self {
        let RecallRequest { ino, chunks, data_xid } = *request;
        Self { ino, chunk: chunks.start(), data_xid }
    }
}

/// What a fetch brought, for all that wait for it.
pub(super) type Answer = Result<Arc<RecalledExtent>, SharedError>;

/// An error as text, because all readers get it.
#[derive(Clone, Debug)]
pub(super) struct SharedError {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
}
