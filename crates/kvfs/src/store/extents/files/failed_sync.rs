//! After a sync that failed: what no sync covers is written once more.
//!
//! The system drops what it could not write, and takes the next sync for one of nothing. So
//! what no sync covers is read once more, which gives the bytes that the cache still has, written
//! to its place again, and synced ([`rewrite`](ExtentFiles::rewrite)); no sync is believed before
//! that. Bytes that are gone are found by their checksums.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tier_types::to_usize;

use super::{ExtentFiles, failed};
use crate::FsError;
use crate::store::extents::FileExtent;

impl ExtentFiles {
    /// Whether a sync failed and nothing was done about it.
    pub(crate) fn needs_rewrite(&self) -> bool {
        self.state.lock().sync_failed
    }

    /// As after a sync that failed.
    #[cfg(test)]
    pub(crate) fn fail_sync(&self) {
        let mut state = self.state.lock();
        state.sync_failed = true;
        // The system takes the pages for clean.
        state.dirty.clear();
    }

    /// As after one: nothing is believed before what no sync covers was written again.
    pub(crate) fn distrust(&self) {
        self.state.lock().sync_failed = true;
    }

    /// Writes extents to their places once more, all to which rows refer that no sync covers, and
    /// syncs them. From then on syncs are believed again, unless bytes are gone: only an opening
    /// can undo the change that wrote them.
    pub(crate) fn rewrite(&self, extents: &[FileExtent]) -> Result<(), FsError> {
        let _syncing = self.syncing.lock();
        let mut files = BTreeMap::new();
        for extent in extents {
            let mut bytes = vec![0; to_usize(u64::from(extent.len))];
            if !self.read(*extent, &mut bytes)? {
                let gone = format!("{:?} is gone; open the store again", extent.place);
                return Err(failed("sync")(io::Error::other(gone)));
            }
            let file = self.file(&mut self.state.lock(), extent.place.file)?;
            file.write_all_at(&bytes, extent.place.offset).map_err(failed("write to"))?;
            files.insert(extent.place.file, file);
        }
        let synced = files.values().try_for_each(|file| file.sync_data());
        let all_synced = synced.and_then(|()| File::open(&self.directory)?.sync_all());
        all_synced.map_err(failed("sync"))?;
        self.state.lock().sync_failed = false;
        Ok(())
    }

    /// Whether all syncs went well.
    pub(crate) fn check(&self) -> Result<(), FsError> {
        if self.state.lock().sync_failed {
            let source = io::Error::other("an earlier sync failed; open the store again");
            return Err(FsError::Extents { operation: "sync", source });
        }
        Ok(())
    }
}
