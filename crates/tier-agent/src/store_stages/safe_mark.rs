//! The mark of how far a history is safe: what the status logs say, remembered.
//!
//! The logs are what counts. The mark lags behind them where a crash took it, and is found again
//! from them; it never leads, because it is lowered before a log takes anything back.

use tier_status::Place;
use tier_types::{CloudPlace, Epoch, SnapshotId};

/// All snapshots up to this one are verified in a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SafeMark {
    place: String,
    epoch: Epoch,
    snapshot: SnapshotId,
}

impl SafeMark {
    pub(super) fn new(place: &Place, epoch: Epoch, snapshot: SnapshotId) -> Self {
        Self { place: text_of(place), epoch, snapshot }
    }

    pub(super) fn is_for(&self, place: &Place) -> bool {
        self.place == text_of(place)
    }

    pub(super) fn snapshot(&self) -> (Epoch, SnapshotId) {
        (self.epoch, self.snapshot)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { place, epoch, snapshot } = self;
        format!("safe 1 {} {} {place}", epoch.get(), snapshot.get()).into_bytes()
    }

    /// `None` for what is no mark, or one of another version.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.strip_prefix("safe 1 ")?;
        let (epoch, rest) = text.split_once(' ')?;
        let (snapshot, place) = rest.split_once(' ')?;
        let (epoch, snapshot) = (epoch.parse().ok()?, snapshot.parse().ok()?);
        let (epoch, snapshot) = (Epoch::new(epoch), SnapshotId::new(snapshot));
        Some(Self { place: place.into(), epoch, snapshot })
    }
}

fn text_of(place: &Place) -> String {
    match place {
        Place::Local => "local".into(),
        Place::Cloud(CloudPlace { id, url }) => format!("cloud {id} {url}"),
    }
}

#[cfg(test)]
mod tests {
    use tier_types::CloudId;

    use super::*;

    #[test]
    fn a_mark_is_for_one_place_and_survives_as_bytes() {
        let place = |url: &str| {
            Place::Cloud(CloudPlace { id: CloudId::from_bytes([1; 16]), url: url.into() })
        };
        let (epoch, snapshot) = (Epoch::new(2), SnapshotId::new(7));
        let mark = SafeMark::new(&place("file:///a b"), epoch, snapshot);
        assert!(mark.is_for(&place("file:///a b")) && !mark.is_for(&place("file:///a")));
        assert!(!mark.is_for(&Place::Local));
        assert_eq!(SafeMark::from_bytes(&mark.to_bytes()), Some(mark));
        assert_eq!(SafeMark::from_bytes(b""), None);
    }
}
