//! The `tier` program: the one place where concrete parts are wired together.

mod args;
mod cmd;
mod config;
mod daemon;
mod exit;
mod fill_index;
mod host;
mod index_files;
mod output;
mod progress;
mod remote;
mod session;
mod store;
mod walk;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::filter::LevelFilter;

use crate::args::Args;
use crate::session::Session;

/// For the database as well, which allocates from many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nobody is there to be told that this cannot be written.
            let _ = error.print();
            return if help { ExitCode::SUCCESS } else { ExitCode::from(exit::USAGE) };
        }
    };
    let level = match (args.quiet, args.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .with_target(false)
        .without_time()
        .init();
    let done = match remote::run(&args) {
        Some(done) => done,
        None => cmd::run(&args, &Session::here(args.json)).map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = exit::code(&error);
            // A reader that has seen enough is no failure worth a message.
            if !exit::is_broken_pipe(&error) {
                let _ = writeln!(io::stderr(), "tier: {}", exit::message(&error));
            }
            ExitCode::from(code)
        }
    }
}
