//! The protocol of the control socket: what goes over it, and in which order.
//!
//! A connection carries one command. Both ends begin alike:
//!
//! ```text
//! client                                server
//!   "tierctl" version ─────────▶ ◀───────── "tierctl" version      8 bytes each way
//!   Run { arguments, directory } ─────────▶
//!                                ◀───────── Output | Note | Progress, any number
//!   Cancel, or the connection ends ───────▶                        at most once, at any time
//!                                ◀───────── Output | Note | Progress, any number
//!                                ◀───────── Done(exit code), and the connection ends
//! ```
//!
//! A *message* is a length (u32, little-endian, 1 to [`MESSAGE_BYTES_MAX`]) and a value of
//! [`Request`] or [`Response`] as postcard has it, of exactly that length.
//!
//! **Versions.** The greeting is the one part that never changes. Each end sends its own before it
//! reads the other's, so that neither waits for the other, and nothing is sent to an end that
//! understands something else: after an upgrade of the program a running process of the old version
//! is named as such. The order of the variants and of their fields is part of the version.
//!
//! **Output is complete, progress is not.** `Output` and `Note` are delivered in order, all of
//! them: the command waits when the client does not read. A `Progress` replaces the one before and
//! is dropped when the client is behind, so that a command that merely reports never waits.
//!
//! **Ends.** `Done` is the only proper end. A connection that ends without it is
//! [`RpcError::Gone`]: the client cannot tell how far the command got, and says so instead of
//! inventing an exit code. The other way round a client that is gone and one that sends `Cancel`
//! are treated alike: the cancel flag is raised, the command stops at its next safe point, and its
//! `Done` is sent whether or not it can still be read.
//!
//! **Trust.** The socket can be opened by its owner only, but what comes over it is checked like
//! any bytes from outside: a length before memory is taken for it, a message to its last byte. What
//! breaks the protocol is an error of the connection, never of the process.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tier_types::to_u64;

use crate::RpcError;

// Seven bytes and a version make eight, which is all that an unknown peer is asked for.
const MAGIC: &[u8; 7] = b"tierctl";
pub(crate) const VERSION: u8 = 1;

/// No message is longer.
pub(crate) const MESSAGE_BYTES_MAX: u32 = 1 << 20;
/// Output and notes are cut into pieces of this many bytes.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

const _: () = assert!(PIECE_BYTES < 1 << 20, "a piece fits into a message with its tag and length");

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    Run { arguments: Vec<Vec<u8>>, directory: Vec<u8> },
    Cancel,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
pub(crate) enum Response {
    Output(Vec<u8>),
    Note(String),
    Progress(String),
    Done(u8),
}

pub(crate) fn greet(socket: &mut impl Write) -> io::Result<()> {
    let mut greeting = MAGIC.to_vec();
    greeting.push(VERSION);
    socket.write_all(&greeting)
}

pub(crate) fn read_greeting(socket: &mut impl Read) -> Result<(), RpcError> {
    let mut greeting = [0; MAGIC.len() + 1];
    // An end that closes early and one that sends too little are the same to the reader.
    socket.read_exact(&mut greeting).map_err(|_| RpcError::Gone)?;
    match greeting.split_last() {
        Some((&VERSION, magic)) if magic == MAGIC => Ok(()),
        // The magic decides first: the version of a foreign protocol would be a meaningless number.
        Some((&theirs, magic)) if magic == MAGIC => {
            Err(RpcError::Version { ours: VERSION, theirs })
        }
        _ => Err(RpcError::Protocol("it does not introduce itself")),
    }
}

/// Sends a message; an error if the other end is gone or the message is too long.
pub(crate) fn write(socket: &mut impl Write, message: &impl Serialize) -> Result<(), RpcError> {
    // One system call for both, because most messages are short.
    let framed = frame(&encode(message))?;
    socket.write_all(&framed).map_err(|_| RpcError::Gone)
}

#[expect(clippy::expect_used, reason = "plain values are serialised into memory")]
fn encode(message: &impl Serialize) -> Vec<u8> {
    let body = postcard::to_allocvec(message).expect("serialising into memory cannot fail");
    assert!(!body.is_empty(), "a message has a tag");
    body
}

