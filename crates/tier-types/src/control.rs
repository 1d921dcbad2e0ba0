//! The port through which a store that is open in one process is operated from another.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::PortError;

/// A command as its user gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlCommand {
    /// The program's arguments, without its name.
    pub arguments: Vec<Vec<u8>>,
    /// The folder from which relative paths of the host count.
    pub folder: Vec<u8>,
}

/// Where a command's words go, and who may stop it.
pub trait ControlSession: Send + Sync {
    /// What the command is for. An error says that nobody reads it any more.
    fn output(&self, bytes: &[u8]) -> Result<(), PortError>;

    /// What its user should know besides, a line or more.
    fn note(&self, text: &str);

    /// How far it has got, instead of what was said before; empty when it is done.
    fn progress(&self, text: &str);

    /// A flag that becomes true when the command is to stop at the next safe point.
    fn cancelled(&self) -> Arc<AtomicBool>;
}

/// Carries out commands.
pub trait Control: Send + Sync {
    /// Runs a command to its end and returns the program's exit code.
    fn run(&self, command: &ControlCommand, session: Arc<dyn ControlSession>) -> u8;
}
