//! SeaweedFS as one process: a distributed object store that speaks S3.

use std::fs;
use std::path::Path;

use super::http;
use super::process::Server;

const IDENTITIES: &str = r#"{"identities": [{
  "name": "test",
  "credentials": [{"accessKey": "test-key", "secretKey": "test-secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]
}]}"#;

/// A server of one node.
#[derive(Debug)]
pub struct Seaweed {
    _server: Server,
    port: u16,
    filer: u16,
}

impl Seaweed {
    /// The variables of the environment with which it can be used.
    pub const ENVIRONMENT: [(&str, &str); 2] =
        [("AWS_ACCESS_KEY_ID", "test-key"), ("AWS_SECRET_ACCESS_KEY", "test-secret")];

    /// Starts a server and waits until it answers; `None`, said loudly, on a machine without it.
    pub fn start() -> Option<Self> {
        let arguments = |dir: &Path, ports: [u16; 8]| {
            let [master, master_rpc, volume, volume_rpc, filer, filer_rpc, port, port_rpc] = ports;
            let identities = dir.join("identities.json");
            fs::write(&identities, IDENTITIES).unwrap();
            let (dir, identities) = (dir.display(), identities.display());
            format!(
                "-logtostderr=true server -dir={dir} -ip=127.0.0.1 -ip.bind=127.0.0.1 \
                 -master.port={master} -master.port.grpc={master_rpc} -master.telemetry=false \
                 -master.volumeSizeLimitMB=128 -volume.port={volume} \
                 -volume.port.grpc={volume_rpc} -volume.max=400 -volume.minFreeSpacePercent=0 \
                 -filer=true -filer.port={filer} -filer.port.grpc={filer_rpc} -s3=true \
                 -s3.port={port} -s3.port.grpc={port_rpc} -s3.port.iceberg=0 -s3.port.lance=0 \
                 -s3.config={identities}"
            )
        };
        let is_ready = |[_, _, _, _, filer, _, port, _]: [u16; 8]| {
            http::status(port, "GET /").is_some() && http::status(filer, "GET /").is_some()
        };
        let (server, ports) = Server::start("weed", arguments, is_ready)?;
        let [_, _, _, _, filer, _, port, _] = ports;
        Some(Self { _server: server, port, filer })
    }

    /// Makes a bucket, and returns its URL.
    pub fn make_bucket(&self, bucket: &str) -> String {
        let made = http::status(self.filer, &format!("POST /buckets/{bucket}/"));
        assert_eq!(made.as_deref(), Some("201"), "the bucket is made");
        self.url(bucket)
    }

    /// When an object was written; `None` if it is not there.
    pub fn written(&self, bucket: &str, key: &str) -> Option<String> {
        let head = http::head(self.filer, &format!("HEAD /buckets/{bucket}/{key}"))?;
        let written = head.lines().find_map(|line| line.strip_prefix("Last-Modified: "));
        written.filter(|_| head.starts_with("HTTP/1.1 200")).map(str::to_owned)
    }

    /// The URL of a bucket, whether there is one or not.
    pub fn url(&self, bucket: &str) -> String {
        Self::url_at(self.port, bucket)
    }

    /// The same at a port that leads to the server.
    pub fn url_at(port: u16, bucket: &str) -> String {
        format!("s3://{bucket}?endpoint=http://127.0.0.1:{port}&region=us-east-1")
    }

    /// Where it answers.
    pub fn port(&self) -> u16 {
        self.port
    }
}
