//! Reading: ranges put together, several at once, and gone on with where an answer broke off.

use std::ops::Range;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange};
use tier_types::{Call, CallClass, ErrorKind, RangeRead, to_u64, to_usize};

use super::attempts::while_wanted;
use super::bucket::Bucket;
use super::refusal::Failure;
use super::wire::ANSWER_TIME;

/// A gap of so many bytes between two ranges is read and dropped: another request takes longer.
const GAP_BYTES_MAX: u64 = 256 << 10;
/// One request brings no more, so that several can share the line.
const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// Of what has to wait so much is asked for at a time.
const PACED_BYTES: u64 = 8 << 20;
/// How often an answer may break off before its first byte.
const N_EMPTY_ANSWERS_MAX: u32 = 3;
/// Requests at a time for the ranges of one call.
const N_REQUESTS: usize = 8;

/// Ranges that one request brings, and all that it reads.
struct Request<'a, 'b> {
    bytes: Range<u64>,
    members: Vec<&'a mut RangeRead<'b>>,
}

/// The bytes of a range; none that lie behind the address space.
fn bytes_of(range: &RangeRead<'_>) -> Range<u64> {
    range.offset_bytes..range.offset_bytes.saturating_add(to_u64(range.buffer.len()))
}

/// Ranges put together as few requests.
fn plan<'a, 'b>(ranges: &'a mut [RangeRead<'b>]) -> Vec<Request<'a, 'b>> {
    let mut order: Vec<_> = ranges.iter_mut().filter(|range| !range.buffer.is_empty()).collect();
    order.sort_by_key(|range| range.offset_bytes);
    let mut requests: Vec<Request<'a, 'b>> = Vec::new();
    for range in order {
        let bytes = bytes_of(range);
        if let Some(last) = requests.last_mut() {
            let end = last.bytes.end.max(bytes.end);
            let is_near = bytes.start <= last.bytes.end.saturating_add(GAP_BYTES_MAX);
            if is_near && end - last.bytes.start <= REQUEST_BYTES_MAX {
                last.bytes.end = end;
                last.members.push(range);
                continue;
            }
        }
        requests.push(Request { bytes, members: vec![range] });
    }
    assert!(
        requests.is_sorted_by(|one, next| one.bytes.start <= next.bytes.start),
        "no request begins before the one before it"
    );
    requests
}

impl Request<'_, '_> {
    /// Puts a piece of the answer, which lies at this place, into the buffers that it belongs to.
    fn deliver(&mut self, at: u64, piece: &[u8]) {
        for range in &mut self.members {
            let wanted = bytes_of(range);
            let (start, end) = (at.max(wanted.start), (at + to_u64(piece.len())).min(wanted.end));
            if start >= end {
                continue;
            }
            let within = |origin: u64| to_usize(start - origin)..to_usize(end - origin);
            let buffer = range.buffer.get_mut(within(wanted.start));
            if let (Some(buffer), Some(bytes)) = (buffer, piece.get(within(at))) {
                buffer.copy_from_slice(bytes);
            }
        }
    }
}

