//! Serving a store: a process that has it open carries out the commands of others.
//!
//! [`mount()`] is the one command that serves. It opens the store, starts the agent and its
//! schedule (`live`), listens on the control socket (`server`), and mounts. [`hand_over`] is the
//! other end (`client`): every other command first looks whether a process serves its store, and if
//! one does, has the command carried out there.
//!
//! This layer uses commands; no command uses it.

mod client;
mod live;
mod mount;
mod server;

pub(crate) use self::client::hand_over;
pub(crate) use self::mount::mount;
