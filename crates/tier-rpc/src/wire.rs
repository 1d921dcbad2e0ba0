//! What goes over the socket.
//!
//! Each side first says `tierctl` and the version of the protocol (one byte). Then come messages:
//! a length (u32, little-endian, 1 to [`MESSAGE_BYTES_MAX`]) and a value of [`Request`] or
//! [`Response`] as postcard has it. A client sends one command, and perhaps a wish to stop it; the
//! server sends what the command prints, and last its exit code.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::RpcError;

const MAGIC: &[u8; 7] = b"tierctl";
pub(crate) const VERSION: u8 = 1;

/// No message is longer.
pub(crate) const MESSAGE_BYTES_MAX: u32 = 1 << 20;
/// Output is cut into pieces of this many bytes.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    Run { arguments: Vec<Vec<u8>>, folder: Vec<u8> },
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
    socket.read_exact(&mut greeting).map_err(|_| RpcError::Gone)?;
    match greeting.split_last() {
        Some((&VERSION, magic)) if magic == MAGIC => Ok(()),
        Some((&theirs, magic)) if magic == MAGIC => {
            Err(RpcError::Version { ours: VERSION, theirs })
        }
        _ => Err(RpcError::Protocol("it does not introduce itself")),
    }
}

pub(crate) fn write(socket: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    // Serialising plain values into memory has no way to fail.
    let body = postcard::to_allocvec(message).unwrap_or_default();
    let len = u32::try_from(body.len()).ok().filter(|len| *len <= MESSAGE_BYTES_MAX);
    let len = len.ok_or_else(|| io::Error::other("the message is too long"))?;
    let mut message = len.to_le_bytes().to_vec();
    message.extend(body);
    socket.write_all(&message)
}

/// The next message; an error if the other end is gone or says what makes no sense.
pub(crate) fn read<T: DeserializeOwned>(socket: &mut impl Read) -> Result<T, RpcError> {
    let mut len = [0; 4];
    socket.read_exact(&mut len).map_err(|_| RpcError::Gone)?;
    let len = u32::from_le_bytes(len);
    if len == 0 || len > MESSAGE_BYTES_MAX {
        return Err(RpcError::Protocol("a message is empty or too long"));
    }
    let mut body = Vec::new();
    let read = socket.take(u64::from(len)).read_to_end(&mut body).map_err(|_| RpcError::Gone)?;
    if u32::try_from(read) != Ok(len) {
        return Err(RpcError::Gone);
    }
    postcard::from_bytes(&body).map_err(|_| RpcError::Protocol("a message cannot be read"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read::<Request>(&mut bytes.as_slice());
            let _ = read::<Response>(&mut bytes.as_slice());
        }
    }
}
