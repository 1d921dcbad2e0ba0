//! Each HTTP request of a store, and its answer: counted, timed, and refused in one way.
//!
//! Every provider's client sends through here. An answer that is no success becomes a
//! [`Refusal`]; of one that is, what the library does not read (checksums, the storage class) is
//! kept beside it. A request has the time that its bytes take on a slow line, and an answer must
//! begin within that.

use std::collections::HashSet;
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
use parking_lot::Mutex;
use tier_types::to_u64;

use super::refusal::{NoKeys, Refusal};
use super::url::RemoteUrl;

/// Until an answer begins, without the bytes that are sent.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(20);
/// A line that carries less than this many bytes in a second counts as broken.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 << 10;
/// Of the answer to a request that failed so much is read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// An answer that is no object has come in this time.
const WHOLE_TIME: Duration = Duration::from_mins(1);
/// And is no longer than this.
const ANSWER_BYTES_MAX: usize = 16 << 20;
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
        let counter = match request.method().as_str() {
            "GET" if is_list(request) => &self.n_lists,
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

/// The keys of objects whose content arrives as another one, as if it had changed on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Tampering(Arc<Mutex<HashSet<String>>>);

impl Tampering {
    pub(super) fn begin(&self, key: &str) {
        self.0.lock().insert(key.to_owned());
    }

    pub(super) fn end(&self, key: &str) {
        let was_there = self.0.lock().remove(key);
        assert!(was_there, "what has begun ends once");
    }

    /// Exchanges the content of a request, behind its signature.
    fn tamper(&self, request: &mut HttpRequest) {
        let path = request.uri().path();
        let is_it = self.0.lock().iter().any(|key| path.ends_with(key));
        if is_it && request.method().as_str() == "PUT" {
            let other = vec![b'!'; request.body().content_length()];
            *request.body_mut() = other.into();
        }
    }
}

/// Makes the clients of a store, and of the services that give out its keys.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) url: RemoteUrl,
    pub(super) counters: Arc<Counters>,
    pub(super) tampering: Tampering,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Wire { client, connector: self.clone() }))
    }
}

#[derive(Debug)]
struct Wire {
    client: HttpClient,
    connector: Connector,
}

/// How long a request may take until its answer begins.
fn answer_time(sent_bytes: u64) -> Duration {
    ANSWER_TIME + Duration::from_secs(sent_bytes / SLOWEST_BYTES_PER_SECOND)
}

fn timed_out() -> HttpError {
    let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "it does not answer in time");
    // The kind of a connection that is not made in time is another one.
    HttpError::new(HttpErrorKind::Interrupted, source)
}

impl Wire {
    /// Sends a request, and waits until its answer begins.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let time = answer_time(to_u64(request.body().content_length()));
        let answered = tokio::time::timeout(time, self.client.execute(request)).await;
        answered.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Asks a service that gives out keys. What it answers says nothing of objects.
    async fn ask_for_keys(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_of_machine = request.uri().host() == Some(INSTANCE_SERVICE);
        let refused = |keys| Err(HttpError::new(HttpErrorKind::Unknown, keys));
        match self.send(request).await {
            Ok(answer) if answer.status().is_success() => whole(answer).await,
            Ok(answer) => match answer.status().as_u16() {
                // It is switched off, or has no role to give out.
                401 | 403 | 404 if is_of_machine => refused(NoKeys::NotSet),
                status => refused(NoKeys::Refused(status)),
            },
            // A machine of no provider has no such service: that is no network that fails.
            Err(error)
                if is_of_machine
                    && matches!(error.kind(), HttpErrorKind::Connect | HttpErrorKind::Timeout) =>
            {
                refused(NoKeys::NotSet)
            }
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl HttpService for Wire {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if !request.uri().host().is_some_and(|host| self.connector.url.has_host(host)) {
            return self.ask_for_keys(request).await;
        }
        let counters = &self.connector.counters;
        let is_head = request.method().as_str() == "HEAD";
        let is_object = request.method().as_str() == "GET" && !is_list(&request);
        let ends_upload = request.method().as_str() == "POST"
            && request.uri().query().is_some_and(|query| query.contains("uploadId="));
        counters.note_request(&request);
        // The query has no secrets: signatures are in headers.
        tracing::trace!(method = %request.method(), uri = %request.uri(), "request");
        self.connector.tampering.tamper(&mut request);
        let mut answer = self.send(request).await?;
        if !answer.status().is_success() {
            return Err(HttpError::new(HttpErrorKind::Unknown, refusal(answer).await));
        }
        counters.note_answer(is_head, &answer);
        let headers = AnswerHeaders(answer.headers().clone());
        answer.extensions_mut().insert(headers);
        // Objects are read piece by piece, each in its time.
        if is_object {
            return Ok(answer);
        }
        let (parts, body) = whole(answer).await?.into_parts();
        let bytes = body.bytes().await?;
        // An upload may end with an error after the answer has begun as a success.
        let text = String::from_utf8_lossy(&bytes);
        if ends_upload && text.contains("<Error>") {
            let status = if text.contains("<Code>SlowDown</Code>") { 503 } else { 500 };
            let refusal = Refusal::new(status, None, None, &text);
            return Err(HttpError::new(HttpErrorKind::Unknown, refusal));
        }
        Ok(HttpResponse::from_parts(parts, bytes.into()))
    }
}

fn is_list(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.contains("list-type=") || query.contains("comp=list")
}

/// An answer that has come to its end, which is no object.
async fn whole(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect();
    let body = tokio::time::timeout(WHOLE_TIME, body).await;
    let body = body.unwrap_or_else(|_| Err(Box::new(timed_out())));
    let bytes = body.map_err(|source| HttpError::new_boxed(HttpErrorKind::Interrupted, source))?;
    Ok(HttpResponse::from_parts(parts, bytes.to_bytes().into()))
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
