//! Whether everything that was committed is still what it was.

use ring::digest::{Context, SHA256};
use tier_types::{ErrorKind, Ino, ObjectStore, to_u64, to_usize};

use crate::archive::{Archive, Link, StoredObject};
use crate::rebuild::read_entries;
use crate::tarball::TarballRow;
use crate::{PersistError, ScanMode};

const READ_BYTES: usize = 1 << 20;

/// One object that is not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// Whether it is not there at all.
    pub missing: bool,
}

/// What was checked and found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Objects checked.
    pub n_objects: u64,
    /// Their length.
    pub bytes: u64,
    /// Members checked, if data was read.
    pub n_members: u64,
    /// What is damaged or missing.
    pub damages: Vec<Damage>,
}

/// The SHA-256 of a stored object, read through in pieces.
fn object_sha256(store: &dyn ObjectStore, object: &StoredObject) -> Result<[u8; 32], PersistError> {
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < object.len_bytes {
        let n = to_usize((object.len_bytes - at).min(to_u64(READ_BYTES)));
        let piece = buffer.get_mut(..n).unwrap_or_default();
        store.read_range(&object.name, at, piece).map_err(PersistError::Store)?;
        digest.update(piece);
        at += to_u64(n);
    }
    Ok(digest.finish().as_ref().first_chunk().copied().unwrap_or_default())
}

/// Checks that an object is there with the right length and digest.
pub fn check_object(store: &dyn ObjectStore, object: &StoredObject) -> Result<(), PersistError> {
    let len_bytes = store.len_bytes(&object.name).map_err(PersistError::Store)?;
    if len_bytes != object.len_bytes {
        return Err(PersistError::damaged(&object.name, "its length is wrong"));
    }
    if object_sha256(store, object)? != object.sha256 {
        return Err(PersistError::damaged(&object.name, "its digest is wrong"));
    }
    Ok(())
}

impl Archive<'_> {
    /// Checks every object of every snapshot: there, with the right length and digest; with
    /// `read_data` also every byte decrypted and decompressed, every member parsed, and the tables
    /// of contents compared with the members. Damage is reported, not an error; `progress` is
    /// called with the bytes of each object done.
    pub fn verify(
        &self,
        read_data: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<VerifyReport, PersistError> {
        let mut report = VerifyReport::default();
        for link in self.links() {
            for object in self.objects(link.summary.snapshot)? {
                report.n_objects += 1;
                report.bytes += object.len_bytes;
                let checked = check_object(self.store(), &object);
                note(&mut report, object.name.as_str(), checked)?;
                progress(object.len_bytes);
            }
            if read_data {
                self.read_members(link, &mut report)?;
            }
        }
        Ok(report)
    }

    fn read_members(&self, link: &Link, report: &mut VerifyReport) -> Result<(), PersistError> {
        for row in &self.manifest(link)?.tarballs {
            let name = crate::names::tarball_name(self.filesystem(), row.id, row.encrypted);
            let known = report.damages.iter().any(|damage| damage.object == name.as_str());
            if !known {
                let checked = self.compare_members(row).map(|n| report.n_members += n);
                note(report, name.as_str(), checked)?;
            }
        }
        Ok(())
    }

    /// The members of a tarball, which must be what its table of contents says.
    fn compare_members(&self, row: &TarballRow) -> Result<u64, PersistError> {
        let tarball = (self.filesystem(), row);
        let mut digests =
            [ScanMode::Tables, ScanMode::Full].map(|mode| (mode, Context::new(&SHA256), 0));
        let mut bytes = Vec::new();
        for (mode, digest, n_members) in &mut digests {
            read_entries(self.store(), self.keys(), tarball, *mode, &mut |entry| {
                bytes.clear();
                entry.append_to(Ino::new(0), &mut bytes);
                digest.update(&bytes);
                *n_members += 1;
                Ok(())
            })?;
        }
        let [(_, tables, _), (_, members, n_members)] = digests;
        if tables.finish().as_ref() != members.finish().as_ref() {
            let name = crate::names::tarball_name(self.filesystem(), row.id, row.encrypted);
            return Err(PersistError::damaged(
                name,
                "its table of contents does not fit its members",
            ));
        }
        Ok(n_members)
    }
}

fn note(
    report: &mut VerifyReport,
    object: &str,
    checked: Result<(), PersistError>,
) -> Result<(), PersistError> {
    match checked {
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Missing) => {
            let missing = error.kind() == ErrorKind::Missing;
            let (object, problem) = (object.to_string(), error.to_string());
            report.damages.push(Damage { object, problem, missing });
            Ok(())
        }
        other => other,
    }
}
