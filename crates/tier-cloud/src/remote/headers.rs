//! What a store says of an object beside its length and version: a checksum, and whether it is
//! frozen.
//!
//! Headers: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>,
//! <https://cloud.google.com/storage/docs/xml-api/reference-headers>,
//! <https://learn.microsoft.com/rest/api/storageservices/get-blob-properties>.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_store::HeaderMap;
use tier_types::{ObjectChecksum, StorageClass};

/// What the providers say of how long thawing takes at most, at the standard price:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html>,
/// <https://learn.microsoft.com/azure/storage/blobs/archive-rehydrate-overview>.
const FLEXIBLE: Duration = Duration::from_hours(5);
const DEEP: Duration = Duration::from_hours(12);
const AZURE: Duration = Duration::from_hours(15);

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn decoded<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// The checksum of an object's whole content, if the store says one that is known here.
pub(super) fn checksum(headers: &HeaderMap) -> Option<ObjectChecksum> {
    // One of an object in parts is a checksum of checksums; its text has a number behind it, and so
    // is none of the right length.
    let sha256 = text(headers, "x-amz-checksum-sha256").and_then(decoded);
    if let Some(sha256) = sha256 {
        return Some(ObjectChecksum::Sha256(sha256));
    }
    let hashes = headers.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok());
    let mut google = hashes
        .flat_map(|hashes| hashes.split(','))
        .filter_map(|hash| decoded(hash.trim().strip_prefix("crc32c=")?));
    google.next().map(|bytes| ObjectChecksum::Crc32c(u32::from_be_bytes(bytes)))
}

/// How soon an object can be read.
pub(super) fn class(headers: &HeaderMap) -> StorageClass {
    let is = |name: &str, value: &str| text(headers, name) == Some(value);
    let within = match () {
        () if is("x-amz-storage-class", "GLACIER") => FLEXIBLE,
        () if is("x-amz-storage-class", "DEEP_ARCHIVE") => DEEP,
        // Of a class that moves objects by itself.
        () if is("x-amz-archive-status", "ARCHIVE_ACCESS") => FLEXIBLE,
        () if is("x-amz-archive-status", "DEEP_ARCHIVE_ACCESS") => DEEP,
        () if is("x-ms-access-tier", "Archive") => AZURE,
        () => return StorageClass::Online,
    };
    match text(headers, "x-amz-restore") {
        // An object that is thawed can be read for as long as it says.
        Some(restore) if restore.contains("ongoing-request=\"false\"") => StorageClass::Online,
        Some(_) => StorageClass::Thawing { within },
        None if text(headers, "x-ms-archive-status").is_some() => StorageClass::Thawing { within },
        None => StorageClass::Frozen { within },
    }
}

#[cfg(test)]
mod tests {
    use object_store::HeaderValue;

    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let all = all
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        all.collect()
    }

    #[test]
    fn checksums_of_the_whole_content_count() {
        let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let Some(ObjectChecksum::Sha256(sha256)) =
            checksum(&headers(&[("x-amz-checksum-sha256", empty)]))
        else {
            panic!("it is a digest");
        };
        assert_eq!(sha256[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        let parts =
            headers(&[("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=-3")]);
        assert_eq!(checksum(&parts), None, "of parts");
        let google = headers(&[("x-goog-hash", "md5=AAAA,crc32c=AAAAAQ==")]);
        assert_eq!(checksum(&google), Some(ObjectChecksum::Crc32c(1)));
        assert_eq!(checksum(&headers(&[("x-goog-hash", "crc32c=AAAA")])), None, "too short");
        assert_eq!(checksum(&headers(&[])), None);
    }

    #[test]
    fn a_frozen_object_is_told_apart_from_a_thawed_one() {
        let (frozen, within) = (("x-amz-storage-class", "DEEP_ARCHIVE"), DEEP);
        assert_eq!(class(&headers(&[frozen])), StorageClass::Frozen { within });
        let thawing = ("x-amz-restore", "ongoing-request=\"true\"");
        assert_eq!(class(&headers(&[frozen, thawing])), StorageClass::Thawing { within });
        let thawed = ("x-amz-restore", "ongoing-request=\"false\", expiry-date=\"later\"");
        assert_eq!(class(&headers(&[frozen, thawed])), StorageClass::Online);
        let instant = ("x-amz-storage-class", "GLACIER_IR");
        assert_eq!(class(&headers(&[instant])), StorageClass::Online);
        let (azure, within) = (("x-ms-access-tier", "Archive"), AZURE);
        assert_eq!(class(&headers(&[azure])), StorageClass::Frozen { within });
        let thawing = ("x-ms-archive-status", "rehydrate-pending-to-hot");
        assert_eq!(class(&headers(&[azure, thawing])), StorageClass::Thawing { within });
        assert_eq!(class(&headers(&[("x-ms-access-tier", "Cool")])), StorageClass::Online);
    }
}
