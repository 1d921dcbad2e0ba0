//! The console of the process that the user started: its standard output and standard error.

use std::io::{self, Write};

pub(crate) struct LocalConsole {
    /// Whether reports are wanted as JSON.
    pub(super) json: bool,
}

impl LocalConsole {
    pub(super) fn out() -> impl Write {
        io::stdout().lock()
    }

    pub(super) fn note(text: &str) {
        // Where standard error is closed, the work goes on all the same.
        drop(writeln!(io::stderr(), "{text}"));
    }
}
