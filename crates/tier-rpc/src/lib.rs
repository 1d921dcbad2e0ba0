//! The control socket of a tiered store: ports across a process boundary.
//!
//! While a process has a store open, [`Server`] lets others operate it: over a Unix socket in the
//! store that only its owner can use, a [`Client`] sends a command, gets what it prints as it
//! comes, and can stop it. Neither the server nor the client knows any command: the server hands it
//! to a [`Control`](tier_types::Control), the client hands its output to a
//! [`ControlSession`](tier_types::ControlSession).
//!
//! What goes over the socket is private to this crate; both ends check that they speak the same
//! version of it.

mod client;
mod connection;
mod error;
mod server;
mod socket_path;
mod wire;

pub use client::{Canceller, Client};
pub use error::RpcError;
pub use server::Server;
