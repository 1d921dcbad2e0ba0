//! The marks of space: when it is low, how much is to be freed, and how large a part of a snapshot
//! may be meanwhile.
//!
//! The marks are shares of the limit, which is what a store may take less its reserve. Above the
//! high mark space is low and is freed until the low one is reached: the distance between the two
//! keeps a store that is written to from freeing a little with each write.

use tier_persist::PartBounds;
use tier_types::SpaceUsage;

/// Parts of a snapshot and tarballs are no smaller than this, however short the space is.
const PART_BYTES_MIN: u64 = 1 << 20;
/// A part takes this share of what is free, or of the reserve.
const PART_SHARE: u64 = 4;
/// And a tarball this share of a part: one is written while others go up, and wait to be dropped.
const TARBALL_SHARE: u64 = 4;

/// When space is freed, in percent of the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceMarks {
    /// Space is low when more than this is used. At most 100.
    pub high_percent: u8,
    /// Space is freed until no more than this is. At most `high_percent`.
    pub low_percent: u8,
}

impl SpaceMarks {
    /// Whether space is to be freed.
    ///
    /// ```
    /// use tier_agent::decide::SpaceMarks;
    /// use tier_types::SpaceUsage;
    ///
    /// let marks = SpaceMarks { high_percent: 85, low_percent: 70 };
    /// let full = SpaceUsage { used_bytes: 900, limit_bytes: 1000, ..SpaceUsage::default() };
    /// assert!(marks.is_low(&full));
    /// assert_eq!(marks.excess_bytes(&full), 200);
    /// ```
    pub fn is_low(&self, space: &SpaceUsage) -> bool {
        assert!(self.low_percent <= self.high_percent, "freeing ends below its beginning");
        assert!(self.high_percent <= 100, "a share is at most the whole");
        // Strictly above: with equal marks an eviction that just reached its goal would be due
        // again. Where operations wait the limit is reached, whatever the marks say.
        let is_above = space.used_bytes > share(space, self.high_percent);
        space.limit_bytes > 0 && (is_above || space.n_waiting > 0)
    }

    /// What is to be freed: down to the low mark.
    pub fn excess_bytes(&self, space: &SpaceUsage) -> u64 {
        space.used_bytes.saturating_sub(share(space, self.low_percent))
    }
}

/// How large parts of a snapshot and tarballs may be: a share of what is free, so that what is
/// written beside them finds room as well. Where nothing is free it is a share of the reserve.
pub fn part_bounds(space: &SpaceUsage) -> PartBounds {
    if space.limit_bytes == 0 {
        return PartBounds::NONE;
    }
    assert!(space.free_bytes <= space.limit_bytes, "what is free is a part of the limit");
    let part_bytes = space.free_bytes.max(space.reserve_bytes) / PART_SHARE;
    let bounded = |bytes: u64| bytes.max(PART_BYTES_MIN);
    PartBounds {
        part_bytes: bounded(part_bytes),
        tarball_bytes: bounded(part_bytes / TARBALL_SHARE),
    }
}

fn share(space: &SpaceUsage, percent: u8) -> u64 {
    // Divided first, because the product may not fit into 64 bits; that loses less than 100 bytes.
    space.limit_bytes / 100 * u64::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: SpaceMarks = SpaceMarks { high_percent: 80, low_percent: 60 };

    fn used(used_bytes: u64) -> SpaceUsage {
        SpaceUsage { used_bytes, limit_bytes: 1000, ..SpaceUsage::default() }
    }

    #[test]
    fn space_is_low_above_the_high_mark_or_where_operations_wait() {
        assert!(!MARKS.is_low(&used(800)) && MARKS.is_low(&used(801)));
        assert!(MARKS.is_low(&SpaceUsage { n_waiting: 1, ..used(100) }));
        let unlimited = SpaceUsage { limit_bytes: 0, n_waiting: 1, ..used(u64::MAX) };
        assert!(!MARKS.is_low(&unlimited));
    }

    #[test]
    fn space_is_freed_down_to_the_low_mark() {
        assert_eq!([500, 600, 601, 990].map(|n| MARKS.excess_bytes(&used(n))), [0, 0, 1, 390]);
        let huge = SpaceUsage { used_bytes: u64::MAX, limit_bytes: u64::MAX, ..used(0) };
        assert!(MARKS.is_low(&huge) && MARKS.excess_bytes(&huge) > u64::MAX / 3);
    }

    #[test]
    fn parts_become_smaller_with_what_is_free_and_never_too_small() {
        let space = |free_mib: u64| SpaceUsage {
            free_bytes: free_mib << 20,
            reserve_bytes: 100 << 20,
            limit_bytes: 8000 << 20,
            ..used(0)
        };
        let bounds = |space: &SpaceUsage| {
            let PartBounds { part_bytes, tarball_bytes } = part_bounds(space);
            (part_bytes, tarball_bytes)
        };
        assert_eq!(bounds(&space(4000)), (1000 << 20, 250 << 20));
        assert_eq!(bounds(&space(0)), (25 << 20, 25 << 18), "of the reserve");
        assert_eq!(bounds(&used(0)), (PART_BYTES_MIN, PART_BYTES_MIN));
        assert_eq!(part_bounds(&SpaceUsage::default()), PartBounds::NONE);
    }
}
