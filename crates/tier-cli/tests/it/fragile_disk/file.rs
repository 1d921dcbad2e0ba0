//! A file now, and as a loss of power leaves it.
//!
//! `now` is what is read, from the system's cache as a rule; `durable` is what the last sync left.
//! A sync that fails may make the system forget which blocks are to be written: they are read as
//! they were written until the power goes, and no later sync brings them to the disk, unless they
//! are written again. That is what Linux does with pages that it could not write.

use std::collections::BTreeSet;
use std::ops::Range;

use tier_types::to_u64;

use super::blocks::{Blocks, touched};

#[derive(Clone, Debug, Default)]
pub(super) struct SyncedFile {
    now: Blocks,
    durable: Blocks,
    /// Blocks that were changed since the last sync.
    dirty: BTreeSet<u64>,
}

impl SyncedFile {
    /// A file that is durable as it is.
    pub(super) fn durable(durable: Blocks) -> Self {
        Self { now: durable.clone(), durable, dirty: BTreeSet::new() }
    }

    pub(super) fn now(&self) -> &Blocks {
        &self.now
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + to_u64(bytes.len());
        self.dirty.extend(touched(self.now.len().min(offset)..end));
        self.now.write(offset, bytes);
    }

    pub(super) fn resize(&mut self, len: u64) {
        let old = self.now.len();
        self.dirty.extend(touched(old.min(len)..old.max(len)));
        self.now.resize(len);
    }

    /// Makes a hole, as far as the file reaches.
    pub(super) fn punch(&mut self, bytes: Range<u64>) {
        let bytes = bytes.start..bytes.end.min(self.now.len());
        self.dirty.extend(touched(bytes.clone()));
        self.now.punch(bytes);
    }

    pub(super) fn allocate(&mut self, bytes: Range<u64>, grows: bool) {
        self.dirty.extend(touched(bytes.clone()));
        self.now.allocate(bytes, grows);
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.now.len());
        for number in std::mem::take(&mut self.dirty) {
            self.durable.put_block_back(number, &self.now);
        }
    }

    /// Takes everything for synced that is not, as the system does after a sync that failed: what
    /// was written is read from the cache, and no later sync writes it.
    pub(super) fn forget_dirty(&mut self) {
        self.dirty.clear();
    }

    /// Its last name and its last user are gone: what is left is what a loss of power may bring
    /// back.
    pub(super) fn let_go(&mut self) {
        *self = Self::durable(std::mem::take(&mut self.durable));
    }

    /// A file of which some blocks and perhaps the length reached the disk, and others did not.
    pub(super) fn torn(&self, reached: &mut dyn FnMut() -> bool) -> Blocks {
        let mut left = self.durable.clone();
        if reached() {
            left.resize(self.now.len());
        }
        for number in &self.dirty {
            if reached() {
                left.take_block(*number, &self.now);
            }
        }
        left
    }
}
