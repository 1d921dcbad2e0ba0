//! Why a request brought nothing, and what its caller can do about that.
//!
//! The library below turns answers into errors of its own, each provider in its own way. So an
//! answer that is no success becomes a [`Refusal`] before the library sees it, and travels through
//! the library's error as its cause, where [`Failure::of`] finds it again: kinds are decided here
//! and nowhere else, by status and error code, and never by a text.
//!
//! Codes: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>,
//! <https://cloud.google.com/storage/docs/xml-api/reference-status>,
//! <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};
use tier_types::ErrorKind;

/// An answer that is no success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The provider's word for it.
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    /// How long to leave the store alone.
    pub(super) after: Option<Duration>,
}

impl Refusal {
    /// From an answer; its body may be anything.
    pub(super) fn new(
        status: u16,
        after: Option<Duration>,
        code: Option<&str>,
        body: &str,
    ) -> Self {
        let code = element(body, "Code").or(code).map(str::to_owned);
        let first_line = |text| str::split_once(text, '\n').map_or(text, |(first, _)| first);
        let message = element(body, "Message").map(first_line);
        Self { status, code, message: message.map(str::to_owned), after }
    }

    /// Whether the name of a conditional put is taken.
    fn is_taken(&self) -> bool {
        self.status == 412
            || self.status == 304
            || (self.status == 409 && self.is("BlobAlreadyExists"))
    }

    fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    fn is_one_of(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| self.is(code))
    }

    fn kind(&self) -> ErrorKind {
        if self.is_taken() {
            return ErrorKind::Conflict;
        }
        if self.is_one_of(&QUOTA) || self.status == 507 {
            return ErrorKind::NoSpace;
        }
        if self.is_one_of(&FROZEN) {
            return ErrorKind::Frozen { within: None };
        }
        match self.status {
            404 if self.is_one_of(&NO_BUCKET) => ErrorKind::Denied,
            404 | 410 => ErrorKind::Missing,
            429 => ErrorKind::Throttled { after: self.after },
            503 if self.is_one_of(&BUSY) || self.after.is_some() => {
                ErrorKind::Throttled { after: self.after }
            }
            // Another request of the same name is under way, or the answer took too long.
            408 | 409 | 425 => ErrorKind::Away,
            301 | 307 | 308 | 400 | 401 | 403 | 405 => self.kind_of_request(),
            500..=599 if self.status != 501 => ErrorKind::Away,
            _ => ErrorKind::Failed,
        }
    }

    fn kind_of_request(&self) -> ErrorKind {
        if self.is_one_of(&CHANGED) || self.is_one_of(&["RequestTimeout", "IncompleteBody"]) {
            return ErrorKind::Away;
        }
        if self.status == 400 && !self.is_one_of(&DENYING_REQUESTS) {
            return ErrorKind::Failed;
        }
        ErrorKind::Denied
    }

    /// What the operator can do.
    fn advice(&self) -> &'static str {
        if self.is_one_of(&NO_BUCKET) {
            return "; make the bucket, or correct the URL";
        }
        if self.is_one_of(&FROZEN) {
            return "; it is frozen";
        }
        if self.is_one_of(&CLOCK) {
            return "; set this machine's clock";
        }
        if self.is_one_of(&REGION) || matches!(self.status, 301 | 307 | 308) {
            return "; is the region of the URL right? (region=NAME)";
        }
        if self.is_one_of(&QUOTA) {
            return "; the quota is used up";
        }
        if matches!(self.status, 401 | 403) || self.is_one_of(&DENYING_REQUESTS) {
            return "; are the keys in the environment right, and may they read, write, list and \
                    delete there?";
        }
        ""
    }
}

const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "AccountIsDisabled"];
const QUOTA: [&str; 3] = ["QuotaExceeded", "AccountLimitExceeded", "XMinioStorageFull"];
const BUSY: [&str; 4] = ["SlowDown", "ServerBusy", "RequestThrottled", "ThrottlingException"];
const CLOCK: [&str; 2] = ["RequestTimeTooSkewed", "RequestExpired"];
/// An object of a class that cannot be read at once.
const FROZEN: [&str; 4] =
    ["InvalidObjectState", "ObjectNotInActiveTierError", "BlobArchived", "BlobBeingRehydrated"];
/// Thawing is under way.
const ASKED: [&str; 2] = ["RestoreAlreadyInProgress", "BlobBeingRehydrated"];
/// What arrived is not what was sent.
const CHANGED: [&str; 3] = ["BadDigest", "XAmzContentSHA256Mismatch", "Md5Mismatch"];
const REGION: [&str; 3] =
    ["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"];
/// Of status 400, and still about keys or places.
const DENYING_REQUESTS: [&str; 6] = [
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidToken",
    "IllegalLocationConstraintException",
    "InvalidBucketName",
    "RequestExpired",
];

/// The text of an XML element, as far as the body of an error has it.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once("</")?;
    (!text.is_empty() && text.len() < 1000).then_some(text)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store answers {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, " ({message})")?;
        }
        f.write_str(self.advice())
    }
}

impl Error for Refusal {}

/// A service that gives keys out has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoKeys {
    /// None are set, and this machine has no such service.
    NotSet,
    /// The service answers with this status.
    Refused(u16),
}

impl NoKeys {
    fn kind(self) -> ErrorKind {
        match self {
            Self::Refused(408 | 429 | 500..=599) => ErrorKind::Away,
            Self::NotSet | Self::Refused(_) => ErrorKind::Denied,
        }
    }
}

impl fmt::Display for NoKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSet => f.write_str(
                "there are no keys for it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                 GOOGLE_APPLICATION_CREDENTIALS or AZURE_STORAGE_ACCOUNT_KEY in the environment",
            ),
            Self::Refused(status) => write!(
                f,
                "the service that gives out its keys answers {status}; is the role of this machine \
                 right, or what the environment says of keys?"
            ),
        }
    }
}

