//! Totals against the sums, and the log from its first record to the last transaction.

use super::Scan;
use crate::FsError;
use crate::check::problem::Problem;
use crate::store::Table;

impl Scan<'_> {
    pub(super) fn totals(&mut self) -> Result<(), FsError> {
        let kept = self.reader().counters();
        let Some(kept) = self.tolerate(kept)? else { return self.log() };
        let (counted, is_certain) = (self.counted, self.is_complete);
        if kept != Some(counted) {
            self.find_any(None, Problem::Totals { kept, counted, is_certain })?;
        }
        self.log()
    }

    fn log(&mut self) -> Result<(), FsError> {
        let mut expected = None;
        for xid in self.reader().log_rows()? {
            // Where the log goes on behind what cannot be read is not known.
            let Some(xid) = self.tolerate(xid)? else { return Ok(()) };
            let Some(xid) = xid else {
                self.find_any(None, Problem::KeyUnreadable { table: Table::Log })?;
                continue;
            };
            if expected.is_some_and(|expected| expected != xid) {
                self.find_any(None, Problem::LogGap { before: xid })?;
            }
            expected = Some(xid.next());
        }
        if expected.is_some_and(|expected| expected != self.last.next()) {
            self.find_any(None, Problem::LogEnd)?;
        }
        Ok(())
    }
}
