//! The `tier` program: reads the command line, starts logging, and runs one command.
//!
//! The modules are layers, bottom up: what the user says ([`args`]) and is told ([`console`]); the
//! store with its filesystem (`open_store`); what a command works with ([`context`]); copying trees
//! (`transfer`); the commands ([`command`]); and the process that keeps a store open and runs
//! commands for others ([`serve`]). Each uses only those before it.

mod args;
mod command;
mod console;
mod context;
mod descriptors;
mod logging;
mod open_store;
mod serve;
mod transfer;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Args, Command};
use crate::console::Console;
use crate::context::Context;

/// For the database as well, which allocates from many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help that was asked for is no error, although the parser returns it as one.
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Where this cannot be written, no other message can be either.
            let _ = error.print();
            return if help { ExitCode::SUCCESS } else { ExitCode::from(console::USAGE) };
        }
    };
    logging::start(args.quiet, args.verbose);
    descriptors::raise_limit();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // A reader that has seen enough is no failure worth a message.
            if !console::is_broken_pipe(&error) {
                let _ = writeln!(io::stderr(), "tier: {}", console::message(&error));
            }
            ExitCode::from(console::code(&error))
        }
    }
}

/// Runs the command where its store is open, or else here, and returns its exit code.
fn run(args: &Args) -> Result<u8> {
    // Before the store is opened: while another process has it open, opening it would fail.
    if let Some(code) = serve::hand_over(&args.command)? {
        return Ok(code);
    }
    let context = Context::local(Console::local(args.json));
    if let Command::Mount(args) = &args.command {
        serve::mount(&context, args)?;
    } else {
        command::run(&context, &args.command)?;
    }
    Ok(0)
}
