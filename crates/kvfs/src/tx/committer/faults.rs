//! What an error of the key-value store does to the leader's health (see `health`).

use std::sync::atomic::Ordering;

use super::Leader;
use super::health::Health;
use crate::FsError;

impl Leader {
    /// What an error of the key-value store means for what follows.
    pub(super) fn health_after(&self, error: &FsError, before: Health) -> Health {
        if matches!(error, FsError::NoSpace(_)) {
            self.room.ran_out();
            Health::Full
        } else if before == Health::Full {
            // RocksDB did not recover from the full disk, whatever it says now.
            Health::Torn
        } else {
            Health::Poisoned
        }
    }

    /// Notes a failed sync, and says what its callers are told.
    pub(super) fn sync_failed(&mut self, error: FsError) -> FsError {
        // What is not known to be in the store does not become known by a sync; and while one was
        // under way another thread's write may have met the full disk.
        if !self.health.is_broken() {
            self.set_health(self.health_after(&error, self.health));
        }
        self.health.refusal_instead_of(error)
    }

    pub(super) fn set_health(&mut self, health: Health) {
        self.health = health;
        let is_full = matches!(health, Health::Full | Health::Torn);
        if is_full != std::mem::replace(&mut self.told_full, is_full) {
            if is_full {
                tracing::warn!("the disk is full: operations fail until there is room again");
            } else {
                tracing::info!("the key-value store accepts changes again");
            }
        }
        self.is_poisoned.store(health.is_broken(), Ordering::Relaxed);
    }
}
