//! The limit of a store: how much of what is left each purpose may take. Pure arithmetic.
//!
//! Two things run out: the capacity that was set for the store, if one was, and the disk, which
//! other programs fill as well. Of each a share is the reserve, and the lesser of the two counts.
//!
//! - Growth leaves the whole reserve alone.
//! - The archive, without which nothing can be evicted, may use half of a capacity's and a quarter
//!   of the disk's.
//! - A removal may use half of the disk's, too. A capacity it may exceed by a tolerance: its rows
//!   come before the room that it makes, and a store at its capacity must take it.
//! - What makes room at once is held up by nothing but a disk without room for it.
//!
//! The other half of the disk's reserve is the ballast, which is given up for the flush after a
//! full disk. What lies between is for RocksDB to merge its files.
//!
//! Bytes that RocksDB holds in memory count once more than they do in its log: they are written
//! into a table before the log can go.

/// The reserve is this share of what a store may take.
const RESERVE_SHARE: u64 = 20;
/// And no more than this, however large the store is.
const RESERVE_BYTES_MAX: u64 = 2 << 30;
/// The ballast is half of the reserve, and no more than this.
const BALLAST_BYTES_MAX: u64 = 64 << 20;
/// Only when no more than so many reserves are left on the disk is a ballast held.
const BALLAST_MARK_RESERVES: u64 = 16;
/// By so much a removal may exceed the limit of a capacity: a share, or this many bytes.
const TOLERANCE_SHARE: u64 = 50;
const TOLERANCE_BYTES_MIN: u64 = 64 << 20;
/// With less room than so many reserves, background work that frees room does not yield any more.
const LOW_SPACE_RESERVES: u64 = 4;
/// What a batch needs on the disk besides its own bytes: the block in which its log ends.
const LAST_BYTES: u64 = 1 << 20;

/// What room is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// What stays: it stops at the limit.
    Growth,
    /// The archive: what is in it can be evicted.
    Archive,
    /// What is small and leads to more room later: removals and cuts.
    Removal,
    /// What makes room: eviction, and the end of what was removed.
    Reclaim,
}

/// How full the store's disk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DiskSpace {
    /// Bytes in use, by the store or by anything else.
    pub(crate) used_bytes: u64,
    /// Bytes in use and bytes that an ordinary user can still take.
    pub(crate) capacity_bytes: u64,
}

impl DiskSpace {
    fn free_bytes(self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes)
    }
}

/// What was counted at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Account {
    /// What the store may take; `None` for the whole disk.
    pub(super) capacity_bytes: Option<u64>,
    /// What its files take, without the ballast. Zero where no capacity is set, which needs no such
    /// number.
    pub(super) own_bytes: u64,
    /// What RocksDB holds in memory and has yet to write into tables.
    pub(super) unflushed_bytes: u64,
    /// The disk, with the ballast among what is used.
    pub(super) disk: DiskSpace,
    pub(super) ballast_bytes: u64,
}

impl Account {
    /// The same after so many bytes more were written, into the log and into memory.
    pub(super) fn after(self, written_bytes: u64) -> Self {
        // Until a flush each byte lies in the log and has yet to be written into a table: it counts
        // in the files and in memory.
        let Self { own_bytes, unflushed_bytes, disk, .. } = self;
        Self {
            own_bytes: own_bytes.saturating_add(written_bytes),
            unflushed_bytes: unflushed_bytes.saturating_add(written_bytes),
            disk: DiskSpace { used_bytes: disk.used_bytes.saturating_add(written_bytes), ..disk },
            ..self
        }
    }

