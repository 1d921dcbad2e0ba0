//! Each HTTP request of a store, and its answer: counted, paced, timed, and refused in one way.
//!
//! Every provider's client sends through here. An answer that is no success becomes a
//! [`Refusal`]; of one that is, what the library does not read (checksums, the storage class) is
//! kept beside it. A request has the time that its bytes take on a slow line, and an answer must
//! begin within that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::HeaderMap;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use tier_types::to_u64;

use super::refusal::{NoCredentials, Refusal};

/// Until an answer begins, without the bytes that are sent.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(20);
/// A line that carries less than this many bytes in a second counts as broken.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 << 10;
/// Of the answer to a request that failed so much is read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Where machines of all three providers ask for keys of their own.
const INSTANCE_SERVICE: &str = "169.254.169.254";

/// Requests, and what they carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestCounts {
    /// Objects or parts that were put, uploads that were begun or ended.
    pub n_writes: u64,
    /// Reads of objects.
    pub n_reads: u64,
    /// Questions for metadata.
    pub n_heads: u64,
    /// Listings.
    pub n_lists: u64,
    /// Deletions.
    pub n_deletes: u64,
    /// Bytes that were sent as content.
    pub sent_bytes: u64,
    /// Bytes of content that answers announced.
    pub received_bytes: u64,
}

impl RequestCounts {
    /// Requests of all kinds.
    pub fn n_requests(&self) -> u64 {
        self.n_writes + self.n_reads + self.n_heads + self.n_lists + self.n_deletes
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    n_writes: AtomicU64,
    n_reads: AtomicU64,
    n_heads: AtomicU64,
    n_lists: AtomicU64,
    n_deletes: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Counters {
    pub(super) fn now(&self) -> RequestCounts {
        let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            n_writes: n(&self.n_writes),
            n_reads: n(&self.n_reads),
            n_heads: n(&self.n_heads),
            n_lists: n(&self.n_lists),
            n_deletes: n(&self.n_deletes),
            sent_bytes: n(&self.sent_bytes),
            received_bytes: n(&self.received_bytes),
        }
    }

    fn note_request(&self, request: &HttpRequest) {
        let query = request.uri().query().unwrap_or_default();
        let is_list = query.contains("list-type=") || query.contains("comp=list");
        let counter = match request.method().as_str() {
            "GET" if is_list => &self.n_lists,
            "GET" => &self.n_reads,
            "HEAD" => &self.n_heads,
            "DELETE" => &self.n_deletes,
            _ => &self.n_writes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(to_u64(request.body().content_length()), Ordering::Relaxed);
    }

    fn note_answer(&self, is_head: bool, answer: &HttpResponse) {
        let text = answer.headers().get("content-length").and_then(|value| value.to_str().ok());
        let bytes = text.and_then(|text| text.parse().ok()).filter(|_| !is_head).unwrap_or(0);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Headers of an answer, which the library leaves out of what it returns.
#[derive(Clone, Debug)]
pub(super) struct AnswerHeaders(pub(super) HeaderMap);

/// Makes the clients of a store.
#[derive(Clone, Debug)]
pub(super) struct Connector(pub(super) Arc<Counters>);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Wire { client, counters: Arc::clone(&self.0) }))
    }
}

#[derive(Debug)]
struct Wire {
    client: HttpClient,
    counters: Arc<Counters>,
}

/// How long a request may take until its answer begins.
fn answer_time(sent_bytes: u64) -> Duration {
    ANSWER_TIME + Duration::from_secs(sent_bytes / SLOWEST_BYTES_PER_SECOND)
}

fn timed_out() -> HttpError {
    let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "it does not answer in time");
    HttpError::new(HttpErrorKind::Timeout, source)
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asks_for_keys = request.uri().host() == Some(INSTANCE_SERVICE);
        let is_head = request.method().as_str() == "HEAD";
        if !asks_for_keys {
            self.counters.note_request(&request);
        }
        let time = answer_time(to_u64(request.body().content_length()));
        let answered = tokio::time::timeout(time, self.client.execute(request)).await;
        let answer = answered.unwrap_or_else(|_| Err(timed_out()));
        let Ok(mut answer) = answer else {
            // A machine of no provider has no such service: that is no network that fails.
            return answer.map_err(|error| match asks_for_keys {
                true => HttpError::new(HttpErrorKind::Unknown, NoCredentials),
                false => error,
            });
        };
        let status = answer.status();
        if status.is_success() {
            self.counters.note_answer(is_head, &answer);
            let headers = AnswerHeaders(answer.headers().clone());
            answer.extensions_mut().insert(headers);
            return Ok(answer);
        }
        if asks_for_keys {
            return Err(HttpError::new(HttpErrorKind::Unknown, NoCredentials));
        }
        Err(HttpError::new(HttpErrorKind::Unknown, refusal(answer).await))
    }
}

async fn refusal(answer: HttpResponse) -> Refusal {
    let (parts, body) = answer.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let code = header("x-ms-error-code");
    // The status says enough if the body does not come.
    let body = Limited::new(body, ERROR_BYTES_MAX).collect();
    let body = tokio::time::timeout(ANSWER_TIME, body).await;
    let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
    let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    Refusal::new(parts.status.as_u16(), after, code, &text)
}