/// Fills the buffers of several ranges of one object.
pub(super) async fn ranges(
    bucket: &Bucket,
    call: &Call<'_>,
    path: &Path,
    ranges: &mut [RangeRead<'_>],
) -> Result<(), Failure> {
    let requests = plan(ranges).into_iter().map(|mut request| async move {
        let (bytes, mut at) = (request.bytes.clone(), request.bytes.start);
        fetch(bucket, call, path, bytes, &mut |piece| {
            request.deliver(at, piece);
            at += to_u64(piece.len());
            Ok(())
        })
        .await
    });
    let mut requests = requests.into_iter();
    if bucket.attempts.is_away()
        && let Some(first) = requests.next()
    {
        // All at once they would be refused but for one, which then is not waited for.
        first.await?;
    }
    stream::iter(requests).buffer_unordered(N_REQUESTS).try_collect().await
}

/// Takes the pieces of an answer.
type Take<'a> = dyn FnMut(&[u8]) -> Result<(), Failure> + 'a;

/// Brings a range whole, or all from an offset on (`u64::MAX` as its end).
pub(super) async fn fetch(
    bucket: &Bucket,
    call: &Call<'_>,
    path: &Path,
    bytes: Range<u64>,
    take: &mut Take<'_>,
) -> Result<(), Failure> {
    let mut version = None;
    if !bucket.attempts.is_paced(call) {
        bucket.attempts.pace(call, bytes.end.saturating_sub(bytes.start).min(PACED_BYTES)).await?;
        return fetch_at_once(bucket, call, path, bytes, &mut version, take).await;
    }
    // Where bytes have to wait they do so before they are asked for, and no answer is left open.
    let end = match bytes.end {
        u64::MAX => bucket.ask(call, path).await?.len_bytes,
        end => end,
    };
    if bytes.start > end {
        return Err(Failure::new(ErrorKind::Damaged, "it ends too early"));
    }
    let mut at = bytes.start;
    while at < end {
        let step = at..end.min(at + PACED_BYTES);
        bucket.attempts.pace(call, step.end - step.start).await?;
        at = step.end;
        fetch_at_once(bucket, call, path, step, &mut version, take).await?;
    }
    Ok(())
}

/// The same in one request, if nothing fails. An answer that breaks off is gone on with: only
/// attempts without any progress count. Pieces of two versions would be no object at all.
async fn fetch_at_once(
    bucket: &Bucket,
    call: &Call<'_>,
    path: &Path,
    bytes: Range<u64>,
    version: &mut Option<String>,
    take: &mut Take<'_>,
) -> Result<(), Failure> {
    let is_open = bytes.end == u64::MAX;
    let mut at = bytes.start;
    let mut n_empty_answers = 0;
    loop {
        let options = || GetOptions {
            range: range(at..bytes.end),
            if_match: version.clone(),
            ..GetOptions::default()
        };
        let answer = bucket
            .attempts
            .run(call, || {
                let request = || async {
                    let got = bucket.clients.backend.get_opts(path, options()).await;
                    got.map_err(|error| Failure::of(&error))
                };
                async move {
                    match call.class() {
                        CallClass::Interactive => bucket.seconds.first_of(request).await,
                        CallClass::Bulk => request().await,
                    }
                }
            })
            .await?;
        if answer.range.start != at {
            return Err(Failure::new(ErrorKind::Damaged, "another range was sent than asked for"));
        }
        let end = if is_open { answer.meta.size } else { bytes.end };
        // A store may not heed the condition.
        if version.is_some() && *version != answer.meta.e_tag {
            return Err(Failure::new(ErrorKind::Damaged, "it became another object meanwhile"));
        }
        *version = version.take().or_else(|| answer.meta.e_tag.clone());
        let (before, mut pieces) = (at, answer.into_stream());
        let broken = loop {
            let piece = while_wanted(call, async {
                let piece = tokio::time::timeout(ANSWER_TIME, pieces.next()).await;
                let piece =
                    piece.map_err(|_| Failure::new(ErrorKind::Away, "it stops in the middle"))?;
                piece.transpose().map_err(|error| Failure::of(&error))
            });
            match piece.await {
                Ok(Some(piece)) if at.saturating_add(to_u64(piece.len())) > end => {
                    return Err(Failure::new(ErrorKind::Damaged, "more was sent than asked for"));
                }
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(Some(piece)) => {
                    take(&piece)?;
                    at += to_u64(piece.len());
                }
                Ok(None) => break None,
                Err(failure) => break Some(failure),
            }
        };
        match broken {
            _ if at == end => return Ok(()),
            Some(failure) if !failure.may_pass() => return Err(failure),
            Some(failure) if at == before && n_empty_answers == N_EMPTY_ANSWERS_MAX => {
                return Err(failure);
            }
            // The body of an answer that is shorter than it says is an error of the connection;
            // one that says less than was asked for is a shorter object.
            None => return Err(Failure::new(ErrorKind::Damaged, "it ends too early")),
            Some(failure) => {
                n_empty_answers = if at == before { n_empty_answers + 1 } else { 0 };
                tracing::debug!(%path, at, error = failure.text, "an answer broke off");
            }
        }
    }
}

fn range(bytes: Range<u64>) -> Option<GetRange> {
    match (bytes.start, bytes.end) {
        // An empty object has no range at all.
        (0, u64::MAX) => None,
        (start, u64::MAX) => Some(GetRange::Offset(start)),
        _ => Some(GetRange::Bounded(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for, with how many buffers in each request, if these ranges are read.
    fn planned(ranges: &[Range<u64>]) -> Vec<(Range<u64>, usize)> {
        let lengths = ranges.iter().map(|range| vec![0; to_usize(range.end - range.start)]);
        let mut buffers: Vec<Vec<u8>> = lengths.collect();
        let reads = buffers.iter_mut().zip(ranges);
        let reads = reads.map(|(buffer, range)| RangeRead { offset_bytes: range.start, buffer });
        let mut reads: Vec<_> = reads.collect();
        let requests = plan(&mut reads).into_iter();
        requests.map(|request| (request.bytes, request.members.len())).collect()
    }

    #[test]
    fn near_ranges_come_in_one_request() {
        let far = 10 << 20;
        let ranges = [far..far + 5, 10..20, 0..10, 1000..1001, 7..7, 5..12];
        assert_eq!(planned(&ranges), [(0..1001, 4), (far..far + 5, 1)]);
        assert_eq!(planned(&[]), []);
    }

    #[test]
    fn a_request_is_not_too_large() {
        let piece = REQUEST_BYTES_MAX / 2;
        let ranges: Vec<_> = (0..4).map(|n| n * piece..(n + 1) * piece).collect();
        assert_eq!(planned(&ranges).len(), 2);
        let one = 0..3 * REQUEST_BYTES_MAX;
        assert_eq!(planned(std::slice::from_ref(&one)), [(one, 1)], "one range is one request");
    }

    #[test]
    fn pieces_go_where_they_belong() {
        let (mut first, mut second) = ([0; 4], [0; 3]);
        let reads = &mut [
            RangeRead { offset_bytes: 12, buffer: &mut first },
            RangeRead { offset_bytes: 10, buffer: &mut second },
        ];
        let mut requests = plan(reads);
        for (at, piece) in [(10, &[1, 2, 3, 4][..]), (14, &[5]), (15, &[6])] {
            requests[0].deliver(at, piece);
        }
        assert_eq!((first, second), ([3, 4, 5, 6], [1, 2, 3]));
    }
}
