//! Logging to standard error: how much of it, by `-q`, `-v`, `-vv`, or `RUST_LOG`.
//!
//! The flags set one level for everything. `RUST_LOG` can set levels for single crates and modules,
//! so that it wins where it is set (`RUST_LOG=warn,tier_agent=debug`). A value that cannot be read
//! does not keep the program from its work: it is said, and the flags count.

use std::env;
use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The environment variable that sets levels by crate and module.
const VARIABLE: &str = "RUST_LOG";

/// Starts logging for the rest of the process.
pub(crate) fn start(quiet: bool, verbose: u8) {
    let level = level(quiet, verbose);
    // An empty value is what a script leaves that unsets a variable, and it sets no level.
    let value = env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    let filter = value.as_deref().map(EnvFilter::try_new).transpose();
    let (filter, problem) = match filter {
        Ok(filter) => (filter, None),
        Err(problem) => (None, Some(problem)),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::default().add_directive(level.into())))
        .with_writer(io::stderr)
        .with_ansi(env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .with_target(false)
        .without_time()
        .init();
    // Said after logging has begun, because before there is nothing to say it with.
    if let Some(problem) = problem {
        tracing::warn!("{VARIABLE} counts for nothing: {problem}");
    }
}

fn level(quiet: bool, verbose: u8) -> LevelFilter {
    match verbose {
        _ if quiet => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        3.. => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_v_says_more_and_quiet_says_least() {
        let levels = [level(true, 2), level(false, 0), level(false, 1)];
        assert_eq!(levels, [LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO]);
        assert_eq!(level(false, 2), LevelFilter::DEBUG);
        assert_eq!(level(false, u8::MAX), LevelFilter::TRACE);
    }
}
