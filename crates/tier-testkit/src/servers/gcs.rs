//! Fake-gcs-server, behind what it lacks of Google's XML protocol.
//!
//! The server speaks Google's JSON protocol whole, and of the XML one what reads and lists. So an
//! upload in XML becomes one in JSON here: conditional, if it was, and in one piece, if it came in
//! parts. Everything else is passed on.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::http;
use super::process::Server;

/// A server, and what stands before it.
#[derive(Debug)]
pub struct FakeGcs {
    _server: Server,
    front: Arc<Front>,
}

/// Parts of an object, each with its number.
type Parts = Vec<(u32, Vec<u8>)>;

#[derive(Debug)]
struct Front {
    port: u16,
    server: u16,
    /// Parts of uploads that have not ended, by their number.
    uploads: Mutex<HashMap<u64, Parts>>,
    has_ended: AtomicBool,
}

impl FakeGcs {
    /// The variables of the environment with which it can be used.
    pub const ENVIRONMENT: [(&str, &str); 1] = [(
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        r#"{"disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}"#,
    )];

    /// Starts a server and waits until it answers; `None`, said loudly, on a machine without it.
    pub fn start() -> Option<Self> {
        let arguments = |dir: &Path, [port]: [u16; 1]| {
            let seed = dir.join("seed");
            fs::create_dir_all(seed.join("bucket")).unwrap();
            format!(
                "-scheme http -host 127.0.0.1 -port {port} -backend memory -public-host \
                 127.0.0.1:{port} -external-url http://127.0.0.1:{port} -data {}",
                seed.display()
            )
        };
        let is_ready = |[port]: [u16; 1]| {
            http::status(port, "GET /_internal/healthcheck").as_deref() == Some("200")
        };
        let (server, [port]) = Server::start("fake-gcs-server", arguments, is_ready)?;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = Arc::new(Front {
            port: listener.local_addr().unwrap().port(),
            server: port,
            uploads: Mutex::default(),
            has_ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&front);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.has_ended.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(client), front) = (client, Arc::clone(&accepting)) else { continue };
                thread::spawn(move || drop(front.answer(client)));
            }
        });
        Some(Self { _server: server, front })
    }

    /// The URL of its bucket.
    pub fn bucket(&self) -> String {
        format!("gs://bucket?endpoint=http://127.0.0.1:{}", self.front.port)
    }
}

impl Drop for FakeGcs {
    fn drop(&mut self) {
        self.front.has_ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.front.port)));
    }
}

/// A request, as far as it matters.
struct Request {
    method: String,
    /// Still encoded.
    path: String,
    query: String,
    /// The lines behind the first one.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn read(client: &mut TcpStream) -> io::Result<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers: Vec<_> =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let mut request =
            Self { method, path: path.into(), query: query.into(), headers, body: Vec::new() };
        let len = request.header("content-length").and_then(|len| len.parse().ok());
        request.body = vec![0; len.unwrap_or(0)];
        client.read_exact(&mut request.body)?;
        Ok(request)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let all = self.query.split('&').map(|one| one.split_once('=').unwrap_or((one, "")));
        all.into_iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The bucket, and the key.
    fn object(&self) -> (String, String) {
        let path = decoded(self.path.trim_start_matches('/'));
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        (bucket.to_owned(), key.to_owned())
    }
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        decoded.push(char::from(u8::from_str_radix(code, 16).unwrap()));
        decoded.push_str(rest);
    }
    decoded
}

fn respond(client: &mut TcpStream, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Because\r\nContent-Length: {length}\r\n{headers}");
    client.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())
}

