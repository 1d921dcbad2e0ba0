//! Moto, which speaks S3 and has classes of frozen objects.

use std::path::Path;

use super::http;
use super::process::Server;

/// It compares no signatures, and wants one for a copy.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 \
    Credential=test-key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A server. It thaws at once what it is asked to thaw.
#[derive(Debug)]
pub struct Moto {
    _server: Server,
    port: u16,
}

impl Moto {
    /// The variables of the environment with which it can be used.
    pub const ENVIRONMENT: [(&str, &str); 2] =
        [("AWS_ACCESS_KEY_ID", "test-key"), ("AWS_SECRET_ACCESS_KEY", "test-secret")];

    /// Starts a server and waits until it answers; `None`, said loudly, on a machine without it.
    pub fn start() -> Option<Self> {
        let arguments = |_: &Path, [port]: [u16; 1]| format!("-H 127.0.0.1 -p {port}");
        let is_ready = |[port]: [u16; 1]| {
            http::status(port, "GET /moto-api/data.json").as_deref() == Some("200")
        };
        let (server, [port]) = Server::start("moto_server", arguments, is_ready)?;
        Some(Self { _server: server, port })
    }

    /// Makes a bucket, and returns its URL.
    pub fn make_bucket(&self, bucket: &str) -> String {
        let made = http::status(self.port, &format!("PUT /{bucket}"));
        assert_eq!(made.as_deref(), Some("200"), "the bucket is made");
        format!("s3://{bucket}?endpoint=http://127.0.0.1:{}&region=us-east-1", self.port)
    }

    /// Moves an object to a class that cannot be read at once.
    pub fn freeze(&self, bucket: &str, key: &str) {
        let headers = [
            ("Authorization", AUTHORIZATION.to_owned()),
            ("x-amz-copy-source", format!("/{bucket}/{key}")),
            ("x-amz-storage-class", "GLACIER".to_owned()),
        ];
        let moved = http::status_with(self.port, &format!("PUT /{bucket}/{key}"), &headers);
        assert_eq!(moved.as_deref(), Some("200"), "{key} is frozen");
    }
}
