//! What a store says of an object besides its bytes.

use std::time::Duration;

use super::name::ObjectName;

/// What a store says of an object. None of it is trusted where bytes are at stake; it is what
/// requests are decided by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectMetadata {
    /// Its length.
    pub len_bytes: u64,
    /// A checksum of its bytes, if the store keeps one.
    pub checksum: Option<ObjectChecksum>,
    /// How soon it can be read.
    pub class: StorageClass,
    /// Which of all objects that ever had this name it is, in the store's own words.
    pub version: ObjectVersion,
}

/// A checksum of an object's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ObjectChecksum {
    /// CRC-32C.
    Crc32c(u32),
    /// SHA-256.
    Sha256([u8; 32]),
}

/// How soon an object can be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StorageClass {
    /// At once.
    Online,
    /// After it was thawed, which takes about so long.
    Frozen {
        /// From when that is asked for.
        within: Duration,
    },
    /// It is being thawed.
    Thawing {
        /// From when that was asked for.
        within: Duration,
    },
}

/// Names one of the objects that a name has had: equal only for the same one, or for one with equal
/// bytes. Opaque: an entity tag, a generation, the number and times of a file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ObjectVersion(pub String);

/// What became of a conditional put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Created {
    /// The name was free: the object is there.
    New,
    /// The name was taken, by an object of which this is known. Nothing was changed. It may be this
    /// call's own, of which an acknowledgement was lost: the caller compares.
    Exists(ObjectMetadata),
}

/// An object in a listing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ListedObject {
    /// Its name.
    pub name: ObjectName,
    /// Its length.
    pub len_bytes: u64,
}

/// A piece of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListPage {
    /// Sorted by name.
    pub objects: Vec<ListedObject>,
    /// Nothing comes after these.
    pub is_last: bool,
}

/// A range of an object, and the buffer that its bytes go into.
#[derive(Debug)]
pub struct RangeRead<'a> {
    /// Where it starts in the object.
    pub offset_bytes: u64,
    /// As long as the range.
    pub buffer: &'a mut [u8],
}
