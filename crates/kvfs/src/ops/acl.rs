//! Access control lists as POSIX 1003.1e draft 17 has them, in the form of Linux's extended
//! attributes: a version (u32, 2) and entries of tag (u16), permissions (u16) and id (u32), all
//! little-endian.

/// The list that governs access.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// A directory's list for what is made in it.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
const N_ENTRIES_MAX: usize = 4096;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list. It has one entry each for owner, group and others, and a mask if it has more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// `None` if the bytes are not a valid list.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || rest.len() > N_ENTRIES_MAX * ENTRY_BYTES {
            return None;
        }
        let mut entries = Vec::with_capacity(rest.len() / ENTRY_BYTES);
        while !rest.is_empty() {
            let (tag, after) = rest.split_first_chunk::<2>()?;
            let (permissions, after) = after.split_first_chunk::<2>()?;
            let (id, after) = after.split_first_chunk::<4>()?;
            rest = after;
            entries.push(Entry {
                tag: u16::from_le_bytes(*tag),
                permissions: u16::from_le_bytes(*permissions),
                id: u32::from_le_bytes(*id),
            });
        }
        let acl = Self(entries);
        acl.is_valid().then_some(acl)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let known = USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER;
        let each = |entry: &Entry| {
            entry.tag.is_power_of_two() && entry.tag & known != 0 && entry.permissions <= 7
        };
        let named = count(USER) + count(GROUP);
        self.0.iter().all(each)
            && self.0.is_sorted_by_key(|entry| entry.tag)
            && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|&tag| count(tag) == 1)
            && (count(MASK) == 1 || (named == 0 && count(MASK) == 0))
    }

    /// The class of the mode's middle bits: the mask if there is one.
    fn group_tag(&self) -> u16 {
        if self.0.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OBJ }
    }

    /// The tags that the mode's bits stand for, with how far these are shifted.
    fn classes(&self) -> [(u16, u32); 3] {
        [(USER_OBJ, 6), (self.group_tag(), 3), (OTHER, 0)]
    }

    /// The mode's nine bits that say the same as far as they can.
    pub(crate) fn permissions(&self) -> u16 {
        let bits = |(tag, shift)| {
            let entry = self.0.iter().find(|entry| entry.tag == tag);
            entry.map_or(0, |entry| entry.permissions << shift)
        };
        self.classes().into_iter().map(bits).sum()
    }

    /// Whether a mode says all that the list says.
    pub(crate) fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    /// The list of an inode that got a new mode.
    pub(super) fn with_mode(mut self, mode: u16) -> Self {
        self.change(|_, wanted| wanted, mode);
        self
    }

    /// The list of a new inode whose maker asked for a mode: no more than that.
    pub(super) fn restricted_to(&self, mode: u16) -> Self {
        let mut access = self.clone();
        access.change(|granted, wanted| granted & wanted, mode);
        access
    }

    /// Changes the entries that the mode's bits stand for.
    fn change(&mut self, change: impl Fn(u16, u16) -> u16, mode: u16) {
        for (tag, shift) in self.classes() {
            for entry in self.0.iter_mut().filter(|entry| entry.tag == tag) {
                entry.permissions = change(entry.permissions, (mode >> shift) & 7);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Acl {
        let entry = |&(tag, permissions): &(u16, u16)| Entry { tag, permissions, id: u32::MAX };
        Acl(entries.iter().map(entry).collect())
    }

    #[test]
    fn what_is_written_is_read() {
        let list = acl(&[(USER_OBJ, 7), (USER, 5), (GROUP_OBJ, 4), (MASK, 6), (OTHER, 0)]);
        assert_eq!(Acl::from_bytes(&list.to_bytes()), Some(list));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let three = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 4), (OTHER, 0)]).to_bytes();
        assert!(Acl::from_bytes(&three).is_some());
        for bytes in [&three[..three.len() - 1], &three[..3], b"", &[0; 28]] {
            assert_eq!(Acl::from_bytes(bytes), None);
        }
        for entries in [
            &[(USER_OBJ, 7), (GROUP_OBJ, 4)][..],
            &[(USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 4), (OTHER, 0)],
            &[(USER_OBJ, 8), (GROUP_OBJ, 4), (OTHER, 0)],
            &[(GROUP_OBJ, 4), (USER_OBJ, 7), (OTHER, 0)],
            &[(USER_OBJ, 7), (GROUP_OBJ, 4), (OTHER, 0), (0x40, 0)],
        ] {
            assert_eq!(Acl::from_bytes(&acl(entries).to_bytes()), None, "{entries:?}");
        }
    }

    #[test]
    fn the_mask_is_the_group_of_the_mode() {
        let list = acl(&[(USER_OBJ, 7), (USER, 5), (GROUP_OBJ, 4), (MASK, 6), (OTHER, 1)]);
        assert_eq!(list.permissions(), 0o761);
        let narrow = list.restricted_to(0o444);
        assert_eq!(narrow.permissions(), 0o440);
        let changed = list.with_mode(0o640);
        assert_eq!(
            changed,
            acl(&[(USER_OBJ, 6), (USER, 5), (GROUP_OBJ, 4), (MASK, 4), (OTHER, 0)])
        );
    }

    #[test]
    fn a_list_of_three_entries_says_as_much_as_a_mode() {
        assert!(acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 1)]).is_minimal());
        let list = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 1)]);
        assert!(!list.is_minimal());
        // What others are granted is no more than the mode of a new file asks for.
        assert_eq!(list.restricted_to(0o640).permissions(), 0o640);
        assert_eq!(list.restricted_to(0o777).permissions(), 0o771);
    }
}
