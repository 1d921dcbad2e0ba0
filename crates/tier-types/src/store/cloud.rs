//! Which cloud a store is.

use std::fmt;

/// The identity of a cloud: 16 random bytes, written as 32 hexadecimal digits. A place has it as
/// long as the object that says it is there; a URL may come to name another place.
///
/// ```
/// use tier_types::CloudId;
///
/// let id = CloudId::parse("000102030405060708090a0b0c0d0e0f").unwrap();
/// assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
/// assert_eq!(CloudId::parse("short"), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CloudId(u128);

impl CloudId {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// From its 32 digits.
    pub fn parse(text: &str) -> Option<Self> {
        // The parser of numbers would take a sign, and capitals, which would be another text of the
        // same identity.
        let is_digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        let fits = text.len() == 32 && text.bytes().all(is_digit);
        u128::from_str_radix(text, 16).ok().filter(|_| fits).map(Self)
    }
}

impl fmt::Display for CloudId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A cloud under one URL. What was verified there counts there alone: under another URL the same
/// identity may be that of a copy which lags behind.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CloudPlace {
    /// Which cloud.
    pub id: CloudId,
    /// Where it is.
    pub url: String,
}

impl fmt::Display for CloudPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.url, self.id)
    }
}
