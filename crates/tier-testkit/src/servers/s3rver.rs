//! S3rver, which speaks S3 and ignores conditions and checksums, as some servers do.

use std::path::Path;

use super::http;
use super::process::Server;

/// A server.
#[derive(Debug)]
pub struct S3rver {
    _server: Server,
    port: u16,
}

impl S3rver {
    /// The variables of the environment with which it can be used.
    pub const ENVIRONMENT: [(&str, &str); 2] =
        [("AWS_ACCESS_KEY_ID", "S3RVER"), ("AWS_SECRET_ACCESS_KEY", "S3RVER")];

    /// Starts a server and waits until it answers; `None`, said loudly, on a machine without it.
    pub fn start() -> Option<Self> {
        let arguments = |dir: &Path, [port]: [u16; 1]| {
            let dir = dir.display();
            format!("-d {dir}/objects -p {port} -a 127.0.0.1 --configure-bucket bucket")
        };
        let is_ready = |[port]: [u16; 1]| http::status(port, "GET /").is_some();
        let (server, [port]) = Server::start("s3rver", arguments, is_ready)?;
        Some(Self { _server: server, port })
    }

    /// The URL of its bucket.
    pub fn bucket(&self) -> String {
        format!("s3://bucket?endpoint=http://127.0.0.1:{}&region=us-east-1", self.port)
    }
}