    /// What the store may take, its reserve left out.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.total_bytes() - self.reserve_bytes()
    }

    /// What counts against the limit: the store's files, or all that is on a disk without a
    /// capacity.
    pub(super) fn used_bytes(&self) -> u64 {
        match self.capacity_bytes {
            Some(_) => self.own_bytes.saturating_add(self.unflushed_bytes),
            None => {
                let occupied = self.disk.used_bytes.saturating_sub(self.ballast_bytes);
                occupied.saturating_add(self.unflushed_bytes)
            }
        }
    }

    /// Whether so many bytes more can be written, into the log and into memory.
    pub(super) fn fits(&self, purpose: Purpose, bytes: u64) -> bool {
        let after = self.after(bytes);
        match purpose {
            Purpose::Growth => after.is_in_capacity(1) && after.leaves_on_disk(4),
            Purpose::Archive => after.is_in_capacity(2) && after.leaves_on_disk(3),
            Purpose::Removal => after.is_tolerated() && after.leaves_on_disk(2),
            // Only the disk itself stops what makes room: a limit would leave a full store full for
            // ever. The ballast is not counted here, because recovery from a full disk needs it.
            Purpose::Reclaim => after.disk.free_bytes() >= LAST_BYTES,
        }
    }

    /// Whether this part of the capacity's reserve is untouched: all of it for 1, a half for 2.
    fn is_in_capacity(&self, part: u64) -> bool {
        self.capacity_bytes
            .is_none_or(|capacity| self.used_bytes() <= capacity - reserve_bytes(capacity) / part)
    }

    /// Whether the limit is not exceeded by more than a tolerance.
    fn is_tolerated(&self) -> bool {
        let limit = self.limit_bytes();
        let tolerance = (limit / TOLERANCE_SHARE).max(TOLERANCE_BYTES_MIN);
        self.capacity_bytes.is_none() || self.used_bytes() <= limit.saturating_add(tolerance)
    }

    /// Whether so many quarters of the disk's reserve are untouched.
    fn leaves_on_disk(&self, n_quarters: u64) -> bool {
        let kept = reserve_bytes(self.disk.capacity_bytes) / 4 * n_quarters;
        // The ballast is room that the store can have back at any time, so that it counts as left.
        // A byte must be, even on a disk so small that its reserve is rounded down to none.
        let left = self.disk.free_bytes().saturating_add(self.ballast_bytes);
        left >= kept.saturating_add(self.unflushed_bytes).max(1)
    }

    /// What an ordinary writer can still write.
    pub(super) fn free_bytes(&self) -> u64 {
        let reserve = reserve_bytes(self.disk.capacity_bytes);
        let left = self.disk.free_bytes().saturating_add(self.ballast_bytes);
        let on_disk = left.saturating_sub(reserve).saturating_sub(self.unflushed_bytes);
        on_disk.min(self.limit_bytes().saturating_sub(self.used_bytes()))
    }

    /// Whether room is so short that what makes more must not yield.
    pub(super) fn is_low(&self) -> bool {
        self.free_bytes() < LOW_SPACE_RESERVES * self.reserve_bytes()
    }

    /// Bytes that are worth a flush if it makes them count once instead of twice.
    pub(super) fn flush_bytes_min(&self) -> u64 {
        (self.limit_bytes() / 32).clamp(256 << 10, 32 << 20)
    }

    /// How large a ballast is to be held now. It is given back where there is room for years, so
    /// that no copy of a store carries it along, and it is not made at the cost of the reserve.
    pub(super) fn wanted_ballast_bytes(&self) -> u64 {
        let reserve = reserve_bytes(self.disk.capacity_bytes);
        let left = self.disk.free_bytes().saturating_add(self.ballast_bytes);
        let size = (reserve / 2).min(BALLAST_BYTES_MAX);
        if left >= BALLAST_MARK_RESERVES * reserve {
            0
        } else if left >= reserve.saturating_add(size) {
            size
        } else {
            self.ballast_bytes
        }
    }

    /// Whether more than a share of the limit is used, in percent.
    pub(super) fn is_above(&self, percent: u8) -> bool {
        self.used_bytes() > self.limit_bytes() / 100 * u64::from(percent) || self.free_bytes() == 0
    }

    /// What growth leaves alone.
    pub(super) fn reserve_bytes(&self) -> u64 {
        reserve_bytes(self.total_bytes())
    }

    fn total_bytes(&self) -> u64 {
        self.capacity_bytes
            .map_or(self.disk.capacity_bytes, |capacity| capacity.min(self.disk.capacity_bytes))
    }
}