impl Front {
    fn answer(&self, mut client: TcpStream) -> io::Result<()> {
        let request = Request::read(&mut client)?;
        let upload = request.parameter("uploadId").and_then(|id| id.parse().ok());
        match (request.method.as_str(), upload) {
            ("PUT", Some(upload)) => {
                let part = request.parameter("partNumber").and_then(|n| n.parse().ok());
                let mut uploads = self.uploads.lock();
                let parts = uploads.entry(upload).or_default();
                parts.retain(|(number, _)| Some(*number) != part);
                parts.push((part.unwrap_or(0), request.body));
                respond(&mut client, 200, "ETag: \"part\"\r\n", "")
            }
            ("DELETE", Some(upload)) => {
                self.uploads.lock().remove(&upload);
                respond(&mut client, 204, "", "")
            }
            ("POST", Some(upload)) => {
                let parts = self.uploads.lock().remove(&upload);
                let Some(mut parts) = parts else { return respond(&mut client, 404, "", "") };
                parts.sort_by_key(|(number, _)| *number);
                let body: Vec<u8> = parts.into_iter().flat_map(|(_, part)| part).collect();
                self.put(&mut client, &request, &body, false)
            }
            ("POST", None) if request.query.starts_with("uploads") => {
                let mut uploads = self.uploads.lock();
                let number = uploads.keys().max().unwrap_or(&0) + 1;
                uploads.insert(number, Vec::new());
                let (bucket, key) = request.object();
                let body = format!(
                    "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key>\
                     <UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
                );
                respond(&mut client, 200, "", &body)
            }
            ("PUT", None) => {
                let is_conditional = request.header("x-goog-if-generation-match").is_some();
                self.put(&mut client, &request, &request.body, is_conditional)
            }
            _ => self.pass_on(&mut client, &request),
        }
    }

    /// Puts an object by the other protocol.
    fn put(
        &self,
        client: &mut TcpStream,
        request: &Request,
        content: &[u8],
        is_conditional: bool,
    ) -> io::Result<()> {
        let (bucket, key) = request.object();
        let condition = if is_conditional { "&ifGenerationMatch=0" } else { "" };
        let mut body = format!(
            "--tier\r\nContent-Type: application/json\r\n\r\n{{\"name\":\"{key}\"}}\r\n\
             --tier\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n--tier--\r\n");
        let head = format!(
            "POST /upload/storage/v1/b/{bucket}/o?uploadType=multipart{condition} HTTP/1.1\r\n\
             Host: 127.0.0.1:{}\r\nContent-Type: multipart/related; boundary=tier\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.server,
            body.len()
        );
        let mut server = TcpStream::connect(("127.0.0.1", self.server))?;
        server.write_all(head.as_bytes())?;
        server.write_all(&body)?;
        let mut answer = String::new();
        server.read_to_string(&mut answer)?;
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(500);
        let value = |name: &str| {
            let (_, rest) = answer.split_once(&format!("\"{name}\":"))?;
            rest.trim_start().trim_start_matches('"').split(['"', ',']).next()
        };
        let (etag, generation) = (value("etag").unwrap_or(""), value("generation").unwrap_or("1"));
        let headers = format!("ETag: \"{etag}\"\r\nx-goog-generation: {generation}\r\n");
        let ended = format!(
            "<CompleteMultipartUploadResult><ETag>\"{etag}\"</ETag></CompleteMultipartUploadResult>"
        );
        respond(client, status, &headers, if request.method == "POST" { &ended } else { "" })
    }

    fn pass_on(&self, client: &mut TcpStream, request: &Request) -> io::Result<()> {
        let Request { method, path, query, headers, body } = request;
        let mark = if query.is_empty() { "" } else { "?" };
        let mut head = format!("{method} {path}{mark}{query} HTTP/1.1\r\n");
        for (name, value) in headers.iter().filter(|(name, _)| name != "connection") {
            let server = format!("127.0.0.1:{}", self.server);
            let value = if name == "host" { &server } else { value };
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("connection: close\r\n\r\n");
        let mut server = TcpStream::connect(("127.0.0.1", self.server))?;
        server.write_all(head.as_bytes())?;
        server.write_all(body)?;
        io::copy(&mut server, client).map(drop)
    }
}