impl Error for NoKeys {}

/// A request that brought nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are told apart where they are asked for")]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// A range that begins behind the end of the object.
    pub(super) is_behind_end: bool,
    /// Whether the store has answered, if only to refuse.
    pub(super) is_answered: bool,
    /// The store does not take the content of the request.
    pub(super) is_unfit: bool,
    /// Thawing was asked for before.
    pub(super) is_asked: bool,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        let (is_behind_end, is_answered, is_unfit, is_asked) = Default::default();
        Self { kind, is_behind_end, is_answered, is_unfit, is_asked, text: text.into() }
    }

    /// What an error of the library comes from.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut last = error;
        let mut causes = vec![last];
        while let Some(cause) = last.source() {
            causes.push(cause);
            last = cause;
        }
        let refusal = causes.iter().find_map(|cause| cause.downcast_ref::<Refusal>());
        if let Some(refusal) = refusal {
            return Self {
                is_behind_end: refusal.status == 416,
                is_answered: true,
                // Whichever word it has for it, if that is none for something else.
                is_unfit: refusal.is_one_of(&CHANGED)
                    || (refusal.status == 400 && refusal.kind() == ErrorKind::Failed),
                is_asked: refusal.is_one_of(&ASKED),
                ..Self::new(refusal.kind(), refusal.to_string())
            };
        }
        if let Some(keys) = causes.iter().find_map(|cause| cause.downcast_ref::<NoKeys>()) {
            return Self::new(keys.kind(), keys.to_string());
        }
        // The last cause says what happened, and those above it where in the library.
        let text = last.to_string();
        let certificate = causes.iter().find_map(|cause| certificate_error(*cause));
        if let Some(certificate) = certificate {
            let text = format!(
                "its certificate is not accepted: {certificate}; name the file of its authority in \
                 AWS_CA_BUNDLE or SSL_CERT_FILE if it is one of your own"
            );
            return Self::new(ErrorKind::Denied, text);
        }
        match causes.iter().find_map(|cause| cause.downcast_ref::<HttpError>()) {
            Some(http) => {
                let unsent = [HttpErrorKind::Connect, HttpErrorKind::Timeout];
                let is_unsent = unsent.contains(&http.kind());
                let what = if is_unsent { "it cannot be reached" } else { "the connection failed" };
                Self::new(ErrorKind::Away, format!("{what}: {text}"))
            }
            None => Self::new(ErrorKind::Failed, text),
        }
    }

    /// Whether another attempt may succeed.
    pub(super) fn may_pass(&self) -> bool {
        self.kind.may_pass()
    }
}

/// What is wrong with a certificate, wherever in an error that is. An error of I/O does not count
/// what it is made of among its causes, and may be made of another one.
fn certificate_error(cause: &(dyn Error + 'static)) -> Option<String> {
    let mut inner = cause;
    while let Some(of_io) = inner.downcast_ref::<std::io::Error>() {
        inner = of_io.get_ref()?;
    }
    let error = inner.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(problem) = error else { return None };
    Some(problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_found_in_errors_of_errors() {
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let inner = std::io::Error::new(std::io::ErrorKind::InvalidData, expired);
        let failure = Failure::of(&std::io::Error::other(inner));
        assert_eq!(failure.kind, ErrorKind::Denied, "{}", failure.text);
        assert!(failure.text.contains("its certificate is not accepted"), "{}", failure.text);
        let other = Failure::of(&std::io::Error::other("a cable"));
        assert_eq!(other.kind, ErrorKind::Failed, "{}", other.text);
    }

    fn refusal(status: u16, code: &str) -> Refusal {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>No</Message></Error>"
        );
        Refusal::new(status, None, None, &body)
    }

    #[test]
    fn kinds_follow_from_status_and_code() {
        let kinds = [
            (404, "NoSuchKey", ErrorKind::Missing),
            (404, "NoSuchBucket", ErrorKind::Denied),
            (403, "SignatureDoesNotMatch", ErrorKind::Denied),
            (403, "RequestTimeTooSkewed", ErrorKind::Denied),
            (403, "QuotaExceeded", ErrorKind::NoSpace),
            (400, "AuthorizationHeaderMalformed", ErrorKind::Denied),
            (400, "InvalidArgument", ErrorKind::Failed),
            (400, "IncompleteBody", ErrorKind::Away),
            (412, "PreconditionFailed", ErrorKind::Conflict),
            (409, "BlobAlreadyExists", ErrorKind::Conflict),
            (409, "ConditionalRequestConflict", ErrorKind::Away),
            (429, "TooManyRequests", ErrorKind::Throttled { after: None }),
            (503, "SlowDown", ErrorKind::Throttled { after: None }),
            (503, "ServiceUnavailable", ErrorKind::Away),
            (500, "InternalError", ErrorKind::Away),
            (507, "InsufficientStorage", ErrorKind::NoSpace),
            (501, "NotImplemented", ErrorKind::Failed),
        ];
        for (status, code, kind) in kinds {
            assert_eq!(refusal(status, code).kind(), kind, "{status} {code}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let says = |status, code, what: &str| {
            let text = refusal(status, code).to_string();
            assert!(text.contains(code) && text.contains("(No)") && text.contains(what), "{text}");
        };
        says(404, "NoSuchBucket", "make the bucket");
        says(403, "RequestTimeTooSkewed", "clock");
        says(400, "AuthorizationHeaderMalformed", "region");
        says(403, "InvalidAccessKeyId", "keys");
        assert_eq!(Refusal::new(500, None, None, "<Code>").to_string(), "the store answers 500");
    }
}
