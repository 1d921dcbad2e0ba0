//! The server's side of the control socket: commands of other processes, carried out here.
//!
//! A command comes as the arguments that the user typed. It is parsed here, by the same code as
//! there, and its paths of the host count from the directory of the process that sent it. Its store
//! is this process's store, whatever path names it there: the other process found the socket
//! inside. The command's output, notes and progress go back as they come, and its exit code last.
//! Commands run at the same time, each on the thread of its connection; what must not happen
//! together is settled below, by the agent and the filesystem.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use tier_types::{Control, ControlCommand, ControlSession};

use crate::args::Args;
use crate::command;
use crate::console::{self, Console};
use crate::context::{Context, Live};

/// Carries out commands on a store that is open, each on the thread of its connection.
pub(super) struct Commands(pub(super) Arc<Live>);

impl Control for Commands {
    fn run(&self, command: &ControlCommand, session: Arc<dyn ControlSession>) -> u8 {
        let arguments = command.arguments.iter().cloned().map(OsString::from_vec);
        // The parser expects the program's name first, which the client does not send.
        let args = match Args::try_parse_from(std::iter::once("tier".into()).chain(arguments)) {
            Ok(args) => args,
            // The other process parsed them before: it is another version of this program.
            Err(error) => {
                session.note(&error.to_string());
                return console::USAGE;
            }
        };
        let directory = PathBuf::from(OsString::from_vec(command.directory.clone()));
        tracing::info!(command = ?args.command, "carrying out a command of another process");
        let start = Instant::now();
        let console = Console::remote(args.json, Arc::clone(&session), directory);
        let code = match self.carry_out(&args, console) {
            Ok(()) => 0,
            Err(error) => {
                // A caller that is gone reads no message.
                if !console::is_broken_pipe(&error) {
                    session.note(&format!("tier: {}", console::message(&error)));
                }
                console::code(&error)
            }
        };
        tracing::info!(code, elapsed = ?start.elapsed(), "the command has ended");
        code
    }
}

impl Commands {
    fn carry_out(&self, args: &Args, console: Console) -> Result<()> {
        command::run(&Context::live_store(console, Arc::clone(&self.0)), &args.command)
    }
}
