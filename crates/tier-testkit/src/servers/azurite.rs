//! Azurite, which speaks the protocol of Azure's blobs.

use std::path::Path;

use super::http;
use super::process::Server;

/// The account that every Azurite has, and its key:
/// <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// What that key signs for all that may be done with containers and blobs, until the year 2100.
const SIGNATURE: &str = "sv=2020-02-10&ss=b&srt=sco&sp=rwdlac&se=2100-01-01T00%3A00%3A00Z\
    &spr=https%2Chttp&sig=kCZeF4Qpj13pmmHBDt35GM7V3PAGaa11GvXrdZImzF8%3D";

/// A server.
#[derive(Debug)]
pub struct Azurite {
    _server: Server,
    port: u16,
}

impl Azurite {
    /// The variables of the environment with which it can be used.
    pub const ENVIRONMENT: [(&str, &str); 1] = [("AZURE_STORAGE_ACCOUNT_KEY", KEY)];

    /// Starts a server and waits until it answers; `None`, said loudly, on a machine without it.
    pub fn start() -> Option<Self> {
        let arguments = |dir: &Path, [port]: [u16; 1]| {
            format!(
                "--blobHost 127.0.0.1 --blobPort {port} --location {} --silent \
                 --disableTelemetry --skipApiVersionCheck",
                dir.display()
            )
        };
        let is_ready = |[port]: [u16; 1]| http::status(port, "GET /").is_some();
        let (server, [port]) = Server::start("azurite-blob", arguments, is_ready)?;
        Some(Self { _server: server, port })
    }

    /// Moves a blob to the class that cannot be read at once.
    pub fn freeze(&self, container: &str, key: &str) {
        let request = format!("PUT /{ACCOUNT}/{container}/{key}?comp=tier&{SIGNATURE}");
        let headers =
            [("x-ms-access-tier", "Archive".to_owned()), ("x-ms-version", "2020-02-10".to_owned())];
        let moved = http::status_with(self.port, &request, &headers);
        assert_eq!(moved.as_deref(), Some("200"), "{key} is frozen");
    }

    /// Makes a container, and returns its URL.
    pub fn make_container(&self, container: &str) -> String {
        let make = format!("PUT /{ACCOUNT}/{container}?restype=container&{SIGNATURE}");
        let made = http::status(self.port, &make);
        assert_eq!(made.as_deref(), Some("201"), "the container is made");
        let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", self.port);
        format!("az://{container}?account={ACCOUNT}&endpoint={endpoint}")
    }
}
