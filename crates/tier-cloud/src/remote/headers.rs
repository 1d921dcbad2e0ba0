//! What a store says of an object beside its length and version: a checksum, and whether it is
//! frozen.
//!
//! Headers: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>,
//! <https://cloud.google.com/storage/docs/xml-api/reference-headers>,
//! <https://learn.microsoft.com/rest/api/storageservices/get-blob-properties>.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_store::HeaderMap;
use tier_types::{ObjectChecksum, StorageClass};

/// Classes of S3 that are read only after a restore.
const FROZEN: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

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
    let is_s3 = text(headers, "x-amz-storage-class").is_some_and(|class| FROZEN.contains(&class));
    // An object that is thawed can be read for as long as it says.
    let is_thawed = text(headers, "x-amz-restore")
        .is_some_and(|restore| restore.contains("ongoing-request=\"false\""));
    let is_intelligent = text(headers, "x-amz-archive-status").is_some();
    let is_azure = text(headers, "x-ms-access-tier") == Some("Archive");
    match (is_s3 && !is_thawed) || is_intelligent || is_azure {
        true => StorageClass::Frozen,
        false => StorageClass::Online,
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
        let frozen = ("x-amz-storage-class", "DEEP_ARCHIVE");
        assert_eq!(class(&headers(&[frozen])), StorageClass::Frozen);
        let thawing = ("x-amz-restore", "ongoing-request=\"true\"");
        assert_eq!(class(&headers(&[frozen, thawing])), StorageClass::Frozen);
        let thawed = ("x-amz-restore", "ongoing-request=\"false\", expiry-date=\"later\"");
        assert_eq!(class(&headers(&[frozen, thawed])), StorageClass::Online);
        let instant = ("x-amz-storage-class", "GLACIER_IR");
        assert_eq!(class(&headers(&[instant])), StorageClass::Online);
        assert_eq!(class(&headers(&[("x-ms-access-tier", "Archive")])), StorageClass::Frozen);
        assert_eq!(class(&headers(&[("x-ms-access-tier", "Cool")])), StorageClass::Online);
    }
}
