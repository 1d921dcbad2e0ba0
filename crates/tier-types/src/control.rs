//! The control port: a store that is open in one process is operated from another.
//!
//! A store's database has one owner at a time, so that a command given while a filesystem is
//! mounted must run in the process that mounted it. The command goes there as the user typed it;
//! its output comes back as it is written, and it can be stopped. Nothing here says which commands
//! there are: the implementation parses the arguments as the program does.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::PortError;

/// A command as it was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlCommand {
    /// The program's arguments, without its name.
    pub arguments: Vec<Vec<u8>>,
    /// The directory from which relative paths of the host count.
    pub directory: Vec<u8>,
}

/// The caller's side of a running command: where its output goes, and its cancel flag.
pub trait ControlSession: Send + Sync {
    /// Sends what the command is for, its standard output. An error says that the caller reads it
    /// no more, or asked the command to stop.
    fn output(&self, bytes: &[u8]) -> Result<(), PortError>;

    /// Sends a message besides the output, a line or more.
    fn note(&self, text: &str);

    /// Replaces what was last said of the progress; empty when the command is done.
    fn progress(&self, text: &str);

    /// A flag that becomes true when the command is to stop at the next safe point.
    fn cancelled(&self) -> Arc<AtomicBool>;
}

/// Carries out commands.
pub trait Control: Send + Sync {
    /// Runs a command to its end and returns the program's exit code.
    fn run(&self, command: &ControlCommand, session: Arc<dyn ControlSession>) -> u8;
}
