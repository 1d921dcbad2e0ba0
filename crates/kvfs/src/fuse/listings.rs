//! Open directories: where the listing of each ends.
//!
//! A listing ends with what was there when it was begun. Otherwise a program that renames or makes
//! files while it reads their directory would come upon its own work again and again, and might
//! never see the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::FileHandle;
use parking_lot::Mutex;

use crate::ops::ListingPlaces;

/// The open directories.
#[derive(Debug, Default)]
pub(super) struct Listings {
    next: AtomicU64,
    /// Where each listing ends, by the number that the kernel knows it by.
    ends: Mutex<HashMap<u64, u64>>,
}

impl Listings {
    pub(super) fn open(&self, end: u64) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.ends.lock().insert(number, end);
        FileHandle(number)
    }

    pub(super) fn close(&self, listing: FileHandle) {
        self.ends.lock().remove(&listing.0);
    }

    /// What is to be listed after a place. At the start of a listing it begins anew, and ends with
    /// what is there now.
    pub(super) fn places(&self, listing: FileHandle, after: u64, end_now: u64) -> ListingPlaces {
        let mut ends = self.ends.lock();
        let end = ends.entry(listing.0).or_insert(end_now);
        if after == 0 {
            *end = end_now;
        }
        ListingPlaces { after, end: *end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_ends_where_it_was_begun() {
        let listings = Listings::default();
        let (a, b) = (listings.open(10), listings.open(20));
        let places = |listing, after, now| {
            let ListingPlaces { after, end } = listings.places(listing, after, now);
            (after, end)
        };
        assert_eq!(places(a, 5, 30), (5, 10), "as it was opened");
        assert_eq!(places(a, 0, 40), (0, 40), "it was begun anew");
        assert_eq!(places(a, 7, 50), (7, 40));
        assert_eq!(places(b, 7, 50), (7, 20));
        listings.close(a);
        listings.close(b);
        assert!(listings.ends.lock().is_empty());
    }
}
