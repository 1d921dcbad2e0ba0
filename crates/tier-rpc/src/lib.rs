//! Ports of a tiered store across a process boundary.
//!
//! While a process has a store open, [`Server`] lets others operate it: over a Unix socket in the
//! store that only its owner can use, a [`Client`] sends a command, gets what it prints as it
//! comes, and can stop it. The server knows commands as little as the client does: it hands them
//! to a [`Control`](tier_types::Control).
//!
//! What goes over the socket is private to this crate; both ends check that they speak the same
//! version of it.

mod client;
mod error;
mod place;
mod server;
mod wire;

pub use client::{Canceller, Client};
pub use error::RpcError;
pub use server::Server;
