//! A client and a server over a real socket.

#[cfg(test)]
mod control;
