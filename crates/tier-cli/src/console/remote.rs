//! The console of a command that another process handed to this one, over the control socket.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tier_types::ControlSession;

pub(crate) struct RemoteConsole {
    /// Whether reports are wanted as JSON.
    pub(super) json: bool,
    /// The way to the process that handed over the command.
    pub(super) session: Arc<dyn ControlSession>,
    /// The directory from which that process counts relative paths.
    pub(super) directory: PathBuf,
}

impl RemoteConsole {
    pub(super) fn out(&self) -> impl Write + '_ {
        RemoteOut(self.session.as_ref())
    }
}

struct RemoteOut<'a>(&'a dyn ControlSession);

impl Write for RemoteOut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The other process reads no more: for a command that is a closed pipe.
        let sent = self.0.output(bytes);
        sent.map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error))?;
        // All of it was queued, however long: the session cuts it into messages.
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Nothing is kept back here; what is queued is sent by a thread of the connection.
        Ok(())
    }
}