fn frame(body: &[u8]) -> Result<Vec<u8>, RpcError> {
    let len_bytes = to_u64(body.len());
    // The length is compared before it is written, because the other end would only see a broken
    // protocol.
    let fits = u32::try_from(body.len()).ok().filter(|len| *len <= MESSAGE_BYTES_MAX);
    let len = fits.ok_or(RpcError::TooLong { len_bytes, max_bytes: MESSAGE_BYTES_MAX })?;
    Ok([&len.to_le_bytes()[..], body].concat())
}

/// The next message; an error if the other end is gone or breaks the protocol.
pub(crate) fn read<T: DeserializeOwned>(socket: &mut impl Read) -> Result<T, RpcError> {
    let mut header = [0; 4];
    socket.read_exact(&mut header).map_err(|_| RpcError::Gone)?;
    let len = u32::from_le_bytes(header);
    // No message is empty, because each has a tag; zero is therefore a sign of a foreign stream.
    if len == 0 || len > MESSAGE_BYTES_MAX {
        return Err(RpcError::Protocol("a message is empty or too long"));
    }
    // The buffer grows with what arrives: a claimed length alone takes no memory.
    let mut body = Vec::new();
    let read = socket.take(u64::from(len)).read_to_end(&mut body).map_err(|_| RpcError::Gone)?;
    // The stream ended within a message, which is an end of the connection and not a broken
    // protocol.
    if to_u64(read) != u64::from(len) {
        return Err(RpcError::Gone);
    }
    match postcard::take_from_bytes(&body) {
        // Bytes left over would mean that the two ends disagree about the message's type.
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(RpcError::Protocol("a message is longer than what it says")),
        Err(_) => Err(RpcError::Protocol("a message cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> impl Strategy<Value = Request> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20);
        let run = (prop::collection::vec(bytes(), 0..5), bytes());
        prop_oneof![
            run.prop_map(|(arguments, directory)| Request::Run { arguments, directory }),
            (0..1_u8).prop_map(|_| Request::Cancel),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let messages = [
            Response::Output(vec![0; PIECE_BYTES]),
            Response::Note("a".into()),
            Response::Progress(String::new()),
            Response::Done(3),
        ];
        let mut bytes = Vec::new();
        for message in &messages {
            write(&mut bytes, message).unwrap();
        }
        let mut rest = bytes.as_slice();
        for message in &messages {
            assert_eq!(read::<Response>(&mut rest).unwrap(), *message);
        }
        assert!(matches!(read::<Response>(&mut rest), Err(RpcError::Gone)));
    }

    #[test]
    fn another_version_is_named() {
        let mut greeting = Vec::new();
        greet(&mut greeting).unwrap();
        read_greeting(&mut greeting.as_slice()).unwrap();
        *greeting.last_mut().unwrap() = VERSION + 1;
        let error = read_greeting(&mut greeting.as_slice()).unwrap_err();
        assert!(matches!(error, RpcError::Version { theirs, .. } if theirs == VERSION + 1));
        assert!(matches!(read_greeting(&mut &b"GET / HT"[..]), Err(RpcError::Protocol(_))));
    }

    #[test]
    fn a_message_that_is_too_long_is_named_and_not_sent() {
        let mut bytes = Vec::new();
        let directory = vec![b'x'; 1 << 20];
        let run = Request::Run { arguments: Vec::new(), directory };
        let error = write(&mut bytes, &run).unwrap_err();
        assert!(matches!(error, RpcError::TooLong { len_bytes, .. } if len_bytes > 1 << 20));
        assert_eq!(bytes, b"");
    }

    #[test]
    fn bytes_behind_a_message_within_its_length_break_the_protocol() {
        let mut body = encode(&Request::Cancel);
        body.push(0);
        let bytes = frame(&body).unwrap();
        let error = read::<Request>(&mut bytes.as_slice()).unwrap_err();
        assert!(matches!(error, RpcError::Protocol(_)), "{error}");
    }

    proptest! {
        #[test]
        fn a_request_is_read_back_and_no_cut_of_it_is(request in request()) {
            let mut bytes = Vec::new();
            write(&mut bytes, &request).unwrap();
            prop_assert_eq!(read::<Request>(&mut bytes.as_slice()).unwrap(), request);
            for len in 0..bytes.len() {
                let error = read::<Request>(&mut &bytes[..len]).unwrap_err();
                prop_assert!(matches!(error, RpcError::Gone), "{}", error);
            }
        }

        #[test]
        fn any_bytes_are_an_error_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read::<Request>(&mut bytes.as_slice());
            let _ = read::<Response>(&mut bytes.as_slice());
            let _ = read_greeting(&mut bytes.as_slice());
        }
    }
}
