//! A status sink that remembers.

use parking_lot::Mutex;
use tier_status::{Event, StatusError, StatusSink};

/// Remembers every event.
#[derive(Debug, Default)]
pub struct RecordingSink(Mutex<Vec<Event>>);

impl RecordingSink {
    /// What was reported so far.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().clone()
    }
}

impl StatusSink for RecordingSink {
    fn report(&self, event: Event) -> Result<(), StatusError> {
        self.0.lock().push(event);
        Ok(())
    }
}
