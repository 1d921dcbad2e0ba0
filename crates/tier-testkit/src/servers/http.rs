//! As much HTTP as it takes to see whether a server answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The status with which a server answers a request without content.
pub(super) fn status(port: u16, request: &str) -> Option<String> {
    status_with(port, request, &[])
}

/// The same with these headers.
pub(super) fn status_with(port: u16, request: &str, headers: &[(&str, String)]) -> Option<String> {
    Some(answer(port, request, headers)?.strip_prefix("HTTP/1.1 ")?.get(..3)?.to_owned())
}

/// The head of the answer.
pub(super) fn head(port: u16, request: &str) -> Option<String> {
    let answer = answer(port, request, &[])?.replace("\r\n", "\n");
    answer.split_once("\n\n").map(|(head, _)| head.to_owned())
}

fn answer(port: u16, request: &str, headers: &[(&str, String)]) -> Option<String> {
    let headers: String =
        headers.iter().map(|(name, value)| format!("\r\n{name}: {value}")).collect();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let head = "Host: localhost\r\nContent-Length: 0\r\nConnection: close";
    let request = format!("{request} HTTP/1.1\r\n{head}{headers}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}
