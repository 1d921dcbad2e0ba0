//! Decoders of untrusted bytes, for the fuzz targets: there only in a build for fuzzing.

/// A key and the value of any table.
pub fn pair(key: &[u8], value: &[u8]) {
    crate::store::decode_all(key, value);
    drop(crate::ops::Acl::from_bytes(value));
}
