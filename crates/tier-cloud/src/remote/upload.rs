//! Uploading: small objects in one conditional request, large ones in parts.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{PutMode, PutOptions, PutPayload};
use tier_types::{Call, ErrorKind, ObjectContent, PortError, to_u64, to_usize};

use super::bucket::Bucket;
use super::refusal::Failure;

/// Objects up to this many bytes are sent in one request, from memory.
const SINGLE_BYTES_MAX: u64 = 16 << 20;
/// Of a part, at least. Providers take no smaller ones than 5 MiB.
const PART_BYTES_MIN: u64 = 8 << 20;
/// Providers take no more parts than this.
const N_PARTS_MAX: u64 = 10_000;
/// A caller that stops does not wait longer for parts to be thrown away.
const ABORT_TIME: Duration = Duration::from_secs(1);
/// Parts of one object that are on their way at a time.
const N_PARTS_AT_ONCE: usize = 4;

/// What became of an upload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Put {
    Done,
    /// The name is taken; nothing was changed.
    Taken,
}

/// Why an upload failed: its content cannot be read, or the store does not take it.
#[derive(Debug)]
pub(super) enum PutError {
    Content(PortError),
    Store(Failure),
}

impl From<Failure> for PutError {
    fn from(failure: Failure) -> Self {
        Self::Store(failure)
    }
}

pub(super) fn is_single(len_bytes: u64) -> bool {
    len_bytes <= SINGLE_BYTES_MAX
}

/// Reads a piece of content.
pub(super) fn piece(
    call: &Call<'_>,
    content: &dyn ObjectContent,
    offset_bytes: u64,
    len_bytes: u64,
) -> Result<Bytes, PutError> {
    let mut buffer = vec![0; to_usize(len_bytes)];
    content.read_at(call, offset_bytes, &mut buffer).map_err(PutError::Content)?;
    Ok(buffer.into())
}

/// One request that succeeds only if the name is free.
pub(super) async fn create(bucket: &Bucket, path: &Path, bytes: Bytes) -> Result<Put, Failure> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match bucket.clients.backend.put_opts(path, PutPayload::from_bytes(bytes), options).await {
        Ok(_) => Ok(Put::Done),
        Err(error) => match Failure::of(&error) {
            Failure { kind: ErrorKind::Conflict, .. } => Ok(Put::Taken),
            failure => Err(failure),
        },
    }
}

/// Sends an object, and a part of one, whose content changes behind the signature. Whether the
/// store refuses both: they may be taken by different code of it.
pub(super) async fn refuses_changed(
    bucket: &Bucket,
    call: &Call<'_>,
    path: &Path,
) -> Result<bool, Failure> {
    let content = Bytes::from_static(b"as it was sent");
    bucket.tampering.begin(path.as_ref());
    let whole = create(bucket, path, content.clone());
    let whole = bucket.attempts.run_once(call, whole).await.map(drop);
    let part = bucket.attempts.run_once(call, put_one_part(bucket, path, content)).await;
    bucket.tampering.end(path.as_ref());
    let is_refused = |sent: Result<(), Failure>| match sent {
        Err(failure) if !failure.is_answered => Err(failure),
        sent => Ok(sent.is_err_and(|failure| failure.is_unfit)),
    };
    if !is_refused(whole)? || !is_refused(part?)? {
        return Ok(false);
    }
    match bucket.ask(call, path).await {
        Err(Failure { kind: ErrorKind::Missing, .. }) => Ok(true),
        // It was taken all the same.
        asked => asked.map(|_| false),
    }
}

/// What becomes of a part of an object that is not ended.
async fn put_one_part(
    bucket: &Bucket,
    path: &Path,
    content: Bytes,
) -> Result<Result<(), Failure>, Failure> {
    let backend = &bucket.clients.backend;
    let begun = backend.create_multipart(path).await;
    let upload = begun.map_err(|error| Failure::of(&error))?;
    let part = backend.put_part(path, &upload, 0, PutPayload::from_bytes(content)).await;
    // Nothing is left of it in any case.
    drop(backend.abort_multipart(path, &upload).await);
    Ok(part.map(drop).map_err(|error| Failure::of(&error)))
}

/// Sends an object in parts, each of which is read again when it is sent again. What fails leaves
/// no parts, as far as the store can still be told.
pub(super) async fn in_parts(
    bucket: &Bucket,
    call: &Call<'_>,
    path: &Path,
    content: &dyn ObjectContent,
) -> Result<(), PutError> {
    let backend = &bucket.clients.backend;
    let begun = bucket.attempts.run(call, || async {
        backend.create_multipart(path).await.map_err(|error| Failure::of(&error))
    });
    let upload = begun.await?;
    let sent = async {
        let parts = send_parts(bucket, call, path, &upload, content).await?;
        let ended = bucket.attempts.run(call, || async {
            let ended = backend.complete_multipart(path, &upload, parts.clone()).await;
            ended.map_err(|error| Failure::of(&error))
        });
        ended.await.map(drop).map_err(PutError::Store)
    };
    let sent = sent.await;
    if sent.is_err() {
        // Of the end alone the acknowledgement may be lost: then there is no upload any more.
        let ended = tokio::time::timeout(ABORT_TIME, backend.abort_multipart(path, &upload));
        if let Ok(Err(error)) = ended.await {
            let error = Failure::of(&error).text;
            tracing::debug!(%path, error, "parts of an upload may be left in the cloud");
        }
    }
    sent
}

async fn send_parts(
    bucket: &Bucket,
    call: &Call<'_>,
    path: &Path,
    upload: &String,
    content: &dyn ObjectContent,
) -> Result<Vec<PartId>, PutError> {
    let len_bytes = content.len_bytes();
    let part_bytes = PART_BYTES_MIN.max(len_bytes.div_ceil(N_PARTS_MAX));
    assert!(part_bytes * N_PARTS_MAX >= len_bytes, "all of it goes into so many parts");
    let send = |number: u64| async move {
        let offset = number * part_bytes;
        let bytes = piece(call, content, offset, part_bytes.min(len_bytes - offset))?;
        let sent = bucket.attempts.run(call, || {
            let payload = PutPayload::from_bytes(bytes.clone());
            async {
                bucket.attempts.pace(call, to_u64(payload.content_length())).await?;
                let part = bucket.clients.backend.put_part(path, upload, to_usize(number), payload);
                part.await.map_err(|error| Failure::of(&error))
            }
        });
        sent.await.map_err(PutError::Store)
    };
    let parts = stream::iter((0..len_bytes.div_ceil(part_bytes)).map(send));
    parts.buffered(N_PARTS_AT_ONCE).try_collect().await
}