fn reserve_bytes(total_bytes: u64) -> u64 {
    (total_bytes / RESERVE_SHARE).min(RESERVE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn account(capacity_bytes: Option<u64>, own_bytes: u64, used_bytes: u64) -> Account {
        let disk = DiskSpace { used_bytes, capacity_bytes: 1000 * MB };
        Account { capacity_bytes, own_bytes, unflushed_bytes: 0, disk, ballast_bytes: 0 }
    }

    #[test]
    fn a_reserve_is_a_share_and_bounded() {
        assert_eq!(account(None, 0, 0).limit_bytes(), 950 * MB);
        assert_eq!(account(Some(100 * MB), 0, 0).limit_bytes(), 95 * MB);
        let disk = DiskSpace { used_bytes: 0, capacity_bytes: 100 << 40 };
        let large = Account { disk, ..account(None, 0, 0) };
        assert_eq!(large.limit_bytes(), (100 << 40) - RESERVE_BYTES_MAX);
    }

    #[test]
    fn growth_stops_at_the_limit_removals_behind_it_and_reclaiming_at_the_end_of_the_disk() {
        let fits = |account: Account| {
            [Purpose::Growth, Purpose::Archive, Purpose::Removal, Purpose::Reclaim]
                .map(|purpose| account.fits(purpose, 1000))
        };
        assert_eq!(fits(account(None, 0, 940 * MB)), [true, true, true, true]);
        assert_eq!(fits(account(None, 0, 951 * MB)), [false, true, true, true]);
        assert_eq!(fits(account(None, 0, 976 * MB)), [false, false, false, true]);
        assert_eq!(fits(account(None, 0, 1000 * MB)), [false, false, false, false]);
        let capacity = Some(100 * MB);
        assert_eq!(fits(account(capacity, 94 * MB, 500 * MB)), [true, true, true, true]);
        assert_eq!(fits(account(capacity, 96 * MB, 500 * MB)), [false, true, true, true]);
        assert_eq!(fits(account(capacity, 98 * MB, 500 * MB)), [false, false, true, true]);
        assert_eq!(fits(account(capacity, 300 * MB, 500 * MB)), [false, false, false, true]);
        let by_others = fits(account(capacity, 0, 951 * MB));
        assert_eq!(by_others, [false, true, true, true], "others fill the disk");
    }

    #[test]
    fn what_is_free_is_what_growth_can_take() {
        for (capacity, own, used) in [(None, 0, 500), (Some(100), 40, 400), (Some(100), 1, 945)] {
            let account = account(capacity.map(|n: u64| n * MB), own * MB, used * MB);
            let free = account.free_bytes();
            assert!(free > 0);
            // In the log and in memory: each byte is there twice.
            assert!(account.fits(Purpose::Growth, free / 2));
            assert!(!account.fits(Purpose::Growth, free / 2 + MB));
            assert!(account.used_bytes() + free <= account.limit_bytes());
        }
    }

    #[test]
    fn what_is_in_memory_counts_as_what_it_will_take() {
        let unflushed = Account { unflushed_bytes: 30 * MB, ..account(None, 0, 930 * MB) };
        assert!(!unflushed.fits(Purpose::Growth, 0));
        assert!(account(None, 0, 930 * MB).fits(Purpose::Growth, 0));
    }

    #[test]
    fn a_ballast_is_held_where_room_is_short_and_made_from_no_reserve() {
        let ballast = |used: u64, held: u64| {
            Account { ballast_bytes: held, ..account(None, 0, used) }.wanted_ballast_bytes()
        };
        assert_eq!(ballast(100 * MB, 0), 0, "there is room for long");
        assert_eq!(ballast(100 * MB, 25 * MB), 0, "again");
        assert_eq!(ballast(500 * MB, 0), 25 * MB);
        assert_eq!(ballast(940 * MB, 0), 0, "it would be made of the reserve");
        assert_eq!(ballast(990 * MB, 25 * MB), 25 * MB, "what is held stays");
    }
}
